//! A client whose every token is in the test's hand.

use crate::lab::{DOMAIN, PASSWORD, REALM};
use crate::site::AdSite;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_SPNEGO, GSS_NT_HOSTBASED_SERVICE, GSS_NT_USER_NAME, OidSet};
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::lab::site::HOST;

/// A Kerberos client on its way to a service.
pub(crate) struct Client(ClientCtx);

impl Client {
    /// This user, on the way to mail.
    pub(crate) fn new(user: &str) -> Self {
        Self::to(user, PASSWORD, HOST)
    }

    /// This user, on the way to the service of this host.
    pub(crate) fn to(user: &str, password: &str, host: &str) -> Self {
        let name = Name::new(format!("{user}@{REALM}").as_bytes(), Some(GSS_NT_USER_NAME));
        let mechanisms = OidSet::singleton(GSS_MECH_SPNEGO).unwrap();
        let credential = Cred::acquire_with_password(
            Some(&name.unwrap()),
            password,
            None,
            CredUsage::Initiate,
            Some(&mechanisms),
        );
        let service = format!("HTTP@{host}");
        let target = Name::new(service.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE)).unwrap();
        let flags = CtxFlags::GSS_C_MUTUAL_FLAG;
        Self(ClientCtx::new(
            Some(credential.unwrap()),
            target,
            flags,
            Some(GSS_MECH_SPNEGO),
        ))
    }

    /// Its first word, bound to a certificate or not.
    pub(crate) fn word(&mut self, binding: Option<&[u8]>) -> Vec<u8> {
        self.0.step(None, binding).unwrap().unwrap().to_vec()
    }

    /// Hears the server's last word; true where it proves the server.
    pub(crate) fn believes(&mut self, word: &[u8], binding: Option<&[u8]>) -> bool {
        self.0.step(Some(word), binding).is_ok() && self.0.is_complete()
    }
}

/// A PING with this `Authorization`, or without one.
pub(crate) fn ping(authorization: Option<&str>) -> Vec<u8> {
    let authorization = match authorization {
        Some(value) => format!("Authorization: {value}\r\n"),
        None => String::new(),
    };
    format!(
        "POST /mapi/emsmdb/?MailboxId=00000000-0000-4000-8000-000000000001@{DOMAIN} HTTP/1.1\r\n\
         Host: {HOST}\r\n{authorization}Content-Type: application/mapi-http\r\nX-RequestType: PING\r\n\
         X-RequestId: {{00000000-0000-4000-8000-000000000000}}:1\r\nX-ClientInfo: {{1}}:1\r\n\
         X-ClientApplication: Outlook/16.0.0.0\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The value of an `Authorization` with this token.
pub(crate) fn negotiate(token: &[u8]) -> String {
    format!("Negotiate {}", STANDARD.encode(token))
}

/// The same for NTLM.
pub(crate) fn ntlm(token: &[u8]) -> String {
    format!("NTLM {}", STANDARD.encode(token))
}

/// The token that an answer has for this scheme.
pub(crate) fn token(answer: &Answer, scheme: &str) -> Option<Vec<u8>> {
    let mut lines = answer.head.all("WWW-Authenticate");
    let token = lines.find_map(|line| line.strip_prefix(scheme)?.strip_prefix(' '))?;
    Some(STANDARD.decode(token).unwrap())
}

impl AdSite {
    /// A connection to write by hand.
    pub(crate) async fn line(&self) -> Line {
        Line::connect(&self.target().unwrap()).await.unwrap()
    }

    /// The answer to one PING on a connection of its own.
    pub(crate) async fn shown(&self, authorization: &str) -> Answer {
        let mut line = self.line().await;
        line.ask(&ping(Some(authorization))).await.unwrap()
    }

    /// What proofs of clients of this site are bound to.
    pub(crate) fn binding(&self) -> Vec<u8> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let der = CertificateDer::from_pem_file(self.folder().join("mail.pem")).unwrap();
        end_point(&der)
    }
}

/// RFC 5929 4, for certificates signed with SHA-256.
pub(crate) fn end_point(der: &[u8]) -> Vec<u8> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    [b"tls-server-end-point:", hash.as_ref()].concat()
}
