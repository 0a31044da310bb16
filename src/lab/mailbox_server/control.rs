//! A tiny HTTP port that commands a simulated server from outside its process.
//!
//! `POST /fault?kind=close-before-head&count=2&only=Execute` · `POST /clear` · `POST /wake?user=` ·
//! `POST /active?database=DB07&on=false` · `POST /listen?on=false` · `POST /cut` · `POST /forget` ·
//! `POST /health?page=served|failing|missing` · `GET /counters` · `GET /journal` · `GET /heads`

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Fault, HealthPage, MailboxServer};
use crate::mapi::RequestType;

/// Bytes of a command's head.
const HEAD_MAX: usize = 8 * 1024;

/// Serves commands until the task is dropped. Loopback only is the caller's choice of address.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    server: Arc<MailboxServer>,
    listen: SocketAddr,
) -> io::Result<(SocketAddr, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let serving = async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // One command at a time is plenty; a broken connection is its client's business.
            let _ = command(&server, tcp).await;
        }
    };
    Ok((address, serving))
}

async fn command(server: &MailboxServer, mut tcp: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() && head.len() < HEAD_MAX {
        if tcp.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.split([' ', '\r']);
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (status, answer) = match obey(server, method, target) {
        Ok(answer) => ("200 OK", answer),
        Err(problem) => ("400 Bad Request", json!({ "problem": problem })),
    };
    let body = format!("{answer}\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(answer.as_bytes()).await?;
    tcp.shutdown().await
}

/// Does what a command says.
fn obey(server: &MailboxServer, method: &str, target: &str) -> Result<Value, String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let value = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    };
    let needed = |name: &str| value(name).ok_or_else(|| format!("{name} is missing"));
    match (method, path) {
        ("POST", "/fault") => {
            let fault: Fault = needed("kind")?
                .parse()
                .map_err(|problem: super::UnknownFault| problem.to_string())?;
            let count = value("count")
                .unwrap_or("1")
                .parse()
                .map_err(|problem| format!("count: {problem}"))?;
            let only = match value("only") {
                None => None,
                Some(word) => match RequestType::read(word.as_bytes()) {
                    RequestType::Other => {
                        return Err(format!("no request type is called {word:?}"));
                    }
                    kind => Some(kind),
                },
            };
            server.fault(fault, count, only);
            Ok(json!({ "fault": fault.to_string(), "count": count }))
        }
        ("POST", "/clear") => {
            server.clear_faults();
            Ok(json!({}))
        }
        ("POST", "/wake") => Ok(json!({ "woken": server.wake(value("user")) })),
        ("POST", "/active") => {
            server.set_active(needed("database")?, is_on(needed("on")?)?);
            Ok(json!({}))
        }
        ("POST", "/listen") => {
            server.listen(is_on(needed("on")?)?);
            Ok(json!({}))
        }
        ("POST", "/cut") => {
            server.cut_connections();
            Ok(json!({}))
        }
        ("POST", "/forget") => Ok(json!({ "forgotten": server.forget() })),
        ("POST", "/health") => {
            server.set_health_page(match needed("page")? {
                "served" => HealthPage::Served,
                "failing" => HealthPage::Failing,
                "missing" => HealthPage::Missing,
                word => return Err(format!("page is served, failing or missing, not {word:?}")),
            });
            Ok(json!({}))
        }
        ("GET", "/counters") => Ok(json!(server.counters())),
        ("GET", "/journal") => Ok(json!(server.executed())),
        ("GET", "/heads") => Ok(json!(
            server
                .heads()
                .iter()
                .map(|head| String::from_utf8_lossy(head).into_owned())
                .collect::<Vec<_>>()
        )),
        _ => Err(format!("no command {method} {path}")),
    }
}

fn is_on(word: &str) -> Result<bool, String> {
    match word {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("on is true or false, not {word:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::mailbox_server::Options;
    use crate::mapi::Flavour;

    #[tokio::test]
    async fn commands_do_what_they_say_and_explain_what_they_do_not_know() {
        let server = MailboxServer::spawn(Options::new("MBX1", Flavour::Gromox))
            .await
            .unwrap();

        assert!(obey(&server, "POST", "/fault?kind=drip&count=2&only=Execute").is_ok());
        assert_eq!(server.counters().faults_left, 2);
        assert!(obey(&server, "POST", "/clear").is_ok());
        assert_eq!(server.counters().faults_left, 0);
        for wrong in [
            "/fault",
            "/fault?kind=nice",
            "/fault?kind=drip&count=x",
            "/fault?kind=drip&only=Nothing",
            "/active?database=DB07&on=perhaps",
            "/health?page=blank",
            "/nothing",
        ] {
            assert!(obey(&server, "POST", wrong).is_err(), "{wrong}");
        }
    }
}
