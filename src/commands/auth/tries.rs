//! One credential through the rooms that a request goes through. A further scheme is a variant of
//! [`Shown`], and an arm wherever that is matched.

use super::report::Report;
use crate::auth::{
    Asker, AuthStep, Certified, Denied, Identity, Memo, Presented, Scheme, canonical,
};
use crate::certs;
use crate::config::settings::{BasicVerify, KeyPlace, PublicName};
use crate::directory::Whose;
use crate::gss::{self, Client};
use crate::ldap::{Findings, Trouble};
use crate::mapi::Endpoint;
use crate::runtime::Snapshot;
use crate::upkeep::fetch_keys;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use zeroize::Zeroizing;

/// What somebody shows.
pub(super) enum Shown {
    Password {
        user: String,
        password: Zeroizing<String>,
    },
    /// A ticket that is got with the password.
    Kerberos {
        user: String,
        password: Zeroizing<String>,
    },
    /// A ticket that is got with those in a credential cache.
    Tickets(String),
    Ntlm {
        user: String,
        password: Zeroizing<String>,
    },
    Token(Zeroizing<String>),
    Certificate {
        file: PathBuf,
        pem: Vec<u8>,
    },
}

impl Shown {
    fn scheme(&self) -> Scheme {
        match self {
            Self::Password { .. } => Scheme::Basic,
            Self::Kerberos { .. } | Self::Tickets(_) => Scheme::Negotiate,
            Self::Ntlm { .. } => Scheme::Ntlm,
            Self::Token(_) => Scheme::Bearer,
            Self::Certificate { .. } => Scheme::Certificate,
        }
    }

    /// As a request would carry it, without what is secret.
    fn in_words(&self) -> String {
        match self {
            Self::Password { user, .. } => {
                format!("Authorization: Basic … ({user}, and the password)")
            }
            Self::Kerberos { user, .. } => {
                format!("Authorization: Negotiate … (a ticket of {user}, got with the password)")
            }
            Self::Tickets(cache) => {
                format!("Authorization: Negotiate … (a ticket got with those in {cache})")
            }
            Self::Ntlm { user, .. } => {
                format!("Authorization: NTLM … ({user}, and a proof of the password)")
            }
            Self::Token(token) => format!("Authorization: Bearer … ({} letters)", token.len()),
            Self::Certificate { file, .. } => {
                format!("the certificate {} in a TLS handshake", file.display())
            }
        }
    }
}

/// Why something opens no mailbox.
pub(super) enum Failure {
    /// We do not take it.
    Denied(Denied),
    /// The client's own side has nothing to show; what its library says.
    Client(String),
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// Where something is shown.
pub(super) struct Trial<'a> {
    pub(super) world: &'a Snapshot,
    pub(super) name: &'a PublicName,
    pub(super) endpoint: Endpoint,
}

