use super::*;
use crate::ldap::person::tests::settings;
use crate::ldap::shape::tests::conversation;
use crate::ldap::{Client, Trouble};
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{Scope, SearchEntry};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// A key of its own, and a client that trusts it.
fn certified(name: &str) -> (Arc<rustls::ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Whether a logon works at a server that shows a certificate with this name, dialled by this host.
async fn logs_on(certified_as: &str, dialled_as: &str) -> io::Result<bool> {
    let (theirs, ours) = certified(certified_as);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = LdapServer {
        host: dialled_as.to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: true,
    };
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(stream) = tokio_rustls::TlsAcceptor::from(theirs).accept(stream).await {
            speak(stream, well_said()).await;
        }
    });
    let (mut ldap, _fault) = dial(&server, false, Some(&ours), &Handle::current()).await?;
    let bound = ldap.simple_bind("svc", "secret").await;
    Ok(bound.is_ok_and(|result| result.rc == 0))
}

#[tokio::test]
async fn a_server_proves_the_name_or_the_address_it_is_dialled_by() {
    assert!(logs_on("localhost", "localhost").await.unwrap());
    assert!(logs_on("127.0.0.1", "127.0.0.1").await.unwrap());
    assert!(logs_on("localhost", "127.0.0.1").await.is_err());
    assert!(logs_on("elsewhere.test", "localhost").await.is_err());
}

/// What the server says to the logon and to the search after it, before it hangs up.
async fn speak(mut server: impl AsyncRead + AsyncWrite + Unpin, answers: Vec<Vec<u8>>) {
    let mut bytes = BytesMut::new();
    for answer in answers {
        if next(&mut server, &mut bytes, untrue).await.is_err()
            || server.write_all(&answer).await.is_err()
        {
            return;
        }
    }
}

fn well_said() -> Vec<Vec<u8>> {
    let [logon, entry, reference, done] = conversation();
    vec![logon, [entry, reference, done].concat()]
}

/// Entries found in a conversation with a server that says this; `Err`: it broke off.
async fn converse(answers: Vec<Vec<u8>>) -> Result<usize, ldap3::LdapError> {
    let (ours, server) = tokio::io::duplex(4096);
    tokio::spawn(speak(server, answers));
    let (mut ldap, _fault) = attach(ours, &Handle::current()).await.unwrap();
    ldap.simple_bind("svc", "secret").await?;
    let adapters: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> = vec![
        Box::new(EntriesOnly::new()),
        Box::new(PagedResults::new(500)),
    ];
    let mut stream = ldap
        .streaming_search_with(adapters, "DC=contoso", Scope::Subtree, "(cn=*)", vec![])
        .await?;
    let mut entries = 0;
    while let Some(entry) = stream.next().await? {
        let _read = SearchEntry::construct(entry);
        entries += 1;
    }
    let _result = stream.finish().await;
    Ok(entries)
}

#[tokio::test]
async fn a_conversation_with_an_honest_server_is_heard_whole() {
    assert_eq!(converse(well_said()).await.unwrap(), 1);
}

/// The library stops the whole program over some of these bytes, in a task of its own or in ours.
#[test]
fn no_answer_with_false_bytes_stops_the_program() {
    static STOPS: AtomicUsize = AtomicUsize::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |stop| {
        let file = stop.location().map_or("", std::panic::Location::file);
        if file.contains("ldap3") || file.contains("lber") {
            STOPS.fetch_add(1, Ordering::Relaxed);
        }
        usual(stop);
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let cut = any::<Option<prop::sample::Index>>();
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(
            &(changes, cut, any::<bool>()),
            |(changes, cut, in_logon)| {
                let mut answers = well_said();
                answers.truncate(if in_logon { 1 } else { 2 });
                let answer = answers.last_mut().unwrap();
                for (place, byte) in changes {
                    let place = place.index(answer.len());
                    answer[place] = byte;
                }
                if let Some(cut) = cut {
                    answer.truncate(cut.index(answer.len()));
                }
                runtime.block_on(async {
                    let end = timeout(Duration::from_secs(5), converse(answers)).await;
                    prop_assert!(end.is_ok(), "it hangs");
                    Ok(())
                })
            },
        )
        .unwrap();

    assert_eq!(STOPS.load(Ordering::Relaxed), 0);
}

/// A directory service that says this to a logon, and then nothing.
async fn lying(says: Vec<u8>) -> Arc<Client> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings();
    settings.servers[0].port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((server, _)) = listener.accept().await {
            tokio::spawn(speak(server, vec![says.clone()]));
        }
    });
    Arc::new(Client::new(&Arc::new(settings), None))
}

#[tokio::test]
async fn the_operator_reads_what_a_lying_server_said_wrong() {
    let nested = (0..60_000).fold(Vec::new(), |mut bytes: Vec<u8>, _| {
        bytes.extend(b"\x30\x84\x00\x03\xff\xff");
        bytes
    });
    for (says, words) in [
        (b"\x30\x00".to_vec(), "an element of its message is cut off"),
        (
            b"HTTP/1.1 400 Bad\r\n\r\n".to_vec(),
            "it does not begin like an LDAP message",
        ),
        (
            b"\x30\x84\x7f\xff\xff\xff".to_vec(),
            "its message is too long",
        ),
        (nested, "an element of its message is cut off"),
        (
            conversation()[3].clone(),
            "it answers something else than was asked",
        ),
    ] {
        let says = match words {
            // A search's end in answer to the logon, which is message 1.
            "it answers something else than was asked" => {
                let mut done = says;
                done[4] = 1;
                done
            }
            _ => says,
        };
        let client = lying(says).await;

        let verdict = client.root(&["changed".to_owned()]).await;

        assert_eq!(verdict.unwrap_err(), Trouble::Unreachable, "{words}");
        let (_, why) = client.states().swap_remove(0);
        assert_eq!(why, Some(format!("what it says is not believed: {words}")));
    }
}
