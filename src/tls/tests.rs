use super::record::{Content, Keys, OVERHEAD, PLAIN_MAX};
use super::{TlsStream, accept, accept_by_name};
use crate::accounting::{Counting, Wire};
use proptest::prelude::*;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::kernel::KernelConnection;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedCipherSuite,
};
use std::io::Write;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

const SUITES: [SupportedCipherSuite; 6] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];
const TLS13: [SupportedCipherSuite; 3] = [SUITES[0], SUITES[1], SUITES[2]];
const TLS12: [SupportedCipherSuite; 3] = [SUITES[3], SUITES[4], SUITES[5]];

fn configs(suite: SupportedCipherSuite) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["mail.test".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain,
            PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into(),
        )
        .unwrap();
    server.enable_secret_extraction = true;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("mail.test").unwrap()
}

type Ours = Box<TlsStream<DuplexStream>>;
type Theirs = tokio_rustls::client::TlsStream<DuplexStream>;

/// A client of rustls' own, over a pipe of so many bytes.
async fn connected(suite: SupportedCipherSuite, pipe: usize) -> (Ours, Theirs) {
    let (server, client) = configs(suite);
    let (near, far) = duplex(pipe);
    let connector = TlsConnector::from(client);
    let (accepted, connected) = tokio::join!(accept(near, server), connector.connect(name(), far));
    (accepted.unwrap().stream, connected.unwrap())
}

/// A client that seals whatever it likes.
struct Raw {
    io: DuplexStream,
    kernel: KernelConnection<ClientConnectionData>,
    version: ProtocolVersion,
    receive: Keys,
    transmit: Keys,
}

impl Raw {
    async fn connected(suite: SupportedCipherSuite) -> (Ours, Self) {
        let (server, client) = configs(suite);
        let (near, far) = duplex(1 << 20);
        let (accepted, raw) = tokio::join!(accept(near, server), Self::connect(far, client));
        (accepted.unwrap().stream, raw)
    }

    async fn connect(mut io: DuplexStream, config: Arc<ClientConfig>) -> Self {
        let mut tls = UnbufferedClientConnection::new(config, name()).unwrap();
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        loop {
            let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut incoming);
            let mut wants_bytes = false;
            let mut is_done = false;
            match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let Err(EncodeError::InsufficientSize(needs)) = data.encode(&mut []) else {
                        unreachable!("nothing fits no room")
                    };
                    let begin = outgoing.len();
                    outgoing.resize(begin + needs.required_size, 0);
                    data.encode(&mut outgoing[begin..]).unwrap();
                }
                ConnectionState::TransmitTlsData(data) => {
                    io.write_all(&outgoing).await.unwrap();
                    outgoing.clear();
                    data.done();
                }
                ConnectionState::BlockedHandshake => wants_bytes = true,
                ConnectionState::WriteTraffic(_) => is_done = true,
                other => unreachable!("{other:?}"),
            }
            incoming.drain(..discard);
            if is_done {
                break;
            }
            if wants_bytes {
                assert!(io.read_buf(&mut incoming).await.unwrap() > 0);
            }
        }
        io.write_all(&outgoing).await.unwrap();
        assert!(incoming.is_empty(), "nothing was sealed for us yet");
        let (secrets, kernel) = tls.dangerous_into_kernel_connection().unwrap();
        let version = kernel.protocol_version();
        Self {
            io,
            version,
            receive: Keys::new(version, secrets.rx).unwrap(),
            transmit: Keys::new(version, secrets.tx).unwrap(),
            kernel,
        }
    }

    fn seal(&mut self, number: u8, plain: &[u8]) -> Vec<u8> {
        let mut record = vec![0; plain.len() + OVERHEAD];
        let length = self
            .transmit
            .seal_number(number, plain, &mut record)
            .unwrap();
        record.truncate(length);
        record
    }

    async fn send(&mut self, number: u8, plain: &[u8]) {
        let record = self.seal(number, plain);
        self.io.write_all(&record).await.unwrap();
    }

    async fn receive(&mut self) -> (Content, Vec<u8>) {
        let mut record = vec![0; 5];
        self.io.read_exact(&mut record).await.unwrap();
        let length = super::record::length(&record).unwrap().unwrap();
        record.resize(length, 0);
        self.io.read_exact(&mut record[5..]).await.unwrap();
        let (content, inside) = self.receive.open(&mut record).unwrap();
        (content, record[inside].to_vec())
    }

    /// What comes before the first record of another kind than tickets.
    async fn receive_beyond_tickets(&mut self) -> (Content, Vec<u8>) {
        loop {
            let (content, plain) = self.receive().await;
            if content != Content::Handshake || plain[0] != NEW_TICKET {
                return (content, plain);
            }
        }
    }
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const NEW_TICKET: u8 = 4;

