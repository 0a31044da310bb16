//! A proxy between a client and mapigate that does what bad ones do.

use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::{Answer, Line};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does with requests on their way in, and with answers on their way out; both see the request's head.
pub(crate) type Meddling = (fn(&mut Vec<String>), fn(&[String], &mut Answer));

/// Without TLS on either side. Every answer is read as a whole before it is passed on.
pub(crate) async fn meddler(to: SocketAddr, meddling: Meddling) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, to, meddling));
        }
    });
    address
}

async fn carry(mut client: TcpStream, to: SocketAddr, (going, coming): Meddling) {
    let target = Target {
        address: to,
        host: String::new(),
        tls: None::<Arc<rustls::ClientConfig>>,
    };
    let mut server = Line::connect(&target).await.unwrap();
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break end;
            }
            if client.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
        let length = value(&lines, "content-length").map_or(0, |text| text.parse().unwrap());
        while buffer.len() < end + 4 + length {
            if client.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body: Vec<u8> = buffer.drain(..end + 4 + length).skip(end + 4).collect();
        going(&mut lines);
        let mut request = format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes();
        request.extend(body);
        let Ok(mut answer) = server.ask(&request).await else {
            return;
        };
        coming(&lines, &mut answer);
        let body = answer.body();
        let mut bytes = format!("HTTP/1.1 {} Status\r\n", answer.head.status);
        for (name, value) in &answer.head.headers {
            let framing = ["content-length", "transfer-encoding"];
            if !framing.contains(&name.to_ascii_lowercase().as_str()) {
                bytes.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        bytes.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let bytes = [bytes.into_bytes(), body].concat();
        if client.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// A header's value.
pub(crate) fn value<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
