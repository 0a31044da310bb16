//! What a simulated server serves beside MAPI: stand-ins of Exchange Web Services, Outlook on the web,
//! ActiveSync and the offline address book, with the habits that matter to whoever stands in front.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest as hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answers::{Payload, Reply};
use super::authenticator::Judged;
use super::connection::Connection;
use super::delivery::{self, Then};
use super::faults::Ending;
use super::http::Head;
use crate::lab::{digest, hex};

/// Where a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ews,
    Owa,
    ActiveSync,
    Oab,
    /// Served, with nothing of its own: a page that says who asked for what.
    Other,
}

const PLACES: [(&str, Place); 8] = [
    ("ews", Place::Ews),
    ("owa", Place::Owa),
    ("ecp", Place::Owa),
    ("oab", Place::Oab),
    ("microsoft-server-activesync", Place::ActiveSync),
    ("powershell", Place::Other),
    ("api", Place::Other),
    ("rpc", Place::Other),
];

/// Bytes of a body.
const BODY_MAX: usize = 64 << 20;
const CLOSE: Then = Then::End(Ending::Close);

fn place_of(head: &Head) -> Option<(&'static str, Place)> {
    let path = head.target.split('?').next().unwrap_or_default();
    let first = path.trim_start_matches('/').split('/').next()?;
    let mut places = PLACES.into_iter();
    places.find(|(name, _)| name.eq_ignore_ascii_case(first))
}

impl Connection {
    /// True where a request is for one of these.
    pub(super) fn is_web(head: &Head) -> bool {
        place_of(head).is_some()
    }

