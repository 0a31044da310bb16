//! A directory service of a few people, small enough to be read: RFC 4511 as far as mapigate asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Somebody in it.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// Names that a filter may ask for, in lower case.
    pub(crate) names: Vec<String>,
    /// Attributes and their values.
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// A running directory service. It ends with this value.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    searches: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Service {
    pub(crate) async fn start(people: Vec<Person>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (people, searches) = (Arc::new(people), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&searches);
        let task = tokio::spawn(async move {
            // Its connections end with the service.
            let mut lines = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                lines.spawn(serve(stream, Arc::clone(&people), Arc::clone(&counted)));
            }
        });
        Self {
            address,
            searches,
            task: task.abort_handle(),
        }
    }

    /// The settings of `directory` that lead here.
    pub(crate) fn section(&self, access: &str) -> String {
        format!(
            "  access: {access}\n  ldap:\n    urls: ['ldap://{}']\n    bind_name: cn=mapigate\n    \
             bind_password: a secret of tests\n    base: dc=contoso,dc=test\n    \
             attributes: {{ guid_form: text, database_form: text, delegates: delegate }}\n    \
             connect_timeout: 1s\n    operation_timeout: 1s",
            self.address
        )
    }

    /// Searches for people so far.
    pub(crate) fn searches(&self) -> usize {
        self.searches.load(Ordering::Relaxed)
    }

    /// Goes away: connections break, and nobody gets a new one.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(mut stream: TcpStream, people: Arc<Vec<Person>>, searches: Arc<AtomicUsize>) {
    while let Ok(message) = message(&mut stream).await {
        let (_, id, rest) = element(&message);
        let (kind, asked, _) = element(rest);
        let mut answers = Vec::new();
        match kind {
            BIND => answers.push(done(0x61)),
            SEARCH => {
                let (_, base, _) = element(asked);
                if !base.is_empty() {
                    searches.fetch_add(1, Ordering::Relaxed);
                    answers.extend(people.iter().filter(|one| one.is_in(asked)).map(entry));
                }
                answers.push(done(0x65));
            }
            _ => return,
        }
        let id = encode(0x02, id);
        let whole = answers
            .iter()
            .map(|answer| encode(0x30, &[&id[..], answer].concat()));
        if stream
            .write_all(&whole.collect::<Vec<_>>().concat())
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Person {
    /// A name of this person is a value of the filter.
    fn is_in(&self, asked: &[u8]) -> bool {
        let asked = asked.to_ascii_lowercase();
        let is_there = |name: &String| {
            let is_value = |value: &str| {
                let value = [
                    &[0x04, u8::try_from(value.len()).unwrap()],
                    value.as_bytes(),
                ]
                .concat();
                asked.windows(value.len()).any(|window| window == value)
            };
            is_value(name) || is_value(&format!("smtp:{name}"))
        };
        self.names.iter().any(is_there)
    }
}

fn entry(person: &Person) -> Vec<u8> {
    let attributes = person.attributes.iter().map(|(name, value)| {
        let values = encode(0x31, &encode(0x04, value.as_bytes()));
        encode(0x30, &[encode(0x04, name.as_bytes()), values].concat())
    });
    let dn = format!("cn={},dc=contoso,dc=test", person.names[0]);
    let attributes = encode(0x30, &attributes.collect::<Vec<_>>().concat());
    encode(0x64, &[encode(0x04, dn.as_bytes()), attributes].concat())
}

/// Success.
fn done(kind: u8) -> Vec<u8> {
    encode(kind, &[0x0a, 1, 0, 0x04, 0, 0x04, 0])
}

async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let _sequence = stream.read_u8().await?;
    let mut length = usize::from(stream.read_u8().await?);
    if length > 0x7f {
        let count = length & 0x7f;
        length = 0;
        for _ in 0..count {
            length = (length << 8) | usize::from(stream.read_u8().await?);
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The first element: its kind, what is in it, what comes after it.
fn element(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    let (mut length, mut start) = (usize::from(bytes[1]), 2);
    if length > 0x7f {
        let count = length & 0x7f;
        length = bytes[2..2 + count]
            .iter()
            .fold(0, |length, byte| (length << 8) | usize::from(*byte));
        start += count;
    }
    (
        bytes[0],
        &bytes[start..start + length],
        &bytes[start + length..],
    )
}

fn encode(kind: u8, content: &[u8]) -> Vec<u8> {
    // The long form of a length is as good for short ones.
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 0x82], &length[..], content].concat()
}

const BIND: u8 = 0x60;
const SEARCH: u8 = 0x63;
