//! What all generators say and how: one way of TLS for every proxy, and requests like Outlook's.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mapigate::gss::Client;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, NamedGroup, SignatureScheme};
use std::sync::Arc;

/// The name in the certificate, in the Host header and in SNI.
pub(crate) const HOST: &str = "mail.contoso.test";
/// Bytes of an Execute's body.
pub(crate) const BODY_BYTES: usize = 2048;
/// `PROCESSING`, the first line of every held answer.
pub(crate) const PROCESSING: &[u8] = b"PROCESSING\r\n";
/// `PENDING`, what a held poll says from time to time.
pub(crate) const PENDING: &[u8] = b"PENDING\r\n";

/// TLS 1.3 with one cipher suite and one group, so that every proxy does the same work: rustls by itself
/// would offer the hybrid X25519MLKEM768 first, which OpenSSL 3.0 does not know and others would answer.
pub(crate) fn tls(tickets: Option<Arc<Tickets>>) -> Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption =
        tickets.map_or_else(Resumption::disabled, |tickets| Resumption::store(tickets));
    Ok(Arc::new(config))
}

/// The name we ask for in TLS.
pub(crate) fn server_name() -> Result<ServerName<'static>> {
    ServerName::try_from(HOST).context("server name")
}

/// The ticket of one client: the newest, used again and again until a newer one comes.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    newest: Mutex<Option<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        *self.newest.lock() = Some(ticket);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.newest.lock().take()
    }
}

/// Believes every certificate: the generator shares a core with the mailbox servers and must stay cheap.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// One of the site's users, by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User(pub(crate) usize);

impl User {
    /// What the user signs on with.
    pub(crate) fn login(self) -> String {
        format!("user{}@contoso.test", self.0)
    }

    /// The password.
    pub(crate) fn password(self) -> String {
        format!("correct horse {}", self.0)
    }

    /// The GUID half of the mailbox's id.
    pub(crate) fn mailbox(self) -> String {
        format!("6d3c2f1e-7a5b-4c9d-8e0f-{:012x}", self.0)
    }

    /// Name and password, as each request shows them.
    pub(crate) fn basic(self) -> String {
        let clear = format!("{}:{}", self.login(), self.password());
        format!("Authorization: Basic {}\r\n", STANDARD.encode(clear))
    }

    /// A ticket, as the first request of a connection shows it. The users are those of the lab of `tests/ad/up.sh`,
    /// several connections for each.
    pub(crate) fn negotiate(self) -> Result<String> {
        let names = ["alice", "bob", "carol"];
        let name = names.get(self.0 % names.len()).copied().unwrap_or_default();
        let principal = format!("{name}@CONTOSO.TEST");
        let mut client = Client::with_password(&principal, "P@ssw0rd.1", HOST)?;
        let word = client.say(None, None)?.context("no ticket")?;
        Ok(format!(
            "Authorization: Negotiate {}\r\n",
            STANDARD.encode(&*word)
        ))
    }
}

/// Head and body of a request in one piece. `number` is a word for the mailbox server (see `upstream`),
/// carried in the first four bytes of the body, which to proxies is opaque. `authorization`: a whole header line, or
/// nothing.
pub(crate) fn request(
    user: User,
    authorization: &str,
    kind: &str,
    cookies: &[String],
    number: u32,
    body: usize,
) -> Vec<u8> {
    let body = body.max(4);
    let cookie = match cookies {
        [] => String::new(),
        cookies => format!("Cookie: {}\r\n", cookies.join("; ")),
    };
    let mut bytes = format!(
        "POST /mapi/emsmdb/?MailboxId={mailbox}@contoso.test HTTP/1.1\r\n\
         Host: {HOST}\r\n\
         {authorization}\
         User-Agent: Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro)\r\n\
         Content-Type: application/mapi-http\r\n\
         X-RequestType: {kind}\r\n\
         X-RequestId: {{E2EA6C1C-E61B-49E9-9CFB-38184F907552}}:57\r\n\
         X-ClientInfo: {{2EF33C39-49C8-421C-B876-CDF7F2AC3AA0}}:{user}\r\n\
         X-ClientApplication: Outlook/16.0.17126.20132\r\n\
         {cookie}Content-Length: {body}\r\n\r\n",
        mailbox = user.mailbox(),
        user = user.0,
    )
    .into_bytes();
    let head = bytes.len();
    bytes.extend_from_slice(&number.to_le_bytes());
    // Bytes that do not repeat, as compressed and obfuscated ROPs look.
    bytes.extend((4..body).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8));
    bytes.truncate(head + body);
    bytes
}

/// The cookies to send after an answer that set `fresh`: those replace older ones of the same name.
pub(crate) fn remember(kept: &mut Vec<String>, fresh: &[String]) {
    for cookie in fresh {
        let name = cookie.split('=').next().unwrap_or_default();
        kept.retain(|old| old.split('=').next() != Some(name));
        kept.push(cookie.clone());
    }
}