async fn read_some(ours: &mut Ours) -> std::io::Result<Vec<u8>> {
    let mut room = vec![0; 64 * 1024];
    let length = ours.read(&mut room).await?;
    room.truncate(length);
    Ok(room)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().step_by(7).take(length).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_under_every_cipher_suite() {
    for suite in SUITES {
        let (mut ours, mut theirs) = connected(suite, 3000).await;
        let sent = pattern(300_000);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let echo = async {
            let mut piece = [0; 10_000];
            while there.len() < sent.len() {
                let length = ours.read(&mut piece).await.unwrap();
                assert!(length > 0, "{suite:?}");
                there.extend_from_slice(&piece[..length]);
                ours.write_all(&piece[..length]).await.unwrap();
            }
            ours.flush().await.unwrap();
        };
        let (mut from, mut to) = tokio::io::split(&mut theirs);
        tokio::join!(
            echo,
            async {
                to.write_all(&sent).await.unwrap();
                to.flush().await.unwrap();
            },
            async {
                back.resize(sent.len(), 0);
                from.read_exact(&mut back).await.unwrap();
            }
        );
        assert!(there == sent && back == sent, "{suite:?}");
    }
}

#[tokio::test]
async fn nothing_is_kept_while_nothing_is_here() {
    let (mut ours, mut theirs) = connected(SUITES[0], 1 << 20).await;
    theirs.write_all(b"request").await.unwrap();
    assert_eq!(read_some(&mut ours).await.unwrap(), b"request");
    ours.write_all(b"answer").await.unwrap();

    std::future::poll_fn(|cx| {
        let mut room = [0; 10];
        let mut into = tokio::io::ReadBuf::new(&mut room);
        let waits = std::pin::Pin::new(&mut ours);
        assert!(tokio::io::AsyncRead::poll_read(waits, cx, &mut into).is_pending());
        Poll::Ready(())
    })
    .await;

    assert_eq!(ours.memory(), 0);
}

#[tokio::test]
async fn half_a_record_costs_its_own_size() {
    let (mut ours, mut raw) = Raw::connected(SUITES[0]).await;
    let record = raw.seal(DATA, &pattern(1000));
    raw.io.write_all(&record[..300]).await.unwrap();
    let mut room = [0; 2000];
    {
        let mut reading = std::pin::pin!(ours.read(&mut room));
        std::future::poll_fn(|cx| {
            assert!(reading.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    assert_eq!(ours.memory(), 300);

    raw.io.write_all(&record[300..]).await.unwrap();
    assert_eq!(read_some(&mut ours).await.unwrap(), pattern(1000));
}

/// What a client has to send.
fn flight(client: &mut ClientConnection) -> Vec<u8> {
    let mut flight = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut flight).unwrap();
    }
    flight
}

#[tokio::test]
async fn a_request_in_one_piece_with_the_end_of_the_handshake_is_not_lost_and_not_billed_with_it() {
    for suite in SUITES {
        let (server, client) = configs(suite);
        let (near, mut far) = duplex(1 << 20);
        let mut client = ClientConnection::new(client, name()).unwrap();
        let accepting = tokio::spawn(accept(Counting::new(near, None), server));
        let mut shaking = 0;
        let request = loop {
            let mut sent = flight(&mut client);
            shaking += sent.len() as u64;
            if !client.is_handshaking() {
                client.writer().write_all(b"first ").unwrap();
                client.writer().write_all(b"second").unwrap();
                let request = flight(&mut client);
                sent.extend(&request);
                far.write_all(&sent).await.unwrap();
                break request.len() as u64;
            }
            far.write_all(&sent).await.unwrap();
            let mut piece = vec![0; 8000];
            let length = far.read(&mut piece).await.unwrap();
            client.read_tls(&mut &piece[..length]).unwrap();
            client.process_new_packets().unwrap();
        };
        let mut ours = accepting.await.unwrap().unwrap().stream;
        assert_eq!(ours.bill(0).received, shaking, "{suite:?}");

        let mut words = [0; 12];
        ours.read_exact(&mut words).await.unwrap();

        assert_eq!(&words, b"first second", "{suite:?}");
        assert_eq!(ours.bill(0).received, request, "{suite:?}");
    }
}

#[tokio::test]
async fn a_clients_key_update_is_followed_and_answered() {
    for suite in TLS13 {
        let (mut ours, mut theirs) = connected(suite, 1 << 20).await;
        for round in 0..3_u8 {
            theirs.get_mut().1.refresh_traffic_keys().unwrap();
            theirs.write_all(&[round; 100]).await.unwrap();
            let mut there = [0; 100];
            ours.read_exact(&mut there).await.unwrap();
            ours.write_all(&there).await.unwrap();
            let mut back = [0; 100];
            theirs.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [round; 100], "{suite:?}");
        }
    }
}

#[tokio::test]
async fn a_key_update_that_asks_for_one_gets_one() {
    let (mut ours, mut raw) = Raw::connected(SUITES[1]).await;
    for asks in [0_u8, 1] {
        raw.send(HANDSHAKE, &[24, 0, 0, 1, asks]).await;
        raw.transmit = Keys::new(raw.version, raw.kernel.update_tx_secret().unwrap()).unwrap();
        raw.send(DATA, b"x").await;
        assert_eq!(read_some(&mut ours).await.unwrap(), b"x");
    }
    let (content, message) = raw.receive_beyond_tickets().await;
    assert_eq!(
        (content, &message[..]),
        (Content::Handshake, &[24, 0, 0, 1, 0][..])
    );
    raw.receive = Keys::new(raw.version, raw.kernel.update_rx_secret().unwrap()).unwrap();

    ours.write_all(b"under new keys").await.unwrap();

    assert_eq!(
        raw.receive().await,
        (Content::Data, b"under new keys".to_vec())
    );
}

#[tokio::test]
async fn a_peer_that_asks_for_keys_and_never_reads_costs_one_answer() {
    let (server, client) = configs(SUITES[1]);
    let (near, far) = duplex(4000);
    let (accepted, raw) = tokio::join!(accept(near, server), Raw::connect(far, client));
    let (mut ours, mut raw) = (accepted.unwrap().stream, raw);
    // The way to the peer is full: what we seal stays with us.
    let mut written = 0;
    std::future::poll_fn(|cx| {
        let way = std::pin::Pin::new(&mut ours);
        written += match tokio::io::AsyncWrite::poll_write(way, cx, &[0; 6000]) {
            Poll::Ready(taken) => taken.unwrap(),
            Poll::Pending => 0,
        };
        Poll::Ready(())
    })
    .await;
    let before = ours.memory();
    for _ in 0..2000 {
        raw.send(HANDSHAKE, &[24, 0, 0, 1, 1]).await;
        raw.transmit = Keys::new(raw.version, raw.kernel.update_tx_secret().unwrap()).unwrap();
        raw.send(DATA, b"x").await;
        assert_eq!(read_some(&mut ours).await.unwrap(), b"x");
    }
    assert!(before > 0 && ours.memory() <= before, "{}", ours.memory());

    let answering = tokio::spawn(async move {
        ours.write_all(b"under new keys").await.unwrap();
        ours.flush().await.unwrap();
        ours
    });
    let mut left = written;
    while left > 0 {
        left -= raw.receive_beyond_tickets().await.1.len();
    }
    let update = raw.receive().await;
    assert_eq!(update, (Content::Handshake, vec![24, 0, 0, 1, 0]));
    raw.receive = Keys::new(raw.version, raw.kernel.update_rx_secret().unwrap()).unwrap();
    assert_eq!(
        raw.receive().await,
        (Content::Data, b"under new keys".to_vec())
    );
    drop(answering);
}

#[tokio::test]
async fn our_keys_are_replaced_before_their_limit() {
    for suite in [SUITES[0], SUITES[1]] {
        let (mut ours, mut theirs) = connected(suite, 1 << 20).await;
        // The next record has the number that the client expects; only the limit comes nearer.
        ours.limit_keys_to(ours.sealed() + 64 + 2);
        for round in 0..10_u8 {
            ours.write_all(&[round; 50]).await.unwrap();
            let mut back = [0; 50];
            theirs.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [round; 50]);
        }
        assert!(ours.sealed() < 10, "{suite:?}");
    }
}

#[tokio::test]
async fn a_connection_whose_keys_cannot_be_replaced_ends_at_their_limit() {
    let (mut ours, _theirs) = connected(TLS12[0], 1 << 20).await;
    ours.limit_keys_to(ours.sealed() + 64 + 1);
    ours.write_all(b"the last").await.unwrap();
    assert!(ours.write_all(b"one too many").await.is_err());
    assert!(ours.write_all(b"and none after it").await.is_err());
}

#[tokio::test]
async fn farewells_are_said_and_heard() {
    for suite in SUITES {
        let (mut ours, mut theirs) = connected(suite, 1 << 20).await;
        theirs.write_all(b"last words").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut all = Vec::new();
        ours.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last words");
        // The other direction is still open.
        ours.write_all(b"so long").await.unwrap();
        ours.shutdown().await.unwrap();
        all.clear();
        theirs.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"so long", "{suite:?}");
        assert!(ours.write_all(b"more").await.is_err());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_no_clean_end() {
    let (mut ours, theirs) = connected(SUITES[0], 1 << 20).await;
    drop(theirs);
    let error = read_some(&mut ours).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_damaged_record_ends_the_connection_and_says_so() {
    for suite in SUITES {
        for at in [0, 1, 5, 20, 100, 120] {
            let (mut ours, mut raw) = Raw::connected(suite).await;
            raw.send(DATA, b"sound").await;
            let mut record = raw.seal(DATA, &pattern(100));
            let at = at.min(record.len() - 1);
            record[at] ^= 0x10;
            raw.io.write_all(&record).await.unwrap();

            assert_eq!(read_some(&mut ours).await.unwrap(), b"sound");
            let error = read_some(&mut ours).await.unwrap_err();

            assert_eq!(
                error.kind(),
                std::io::ErrorKind::InvalidData,
                "{suite:?} {at}"
            );
            let (content, alert) = raw.receive_beyond_tickets().await;
            assert_eq!((content, alert[0]), (Content::Alert, 2));
            assert!(ours.write_all(b"x").await.is_err());
        }
    }
}

#[tokio::test]
async fn a_record_cannot_be_sent_twice_or_out_of_order() {
    for suite in SUITES {
        let (mut ours, mut raw) = Raw::connected(suite).await;
        let first = raw.seal(DATA, b"first");
        let second = raw.seal(DATA, b"second");
        raw.io.write_all(&first).await.unwrap();
        raw.io.write_all(&first).await.unwrap();
        assert_eq!(read_some(&mut ours).await.unwrap(), b"first");
        assert!(read_some(&mut ours).await.is_err(), "{suite:?}");

        let (mut ours, mut raw) = Raw::connected(suite).await;
        let _lost = raw.seal(DATA, b"first");
        raw.io.write_all(&second).await.unwrap();
        assert!(read_some(&mut ours).await.is_err(), "{suite:?}");
    }
}

#[tokio::test]
async fn messages_out_of_place_are_refused_with_the_alert_that_fits() {
    let empty: &[u8] = &[];
    let cases: [(&str, u8, &[u8], u8); 7] = [
        ("a second ClientHello", HANDSHAKE, &[1, 0, 0, 0], 10),
        (
            "two key updates in one record",
            HANDSHAKE,
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            50,
        ),
        (
            "a key update of unknown wish",
            HANDSHAKE,
            &[24, 0, 0, 1, 2],
            50,
        ),
        ("half a key update", HANDSHAKE, &[24, 0, 0], 50),
        ("an empty handshake message", HANDSHAKE, empty, 10),
        ("an alert of one byte", ALERT, &[1], 50),
        ("a change of ciphers", 20, &[1], 10),
    ];
    for (what, number, message, alert) in cases {
        let (mut ours, mut raw) = Raw::connected(SUITES[0]).await;
        raw.send(number, message).await;
        let error = read_some(&mut ours).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{what}");
        let told = raw.receive_beyond_tickets().await;
        assert_eq!(told, (Content::Alert, vec![2, alert]), "{what}");
    }
}

#[tokio::test]
async fn tls12_takes_no_handshake_message_any_more() {
    for message in [&[1, 0, 0, 0][..], &[24, 0, 0, 1, 0]] {
        let (mut ours, mut raw) = Raw::connected(TLS12[0]).await;
        raw.send(HANDSHAKE, message).await;
        assert!(read_some(&mut ours).await.is_err());
    }
}

#[tokio::test]
async fn a_peers_alert_ends_the_connection_without_an_answer() {
    let (mut ours, mut raw) = Raw::connected(SUITES[0]).await;
    raw.send(ALERT, &[1, 90]).await;
    raw.send(DATA, b"after a warning").await;
    assert_eq!(read_some(&mut ours).await.unwrap(), b"after a warning");
    raw.send(ALERT, &[2, 40]).await;
    let error = read_some(&mut ours).await.unwrap_err();
    assert!(error.to_string().contains("alert 40"), "{error}");
}

#[tokio::test]
async fn padding_and_empty_records_bring_nothing_and_end_somewhere() {
    let (mut ours, mut raw) = Raw::connected(SUITES[0]).await;
    // Type 0 at the end is padding: the type is the byte before.
    raw.send(0, b"padded\x17\0\0\0").await;
    assert_eq!(read_some(&mut ours).await.unwrap(), b"padded");
    for _ in 0..32 {
        raw.send(DATA, b"").await;
    }
    raw.send(DATA, b"still here").await;
    assert_eq!(read_some(&mut ours).await.unwrap(), b"still here");
    for _ in 0..33 {
        raw.send(DATA, b"").await;
    }
    assert!(read_some(&mut ours).await.is_err());

    let (mut ours, mut raw) = Raw::connected(SUITES[0]).await;
    raw.send(0, &[0; 100]).await;
    assert!(read_some(&mut ours).await.is_err(), "nothing but padding");
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_before_it_is_all_here() {
    let (mut ours, mut raw) = Raw::connected(SUITES[0]).await;
    raw.io.write_all(&[23, 3, 3, 0x41, 0x01]).await.unwrap();
    assert!(read_some(&mut ours).await.is_err());
    let told = raw.receive_beyond_tickets().await;
    assert_eq!(told, (Content::Alert, vec![2, 22]));
}

#[tokio::test]
async fn full_records_in_bulk_come_out_whole() {
    for suite in SUITES {
        let (mut ours, mut raw) = Raw::connected(suite).await;
        let sent = pattern(PLAIN_MAX * 20);
        for piece in sent.chunks(PLAIN_MAX) {
            raw.send(DATA, piece).await;
        }
        let mut there = vec![0; sent.len()];
        ours.read_exact(&mut there).await.unwrap();
        assert!(there == sent, "{suite:?}");
        // Nor does a slow reader lose anything of ours.
        let (mut ours, mut theirs) = connected(suite, 5000).await;
        let mut back = vec![0; sent.len()];
        tokio::join!(
            async {
                ours.write_all(&sent).await.unwrap();
                ours.flush().await.unwrap();
            },
            async { theirs.read_exact(&mut back).await.unwrap() }
        );
        assert!(back == sent, "{suite:?}");
    }
}

#[tokio::test]
async fn a_stranger_is_told_why_there_is_no_handshake() {
    let (server, _) = configs(SUITES[0]);
    let (near, mut far) = duplex(1 << 16);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(accept(near, server).await.is_err());
    let mut told = Vec::new();
    far.read_to_end(&mut told).await.unwrap();
    assert_eq!((told[0], told.len()), (ALERT, 7), "{told:?}");
}

#[test]
fn keys_tell_nothing_of_themselves() {
    let secrets = rustls::ConnectionTrafficSecrets::Aes128Gcm {
        key: [0xAB; 32].into(),
        iv: [0xCD; 12].into(),
    };
    // A key of 32 bytes is none for AES-128.
    assert!(Keys::new(ProtocolVersion::TLSv1_3, (0, secrets)).is_none());
    let secrets = rustls::ConnectionTrafficSecrets::Aes256Gcm {
        key: [0xAB; 32].into(),
        iv: [0xCD; 12].into(),
    };
    let keys = Keys::new(ProtocolVersion::TLSv1_3, (5, secrets)).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "Keys { shape: Tls13, sequence: 5, .. }"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_after_the_handshake_end_in_an_error_and_no_plaintext(
        bytes in proptest::collection::vec(any::<u8>(), 1..200),
        whole in any::<bool>(),
        which in 0..SUITES.len(),
    ) {
        let reactor = tokio::runtime::Builder::new_current_thread().build().unwrap();
        reactor.block_on(async {
            let (mut ours, mut raw) = Raw::connected(SUITES[which]).await;
            if whole {
                let length = u8::try_from(bytes.len()).unwrap();
                let head = [23, 3, 3, 0, length];
                raw.io.write_all(&head).await.unwrap();
            }
            raw.io.write_all(&bytes).await.unwrap();
            raw.io.shutdown().await.unwrap();
            assert!(read_some(&mut ours).await.is_err());
        });
    }

    #[test]
    fn pieces_of_any_size_arrive_as_they_were(
        sizes in proptest::collection::vec(1..40_000_usize, 1..8),
        pipe in 600..70_000_usize,
        room in 1..70_000_usize,
        which in 0..SUITES.len(),
    ) {
        let reactor = tokio::runtime::Builder::new_current_thread().build().unwrap();
        reactor.block_on(async {
            let (mut ours, mut theirs) = connected(SUITES[which], pipe).await;
            let total: usize = sizes.iter().sum();
            let sent = pattern(total);
            let (mut there, mut back) = (Vec::new(), vec![0; total]);
            tokio::join!(
                async {
                    let mut rest = &sent[..];
                    for size in sizes {
                        let (piece, later) = rest.split_at(size);
                        theirs.write_all(piece).await.unwrap();
                        rest = later;
                    }
                    theirs.flush().await.unwrap();
                    theirs.read_exact(&mut back).await.unwrap();
                },
                async {
                    let mut piece = vec![0; room];
                    while there.len() < total {
                        let length = ours.read(&mut piece).await.unwrap();
                        there.extend_from_slice(&piece[..length]);
                    }
                    ours.write_all(&there).await.unwrap();
                    ours.flush().await.unwrap();
                }
            );
            assert!(there == sent && back == sent);
        });
    }
}

#[tokio::test]
async fn a_message_behind_one_that_is_refused_harms_nobody() {
    let (server, _) = configs(SUITES[0]);
    // A ClientHello that is none, and another right behind it in the same record.
    let hello = [1, 0, 0, 2, 0, 0];
    let record = [&[22, 3, 1, 0, 12][..], &hello, &hello].concat();
    let (near, mut far) = duplex(1 << 16);
    far.write_all(&record).await.unwrap();

    assert!(accept(near, server).await.is_err());

    let mut alert = Vec::new();
    far.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
}

#[tokio::test]
async fn http2_is_agreed_on_by_name_however_the_first_words_come() {
    let (server, client) = configs(TLS13[0]);
    let mut server = ServerConfig::clone(&server);
    // A client that has shaken hands does not read, and the pipe would be full of them.
    server.send_tls13_tickets = 0;
    let mut http2 = server.clone();
    let server = Arc::new(server);
    http2.alpn_protocols = vec![crate::certs::HTTP2.to_vec()];
    let http2 = Arc::new(http2);
    for (pipe, offers, chosen) in [
        (20, true, true),
        (7, true, true),
        (100, true, true),
        (100_000, true, true),
        (7, false, true),
        (7, true, false),
    ] {
        let mut client = ClientConfig::clone(&client);
        if offers {
            client.alpn_protocols = vec![crate::certs::HTTP2.to_vec()];
        }
        let (near, far) = duplex(pipe);
        let choose = |name: &str| match name == "mail.test" && chosen {
            true => Arc::clone(&http2),
            false => Arc::clone(&server),
        };
        let connector = TlsConnector::from(Arc::new(client));
        let connecting = connector.connect(name(), far);
        let (accepted, connected) =
            tokio::join!(accept_by_name(near, Vec::new(), choose), connecting);
        let ((mut accepted, agreed), mut connected) = (accepted.unwrap(), connected.unwrap());

        let expected = (offers && chosen).then_some("mail.test");
        assert_eq!(agreed.as_deref(), expected, "{pipe} {offers} {chosen}");
        let (written, read) = tokio::join!(
            async {
                connected.write_all(b"hello").await.unwrap();
                connected.flush().await
            },
            async {
                let mut bytes = [0; 5];
                accepted.stream.read_exact(&mut bytes).await.map(|_| bytes)
            }
        );
        written.unwrap();
        assert_eq!(&read.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn first_words_that_are_none_are_refused_by_whoever_tells_the_client() {
    let (server, _) = configs(TLS13[0]);
    let (near, mut far) = duplex(1000);
    let accepting = tokio::spawn(accept_by_name(near, Vec::new(), move |_| {
        Arc::clone(&server)
    }));
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut alert = Vec::new();
    far.read_to_end(&mut alert).await.unwrap();

    assert!(accepting.await.unwrap().is_err());
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
}
