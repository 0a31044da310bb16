//! The directory by a plain connection that turns into a private one. RFC 4511 4.14

use crate::lab::Lab;
use crate::ldap::{Mailbox, SECRET, eventually, ldap, start};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `ExtendedResponse` to the first message: the server does not want to. RFC 4511 4.12
const NO_TLS: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00";

/// A wire to the plain port of the directory that hears what is said on it.
struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// `strips`: answers in the directory's place that there is no TLS to be had.
    async fn start(strips: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let record = Arc::clone(&record);
                tokio::spawn(carry(client, record, strips));
            }
        });
        Self { address, heard }
    }

    fn settings(&self, lab: &Lab) -> String {
        let url = format!("ldap://dc1.contoso.test:{}", self.address.port());
        ldap(lab, &url, "    starttls: true\n")
    }

    fn has_heard(&self, words: &str) -> bool {
        let heard = self.heard.lock();
        memchr::memmem::find(&heard, words.as_bytes()).is_some()
    }
}

async fn carry(client: TcpStream, record: Arc<Mutex<Vec<u8>>>, strips: bool) {
    let server = TcpStream::connect("127.0.0.1:389").await.unwrap();
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    tokio::spawn(async move {
        if !strips {
            let _ended = tokio::io::copy(&mut answers, &mut back).await;
            return;
        }
        let _told = back.write_all(NO_TLS).await;
        let _held = answers.read_u8().await;
    });
    let mut piece = vec![0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        record.lock().extend_from_slice(&piece[..length]);
        if !strips && to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn people_log_on_by_a_connection_that_turned_private_before_any_password() {
    let lab = Lab::find();
    let owner = Mailbox::new(&lab, "DB01");
    let tap = Tap::start(false).await;
    let site = start(&lab, "listed", &tap.settings(&lab)).await;

    let mailbox = owner.id();
    let (right, wrong) = (owner.credentials(), format!("{}:no", owner.upn()));
    let got = site.status(&right, Some(&mailbox)).await;
    let refused = site.status(&wrong, Some(&mailbox)).await;

    assert_eq!((got, refused), (200, 401), "{}", site.log());
    // The name of the extended operation is all that went in clear.
    assert!(tap.has_heard("1.3.6.1.4.1.1466.20037"));
    for secret in [SECRET, "P@ssw0rd.1-svc-ldap", "svc-ldap", &owner.upn()] {
        assert!(!tap.has_heard(secret), "{secret}");
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn where_the_connection_does_not_turn_private_nobody_is_told_a_password() {
    let lab = Lab::find();
    let owner = Mailbox::new(&lab, "DB01");
    let stripped = Tap::start(true).await;
    let site = start(&lab, "listed", &stripped.settings(&lab)).await;

    let status = site.status(&owner.credentials(), Some(&owner.id())).await;

    assert_eq!(status, 503);
    assert!(stripped.has_heard("1.3.6.1.4.1.1466.20037"));
    for secret in [SECRET, "P@ssw0rd.1-svc-ldap"] {
        assert!(!stripped.has_heard(secret), "{secret}");
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_directory_with_a_strangers_certificate_is_told_no_password() {
    let lab = Lab::find();
    let owner = Mailbox::new(&lab, "DB01");
    let tap = Tap::start(false).await;
    // The site's own authority, which has not signed the directory's certificate.
    let authority = format!("ca: {}", lab.path("tls/ca.pem").display());
    let settings = tap.settings(&lab).replace(&authority, "ca: ca.pem");
    let site = start(&lab, "listed", &settings).await;

    let status = site.status(&owner.credentials(), Some(&owner.id())).await;

    assert_eq!(status, 503);
    eventually("the operator is told", || async {
        site.log().contains("certificate")
    })
    .await;
    assert!(!tap.has_heard("P@ssw0rd.1-svc-ldap") && !tap.has_heard(SECRET));
}
