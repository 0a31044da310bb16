//! Who asks a simulated server, by whatever it is told.

use super::connection::read_basic;
use super::http::Head;
use super::{Authenticate, Server, Told};
use crate::gss::credential;
use crate::ids::UserName;
use crate::mapi::Flavour;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libgssapi::context::{SecurityContext as _, ServerCtx};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// What one connection remembers of its users.
#[derive(Debug, Default)]
pub(super) struct Who {
    /// The identity that stuck to the connection, where it does.
    stuck: Option<UserName>,
    /// What a handshake that has begun must repeat.
    nonce: Option<[u8; 8]>,
    failures: u32,
}

/// What came of a request's credentials.
pub(super) enum Judged {
    User(UserName),
    Nobody,
    /// A handshake goes on with this word.
    More(String),
}

impl Who {
    /// Who asks; judged per request, unless identities stick to connections here.
    pub(super) async fn user(
        &mut self,
        server: &Arc<Server>,
        head: &Head,
        shows_certificate: bool,
    ) -> Judged {
        let options = &server.options;
        if options.authenticate == Authenticate::FirstOfConnection
            && let Some(first) = &self.stuck
        {
            return Judged::User(first.clone());
        }
        let judged = self.judge(server, head, shows_certificate).await;
        let sticks = options.authenticate != Authenticate::Requests
            || matches!(options.told, Told::Handshakes);
        if let (true, Judged::User(user)) = (sticks, &judged) {
            self.stuck = Some(user.clone());
        }
        match (&options.service, judged) {
            (Some(service), Judged::User(user)) if service.user == user => {
                named(head, &service.header)
            }
            (_, judged) => judged,
        }
    }

    async fn judge(
        &mut self,
        server: &Arc<Server>,
        head: &Head,
        shows_certificate: bool,
    ) -> Judged {
        let now = UNIX_EPOCH + Duration::from_micros(crate::lab::unix_micros());
        match &server.options.told {
            Told::Header(name) => {
                return match shows_certificate {
                    true => named(head, name),
                    false => Judged::Nobody,
                };
            }
            Told::Assertions(verifier, header) if head.header(header).is_some() => {
                let value = head.text(header).unwrap_or_default();
                return match verifier.user_of_header(value, now) {
                    Ok(user) => Judged::User(UserName::new(user)),
                    Err(_) => refused(server),
                };
            }
            _ => {}
        }
        let Some(authorization) = head.text("authorization") else {
            return match &self.stuck {
                Some(user) => Judged::User(user.clone()),
                None => Judged::Nobody,
            };
        };
        self.stuck = None;
        let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
        match &server.options.told {
            Told::Tickets(keytab) if scheme.eq_ignore_ascii_case("negotiate") => {
                return match of_ticket(keytab.clone(), token.trim().to_owned()).await {
                    Some(user) => Judged::User(user),
                    None => refused(server),
                };
            }
            Told::Handshakes if scheme.eq_ignore_ascii_case("ntlm") => {
                return self.shake(server, token.trim());
            }
            _ => {}
        }
        match read_basic(authorization) {
            Some((user, password)) if server.admits(&user, &password) => Judged::User(user),
            Some((user, _)) => {
                server.counts.wrong_password();
                self.failures += 1;
                if self.failures >= FAILURES_MAX && server.options.flavour == Flavour::Gromox {
                    // The user of the tenth failure pays for all ten, whoever made them.
                    server.ban(&user);
                }
                tokio::time::sleep(server.options.wrong_password_delay).await;
                Judged::Nobody
            }
            None => match server.holder_of(authorization) {
                Some(user) => Judged::User(user),
                None => Judged::Nobody,
            },
        }
    }

    fn shake(&mut self, server: &Arc<Server>, token: &str) -> Judged {
        let message = STANDARD.decode(token).unwrap_or_default();
        if message == handshake::FIRST {
            let nonce: [u8; 8] = std::array::from_fn(|_| fastrand::u8(..));
            self.nonce = Some(nonce);
            return Judged::More(STANDARD.encode([handshake::SECOND, &nonce].concat()));
        }
        let rest = message.strip_prefix(handshake::THIRD);
        let rest = rest.zip(self.nonce.take()).and_then(|(rest, nonce)| {
            // Of another connection's handshake, or of none.
            rest.strip_prefix(&nonce)
        });
        let text = rest.and_then(|rest| std::str::from_utf8(rest).ok());
        match text.and_then(|text| text.split_once(':')) {
            Some((user, password)) if server.admits(&UserName::new(user), password) => {
                Judged::User(UserName::new(user))
            }
            _ => refused(server),
        }
    }
}

/// Words of a handshake that proves a connection, as [`Told::Handshakes`] has it.
pub mod handshake {
    /// The client begins with this.
    pub const FIRST: &[u8] = b"NTLMSSP\0\x01";
    /// The server answers this, with eight bytes more.
    pub const SECOND: &[u8] = b"NTLMSSP\0\x02";
    /// The client ends with this, the eight bytes and `user:password`.
    pub const THIRD: &[u8] = b"NTLMSSP\0\x03";

    /// The client's last word to what the server has answered; `None`: that was no second word.
    pub fn third(second: &[u8], user: &str, password: &str) -> Option<Vec<u8>> {
        let nonce = second.strip_prefix(SECOND)?;
        let login = format!("{user}:{password}");
        Some([THIRD, nonce, login.as_bytes()].concat())
    }
}

fn refused(server: &Arc<Server>) -> Judged {
    server.counts.wrong_password();
    Judged::Nobody
}

fn named(head: &Head, header: &str) -> Judged {
    match head.text(header) {
        Some(user) => Judged::User(UserName::new(user.to_ascii_lowercase())),
        None => Judged::Nobody,
    }
}

/// Whose ticket this is, to any service of the key table. The realm is read as the mail domain.
async fn of_ticket(keytab: PathBuf, token: String) -> Option<UserName> {
    let accepted = tokio::task::spawn_blocking(move || {
        let token = STANDARD.decode(token).ok()?;
        let keys = credential::acceptor(&keytab).ok()?;
        let mut context = ServerCtx::new(Some(keys));
        context.step(&token, None).ok()?;
        Some(context.source_name().ok()?.to_string())
    });
    let name = accepted.await.ok().flatten()?;
    Some(UserName::new(name.to_ascii_lowercase()))
}

/// Failures on one connection after which gromox locks a user out.
const FAILURES_MAX: u32 = 10;