    pub(super) async fn web(&mut self, head: &Head) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let Some((name, place)) = place_of(head) else {
            return self.say("404 Not Found", "Not Found").await;
        };
        let path = head.target.split('?').next().unwrap_or_default();
        let page = format!("/{name}/healthcheck.htm");
        if path.eq_ignore_ascii_case(&page) {
            let reply = match server.closed.lock().contains(name) {
                true => delivery::status(503, server.options.flavour),
                false => super::answers::health_page(&server.options.name, server.options.flavour),
            };
            return server.deliver(&mut self.inbound, reply, None).await;
        }
        let Some(body) = self.web_body(head).await? else {
            return self.say("413 Request Entity Too Large", "Too large").await;
        };
        let is_form = place == Place::Owa && server.options.forms;
        let user = match is_form {
            true => match head.cookie("cadata") {
                Some(user) => user.to_owned(),
                None => return self.form(head, &body).await,
            },
            false => {
                let certificate = self.inbound.wire.shows_certificate();
                match self.who.user(&server, head, certificate).await {
                    Judged::User(user) => user.to_string(),
                    _ => {
                        let reply = Reply::challenge(&server.options);
                        return server.deliver(&mut self.inbound, reply, None).await;
                    }
                }
            }
        };
        let text = String::from_utf8_lossy(&body);
        match place {
            Place::Ews if text.contains("GetStreamingEvents") => self.stream(head).await,
            Place::ActiveSync if head.method == "OPTIONS" => self.versions().await,
            Place::ActiveSync if head.target.contains("Cmd=Ping") => self.ping(head, &user).await,
            Place::ActiveSync if head.header("x-lab-elsewhere").is_some() => self.elsewhere().await,
            Place::Owa if head.header("upgrade").is_some() => self.echo(head).await,
            _ => self.tell(head, &user, &body).await,
        }
    }

    async fn web_body(&mut self, head: &Head) -> io::Result<Option<Vec<u8>>> {
        if head.header("transfer-encoding").is_some() {
            return self.inbound.chunked_body(BODY_MAX).await;
        }
        let length = head.last("content-length").unwrap_or(b"0");
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|digits| digits.parse().ok());
        match length {
            Some(length) if length <= BODY_MAX => Ok(Some(self.inbound.body(length).await?)),
            _ => Ok(None),
        }
    }

    /// Who asked whom for what, with everything real servers tell of themselves.
    async fn tell(&mut self, head: &Head, user: &str, body: &[u8]) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let options = &server.options;
        let words = format!(
            "server={} user={user} method={} target={} bytes={} digest={}\r\n",
            options.name,
            head.method,
            head.target,
            body.len(),
            hex(&digest(body))
        );
        let mut reply = Reply::plain("200 OK", "", options.flavour, head.closes());
        set_body(&mut reply, words.into_bytes());
        let host = &options.host;
        reply.headers.extend([
            ("X-FEServer", host.clone()),
            ("X-BEServer", host.clone()),
            ("X-CalculatedBETarget", host.clone()),
            ("X-DiagInfo", options.name.to_string()),
            ("X-Powered-By", "ASP.NET".to_owned()),
            (
                "Set-Cookie",
                format!("X-BackEndCookie=x; path=/; domain={host}"),
            ),
            (
                "Set-Cookie",
                format!("UserContext=abc; domain=.{host}; path=/; secure"),
            ),
        ]);
        if head.method == "HEAD" {
            reply.body = Payload::Counted(Vec::new());
        }
        server.deliver(&mut self.inbound, reply, None).await
    }

    /// Notifications in chunks, one for each news, until the client leaves or `X-Lab-Pieces` were sent.
    async fn stream(&mut self, head: &Head) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let mut news = server.news.subscribe();
        let pieces = head
            .text("x-lab-pieces")
            .and_then(|text| text.parse().ok())
            .unwrap_or(u64::MAX);
        let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.send(&mut self.inbound, begin.as_bytes()).await?;
        self.chunk("<ConnectionStatus>OK</ConnectionStatus>")
            .await?;
        for number in 0..pieces {
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return Ok(CLOSE) },
                read = self.inbound.more() => if read? == 0 { return Ok(CLOSE) },
            }
            self.chunk(&format!("<NewMailEvent>{number}</NewMailEvent>"))
                .await?;
        }
        server.send(&mut self.inbound, b"0\r\n\r\n").await?;
        Ok(Then::Go)
    }

    async fn chunk(&mut self, text: &str) -> io::Result<()> {
        let server = Arc::clone(&self.server);
        let piece = format!("{:x}\r\n{text}\r\n", text.len());
        server.send(&mut self.inbound, piece.as_bytes()).await
    }

    /// Which versions of ActiveSync are spoken. `[MS-ASHTTP] 2.2.4`
    async fn versions(&mut self) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let mut reply = Reply::plain("200 OK", "", server.options.flavour, false);
        set_body(&mut reply, Vec::new());
        reply.headers.extend([
            ("MS-Server-ActiveSync", "15.1".to_owned()),
            (
                "MS-ASProtocolVersions",
                "12.1,14.0,14.1,16.0,16.1".to_owned(),
            ),
            ("MS-ASProtocolCommands", "Sync,Ping,FolderSync".to_owned()),
        ]);
        server.deliver(&mut self.inbound, reply, None).await
    }

    /// Held until there is news. `[MS-ASCMD] 2.2.1.13`
    async fn ping(&mut self, head: &Head, user: &str) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let mut news = server.news.subscribe();
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return Ok(CLOSE) },
            read = self.inbound.more() => if read? == 0 { return Ok(CLOSE) },
        }
        self.tell(head, user, b"").await
    }

    /// The mailbox is served under another name. `[MS-ASHTTP] 3.1.5.2.2`
    async fn elsewhere(&mut self) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let options = &server.options;
        let mut reply = Reply::plain("451 Unavailable", "", options.flavour, false);
        set_body(&mut reply, Vec::new());
        let url = format!("https://{}/Microsoft-Server-ActiveSync", options.host);
        reply.headers.push(("X-MS-Location", url));
        server.deliver(&mut self.inbound, reply, None).await
    }

    /// The form of a logon: whoever has no cookie is sent to it, and gets one for the right password.
    async fn form(&mut self, head: &Head, body: &[u8]) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let options = &server.options;
        let path = head.target.split('?').next().unwrap_or_default();
        let mut reply = Reply::plain("302 Found", "", options.flavour, false);
        set_body(&mut reply, Vec::new());
        let to = |path: &str| format!("https://{}{path}", options.host);
        if path.ends_with("/auth/logon.aspx") {
            let page = format!(
                "<form action=/owa/auth.owa method=post> at {}",
                options.name
            );
            reply.status = "200 OK".to_owned();
            set_body(&mut reply, page.into_bytes());
        } else if path.ends_with("/auth.owa") {
            let text = String::from_utf8_lossy(body);
            let field = |name: &str| {
                let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
                pairs
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value.replace("%40", "@").replace('+', " "))
            };
            let user = field("username").unwrap_or_default();
            let password = field("password").unwrap_or_default();
            let name = crate::ids::UserName::new(user.as_str());
            if server.admits(&name, &password) {
                let cookie = format!("cadata={user}; path=/; secure; HttpOnly");
                reply.headers.push(("Set-Cookie", cookie));
                reply.headers.push(("Location", to("/owa/")));
            } else {
                let to = to("/owa/auth/logon.aspx?reason=2");
                reply.headers.push(("Location", to));
            }
        } else {
            let to = to("/owa/auth/logon.aspx?reason=0");
            reply.headers.push(("Location", to));
        }
        server.deliver(&mut self.inbound, reply, None).await
    }

    /// A WebSocket that says what it hears, in frames of up to 125 bytes. RFC 6455
    async fn echo(&mut self, head: &Head) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let key = head.text("sec-websocket-key").unwrap_or_default();
        let proof = hash(
            &SHA1_FOR_LEGACY_USE_ONLY,
            format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
        );
        let begin = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nX-FEServer: {}\r\n\r\n",
            STANDARD.encode(proof),
            server.options.host
        );
        server.send(&mut self.inbound, begin.as_bytes()).await?;
        loop {
            let head = self.inbound.body(6).await?;
            let [kind, length, mask @ ..] = head.as_slice() else {
                return Ok(CLOSE);
            };
            let length = usize::from(length & 0x7f);
            let is_close = kind & 0x0f == 8;
            if length > 125 {
                return Ok(CLOSE);
            }
            let masked = self.inbound.body(length).await?;
            let words = masked.iter().zip(mask.iter().cycle());
            let mut frame = vec![*kind, u8::try_from(length).unwrap_or_default()];
            frame.extend(words.map(|(byte, mask)| byte ^ mask));
            server.send(&mut self.inbound, &frame).await?;
            if is_close {
                return Ok(CLOSE);
            }
        }
    }
}

fn set_body(reply: &mut Reply, body: Vec<u8>) {
    reply
        .headers
        .retain(|(name, _)| !matches!(*name, "Content-Length"));
    reply
        .headers
        .push(("Content-Length", body.len().to_string()));
    reply.body = Payload::Counted(body);
}
