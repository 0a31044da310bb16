//! A directory service for tests: it knows the copies and servers that a test gives it, and says so over a socket.

use super::person::tests::settings;
use super::shape::tests::element_of;
use super::shape::{self, MESSAGE_MAX};
use crate::config::settings::LdapSettings;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens on the loopback until the test's reactor ends.
pub(crate) struct Double {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
}

/// What it says to a search.
#[derive(Clone, Debug, Default)]
pub(crate) struct Says {
    /// DN and attributes of every copy.
    pub(crate) copies: Vec<Entry>,
    /// The same of every server.
    pub(crate) servers: Vec<Entry>,
    /// How a search for either ends. RFC 4511 4.1.9
    pub(crate) code: u8,
    /// It takes questions, and never answers.
    pub(crate) is_silent: bool,
}

pub(crate) type Entry = (String, Vec<(&'static str, String)>);

impl Double {
    pub(crate) async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let shared = Arc::clone(&says);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(converse(client, Arc::clone(&shared)));
            }
        });
        Self { address, says }
    }

    /// From now on it says this.
    pub(crate) fn say(&self, says: Says) {
        *self.says.lock() = says;
    }

    /// What asks it, soon and often.
    pub(crate) fn settings(&self) -> Arc<LdapSettings> {
        let mut settings = settings();
        settings.servers[0].port = self.address.port();
        settings.refresh = Duration::from_millis(20);
        settings.operation_timeout = Duration::from_millis(200);
        Arc::new(settings)
    }
}

/// A copy of a database on a server, as Exchange writes it.
pub(crate) fn copy(database: &str, server: &str, preference: u32) -> Entry {
    (
        format!("CN={server},CN={database},CN=Databases,CN=Configuration"),
        vec![
            (
                "msExchHostServerLink",
                format!("CN={server},CN=Servers,CN=Configuration"),
            ),
            ("msExchActivationPreference", preference.to_string()),
        ],
    )
}

/// A server with this host name.
pub(crate) fn server(name: &str, host: &str) -> Entry {
    (
        format!("CN={name},CN=Servers,CN=Configuration"),
        vec![("networkAddress", format!("ncacn_ip_tcp:{host}"))],
    )
}

async fn converse(mut client: TcpStream, says: Arc<Mutex<Says>>) {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 4096];
    loop {
        while let Ok(Some(length)) = shape::length(&bytes) {
            if bytes.len() < length {
                break;
            }
            let question: Vec<u8> = bytes.drain(..length).collect();
            let said = says.lock().clone();
            let answer = answer(&question, &said);
            if client.write_all(&answer).await.is_err() {
                return;
            }
        }
        assert!(bytes.len() < MESSAGE_MAX);
        match client.read(&mut piece).await {
            Ok(read) if read > 0 => bytes.extend(&piece[..read]),
            _ => return,
        }
    }
}

fn answer(question: &[u8], says: &Says) -> Vec<u8> {
    let head = match question[1] {
        short @ ..=0x7f => usize::from(short != 0) + 1,
        long => 2 + usize::from(long & 0x7f),
    };
    let (id, operation) = question[head..].split_at(2 + usize::from(question[head + 1]));
    let message =
        |operation: &[u8], controls: &[u8]| element_of(0x30, &[id, operation, controls].concat());
    let asks = |words: &str| {
        let mut parts = operation.windows(words.len());
        parts.any(|part| part == words.as_bytes())
    };
    let result = |code: u8| [&[0x0a, 1, code][..], b"\x04\x00\x04\x00"].concat();
    let root = (
        String::new(),
        vec![("configurationNamingContext", "CN=Configuration".to_owned())],
    );
    let (entries, code) = match operation[0] {
        0x60 => return message(&element_of(0x61, &result(0)), &[]),
        0x63 if asks("configurationNamingContext") => (vec![root], 0),
        0x63 if asks("msExchMDBCopy") => (says.copies.clone(), says.code),
        0x63 if asks("msExchExchangeServer") => (says.servers.clone(), says.code),
        0x63 => (Vec::new(), 0),
        _ => return Vec::new(),
    };
    if says.is_silent {
        return Vec::new();
    }
    let mut answer = Vec::new();
    for entry in &entries {
        answer.extend(message(&in_bytes(entry), &[]));
    }
    let controls = match asks(PAGED) {
        true => last_page(),
        false => Vec::new(),
    };
    answer.extend(message(&element_of(0x65, &result(code)), &controls));
    answer
}

fn in_bytes((dn, attributes): &Entry) -> Vec<u8> {
    let text = |text: &str| element_of(0x04, text.as_bytes());
    let attribute = |(name, value): &(&str, String)| {
        let values = element_of(0x31, &text(value));
        element_of(0x30, &[text(name), values].concat())
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(attribute).collect();
    element_of(0x64, &[text(dn), element_of(0x30, &attributes)].concat())
}

/// There is no further page. RFC 2696 2
fn last_page() -> Vec<u8> {
    let value = element_of(0x30, b"\x02\x01\x00\x04\x00");
    let control = [element_of(0x04, PAGED.as_bytes()), element_of(0x04, &value)];
    element_of(0xa0, &element_of(0x30, &control.concat()))
}

const PAGED: &str = "1.2.840.113556.1.4.319";