impl Trial<'_> {
    /// Tries one credential.
    pub(super) async fn run(&self, shown: &Shown) -> Report {
        let scheme = shown.scheme();
        let mut report = Report::of(scheme.as_str());
        report.step("shown", shown.in_words());
        let offered = self.name.offered(Some(self.endpoint));
        let words: Vec<_> = offered.iter().map(|scheme| scheme.as_str()).collect();
        let place = format!("{}/mapi/{}", self.name.host, self.endpoint.as_str());
        report.step("offered", format!("{place} accepts {}", words.join(", ")));
        if !offered.contains(&scheme) {
            return report.fail(format!(
                "add `{}` to `authentication` of this name, or of this path",
                scheme.as_str()
            ));
        }
        let began = now();
        let outcome = match shown {
            Shown::Kerberos { .. } | Shown::Tickets(_) | Shown::Ntlm { .. } => {
                match self.client(shown) {
                    Ok(client) => self.shake(scheme, client, offered, &mut report).await,
                    Err(why) => Err(Failure::Client(why)),
                }
            }
            Shown::Password { user, password } => {
                let clear = Zeroizing::new([user, ":", password.as_str()].concat());
                let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(clear.as_bytes())));
                let outcome = self.step(value.as_bytes(), offered, began).await;
                outcome.map_err(Failure::Denied)
            }
            Shown::Token(token) => {
                self.keys(&mut report).await;
                let value = Zeroizing::new(format!("Bearer {}", token.as_str()));
                let outcome = self.step(value.as_bytes(), offered, began).await;
                outcome.map_err(Failure::Denied)
            }
            Shown::Certificate { pem, .. } => {
                let outcome = self.certificate(pem, began).await;
                outcome.map_err(Failure::Denied)
            }
        };
        match outcome {
            Ok(identity) => {
                let took = now().0.saturating_duration_since(began.0).as_millis();
                report.step("verdict", format!("accepted after {took} ms"));
                let whose = self.whose(&identity).await;
                self.follow(&identity, whose, report)
            }
            Err(Failure::Client(why)) => {
                report.step("client", format!("has nothing to show: {why}"));
                report.fail(match shown {
                    Shown::Ntlm { .. } => {
                        "apt install gss-ntlmssp: the client's side of NTLM is its plug-in".to_owned()
                    }
                    _ => format!(
                        "the domain gives no ticket, and mapigate was not asked: compare with `kinit` and `kvno HTTP/{}`",
                        self.name.host
                    ),
                })
            }
            Err(Failure::Denied(denied)) => {
                report.step("verdict", format!("refused: {denied}"));
                let next = self.advice(shown, denied);
                report.fail(next)
            }
        }
    }

    /// The client's side of a handshake.
    fn client(&self, shown: &Shown) -> Result<Client, String> {
        let host = &self.name.host;
        let client = match shown {
            Shown::Kerberos { user, password } => {
                Client::with_password(&self.principal(user), password, host)
            }
            Shown::Tickets(cache) => Client::with_tickets(cache, host),
            Shown::Ntlm { user, password } => Client::ntlm(user, password, host),
            _ => return Err("no handshake".to_owned()),
        };
        client.map_err(|error| gss::words(&error))
    }

    /// The Kerberos name of a user, whose mail domain may be another than the realm.
    fn principal(&self, user: &str) -> String {
        let user = user.rsplit_once('\\').map_or(user, |(_, user)| user);
        let Some((name, domain)) = user.rsplit_once('@') else {
            return user.to_owned();
        };
        let negotiate = self.world.settings.auth.negotiate.as_ref();
        let mut realms = negotiate
            .into_iter()
            .flat_map(|negotiate| &negotiate.realm_map);
        // A Windows domain has no dot, and a realm of the internet's names has one.
        let realm = realms
            .find(|(realm, of)| realm.contains('.') && of.eq_ignore_ascii_case(domain))
            .map_or_else(|| domain.to_ascii_uppercase(), |(realm, _)| realm.clone());
        format!("{name}@{realm}")
    }

    /// As a request's header.
    async fn step(
        &self,
        value: &[u8],
        offered: &[Scheme],
        now: (Instant, SystemTime),
    ) -> Result<Arc<Identity>, Denied> {
        let asker = Asker {
            authorization: Some(value),
            offered,
            source: std::net::Ipv4Addr::LOCALHOST.into(),
            now,
        };
        match self.world.auth.step(&asker, &mut Memo::default()) {
            AuthStep::Granted(identity) => Ok(identity),
            AuthStep::Verify(verification) => verification.run().await,
            AuthStep::Deny(_, denied) => Err(denied),
            AuthStep::Challenge(reason) => Err(Denied::Credentials(reason)),
            AuthStep::Shake(_) => Err(Denied::Credentials("taken for a handshake")),
        }
    }

    /// Fetches keys as the process does at its start.
    async fn keys(&self, report: &mut Report) {
        for ring in self.world.auth.key_rings() {
            let issuer = ring.source().issuer.clone();
            if matches!(ring.source().place, KeyPlace::File { .. }) {
                report.step("keys", format!("{} of {issuer}, from a file", ring.count()));
                continue;
            }
            match fetch_keys(ring).await {
                Ok(put) => report.step("keys", format!("{} of {issuer}, fetched", put.keys)),
                Err(why) => report.step("keys", format!("none of {issuer}: {why}")),
            }
        }
    }

    /// As in a handshake: by each listener that asks for certificates, until one takes it.
    async fn certificate(
        &self,
        pem: &[u8],
        now: (Instant, SystemTime),
    ) -> Result<Arc<Identity>, Denied> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|_not_pem| Denied::Credentials("the file is not PEM"))?;
        let listeners = self.world.settings.listeners.iter();
        let mut outcome = Err(Denied::Credentials("no listener asks for certificates"));
        for clients in listeners.filter_map(|listener| listener.client_certificates.as_ref()) {
            let Ok(trust) = certs::trust(clients) else {
                continue;
            };
            let trusts = Arc::new(ArcSwap::from_pointee(Some(Arc::new(trust))));
            let shown = Presented::new(&chain, &trusts, None);
            if shown.is_nothing() {
                return Err(Denied::Credentials("the file holds no certificate"));
            }
            outcome = self.holder(&shown, now).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn holder(
        &self,
        shown: &Presented,
        now: (Instant, SystemTime),
    ) -> Result<Arc<Identity>, Denied> {
        let (auth, directory) = (&self.world.auth, &self.world.directory);
        let mut findings = Findings::default();
        loop {
            let register = directory.register(&findings, now.0);
            match auth.by_certificate(shown, &mut Memo::default(), &register, 0, now.1)? {
                Certified::Known(identity, _) => return Ok(identity),
                Certified::Ask(lookups) => {
                    let done = lookups.run(&mut findings).await;
                    done.map_err(|trouble| Denied::Unavailable(trouble.words()))?;
                }
            }
        }
    }

    /// The user's own mailbox, asked for as a request without a MailboxId does.
    async fn whose(&self, identity: &Identity) -> Result<Whose, Trouble> {
        let (directory, user) = (&self.world.directory, &identity.user);
        let mut findings = Findings::default();
        match directory.whose(None, Some(user), &findings, now().0) {
            Whose::Ask(lookups) => {
                lookups.run(&mut findings).await?;
                Ok(directory.whose(None, Some(user), &findings, now().0))
            }
            whose => Ok(whose),
        }
    }

    /// Where somebody who is known goes.
    fn follow(
        &self,
        identity: &Identity,
        whose: Result<Whose, Trouble>,
        mut report: Report,
    ) -> Report {
        report.step("user", identity.user.as_str());
        let (mailbox, database) = match whose {
            Ok(Whose::Mailbox(mailbox, database)) => (mailbox, database),
            Ok(Whose::Disabled) => {
                report.step("mailbox", "the directory says the account is disabled");
                return report.fail("enable the account");
            }
            Err(trouble) => {
                report.step("mailbox", trouble.words());
                return report.fail("see what `mapigate check --directory` says");
            }
            Ok(_) => {
                report.step("mailbox", "none is this user's own in the directory");
                return report.fail(match self.world.book {
                    None => "add the name to a mailbox's `addresses` or `logins`; mailboxes asked for by their MailboxId may be open all the same",
                    Some(_) => "compare the user's entry with `directory.ldap.attributes` and `recipient_types`",
                });
            }
        };
        report.step("mailbox", mailbox.to_string());
        report.step("database", database.to_string());
        match self.world.placement.active(&database) {
            Some(server) => report.step("server", format!("{server}, which holds the active copy")),
            None => {
                let why = self.world.placement.homes().why_homeless(&database);
                report.step("server", why);
                return report.fail("see what `mapigate check` says of `databases`");
            }
        }
        let handed = self.world.settings.backend_identity.in_words();
        report.step("hand-off", handed);
        let next = match self.asks_servers() && identity.scheme == Scheme::Basic {
            true => "nothing to do; the server was asked for the password alone",
            false => "nothing to do; the server has not been asked",
        };
        report.step("next", next);
        report
    }

    fn asks_servers(&self) -> bool {
        let basic = self.world.settings.auth.basic.as_ref();
        basic.is_some_and(|basic| basic.verify == BasicVerify::Backend)
    }

    /// What an administrator may know and a client may not.
    fn advice(&self, shown: &Shown, denied: Denied) -> String {
        match (shown, denied) {
            (_, Denied::Busy(_)) => "try again; if it stays so, look at what verifies this".to_owned(),
            (_, Denied::Unjudged(_)) => "look at the server of this mailbox: a POST to /mapi/emsmdb/ without a password must be answered 401 with Basic".to_owned(),
            (_, Denied::Unavailable(_)) => "look at `directory.ldap`; `mapigate check --directory` says why each server cannot be used".to_owned(),
            (_, Denied::Guarded(_)) => "wait for auth.lockout_guard to forget".to_owned(),
            (Shown::Password { user, .. }, _) => {
                let basic = self.world.settings.auth.basic.as_ref();
                let domain = basic.and_then(|basic| basic.default_domain.as_deref());
                let file = basic.and_then(|basic| match &basic.verify {
                    BasicVerify::File(file) => Some(file.display().to_string()),
                    BasicVerify::LdapBind { .. } | BasicVerify::Backend => None,
                });
                match (canonical(user, domain), file) {
                    (Some(name), Some(file)) if self.world.auth.lists(&name) => {
                        format!("{name} is in {file}, the password is another: htpasswd -B {file} '{user}'")
                    }
                    (Some(name), Some(file)) => {
                        format!("{name} is not in {file}: add it with htpasswd -B, or see auth.basic.default_domain")
                    }
                    (Some(name), None) if self.asks_servers() => {
                        format!("the server of its mailbox does not know {name} by this password")
                    }
                    (Some(name), None) => {
                        format!("compare {name} and its password with the directory service")
                    }
                    _ => "write `user`, `user@domain` or `DOMAIN\\user`".to_owned(),
                }
            }
            (Shown::Ntlm { user, .. }, _) => format!(
                "compare with `wbinfo -a '{user}'`, which asks the same domain the same way"
            ),
            (Shown::Kerberos { .. } | Shown::Tickets(_), _) => {
                "look for the verdict in the README's table, under Kerberos and NTLM".to_owned()
            }
            (Shown::Token(_), Denied::Token(diagnosis)) => format!(
                "{} Compare the token with `auth.bearer.issuers`",
                diagnosis.words
            ),
            (Shown::Token(_), _) => "look at `auth.bearer.issuers`".to_owned(),
            (Shown::Certificate { .. }, _) => "compare `openssl x509 -text` of it with `client_certificates` of the listener, `auth.certificate`, and the directory's names".to_owned(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the roof asks the clock for the rooms below"
)]
pub(super) fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}
