//! Handshakes between a client of this process and the schemes as a connection meets them.

use super::report::Report;
use super::tries::{Failure, Trial, now};
use crate::auth::{Asker, AuthStep, ChannelBinding, Denied, Identity, Memo, Scheme, Shaken};
use crate::gss::{self, Client};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use zeroize::Zeroizing;

impl Trial<'_> {
    /// From the client's first word to the server's last, as on one TLS connection with the certificate of this name.
    pub(super) async fn shake(
        &self,
        scheme: Scheme,
        mut client: Client,
        offered: &[Scheme],
        report: &mut Report,
    ) -> Result<Arc<Identity>, Failure> {
        let binding = self.binding();
        let mut memo = Memo::over_tls(binding.clone());
        let mut heard: Option<Zeroizing<Vec<u8>>> = None;
        for _ in 0..WORDS_MAX {
            let bound = binding.as_ref().map(ChannelBinding::bytes);
            let word = client
                .say(heard.as_deref().map(Vec::as_slice), bound)
                .map_err(|error| Failure::Client(gss::words(&error)))?;
            let word = word.ok_or(Denied::Credentials("the client has nothing more to say"))?;
            if heard.is_none() && scheme == Scheme::Negotiate {
                let bytes = word.len();
                report.step(
                    "ticket",
                    format!(
                        "of {}, for HTTP/{}, {bytes} bytes with its frame",
                        client.user(),
                        self.name.host
                    ),
                );
            }
            let value = Zeroizing::new([scheme.word(), " ", &STANDARD.encode(&*word)].concat());
            let asker = Asker {
                authorization: Some(value.as_bytes()),
                offered,
                source: std::net::Ipv4Addr::LOCALHOST.into(),
                now: now(),
            };
            let said = match self.world.auth.step(&asker, &mut memo) {
                AuthStep::Shake(handshake) => handshake.run(&mut memo).await?,
                AuthStep::Deny(_, denied) => return Err(denied.into()),
                AuthStep::Granted(identity) => return Ok(identity),
                AuthStep::Verify(_) => {
                    return Err(Denied::Credentials("taken for another scheme").into());
                }
                AuthStep::Challenge(reason) => return Err(Denied::Credentials(reason).into()),
            };
            heard = memo.answer().and_then(|lines| token(lines, scheme));
            if let Shaken::Proven(identity) = said {
                report.step("answer", self.last(scheme, &mut client, heard.as_deref()));
                return Ok(identity);
            }
        }
        Err(Denied::Credentials("the handshake does not end").into())
    }

    /// What the client makes of the server's last word.
    fn last(&self, scheme: Scheme, client: &mut Client, word: Option<&Vec<u8>>) -> String {
        let binding = self.binding();
        let bound = binding.as_ref().map(ChannelBinding::bytes);
        let Some(word) = word else {
            return match scheme {
                Scheme::Ntlm => "none: NTLM proves no server",
                _ => "none: the client cannot tell who the server is",
            }
            .to_owned();
        };
        match client.say(Some(word), bound) {
            Ok(_) if client.is_complete() => "proves the server to the client".to_owned(),
            Ok(_) => "does not prove the server to the client".to_owned(),
            Err(error) => format!("is none that the client believes: {}", gss::words(&error)),
        }
    }

    /// What the client's proof is bound to: the certificate that it would be shown.
    fn binding(&self) -> Option<ChannelBinding> {
        let listeners = self.world.settings.listeners.iter();
        let certificates = || {
            listeners
                .clone()
                .flat_map(|listener| &listener.certificates)
        };
        let is_of_name = |names: &[String]| {
            let host = self.name.host.to_ascii_lowercase();
            let wild = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            names
                .iter()
                .any(|name| *name == host || Some(name) == wild.as_ref())
        };
        let own = certificates().find(|certificate| is_of_name(&certificate.names));
        let shown = own.or_else(|| certificates().next())?;
        ChannelBinding::of(shown.chain.first()?)
    }
}

/// The token of this scheme in header lines.
fn token(lines: &str, scheme: Scheme) -> Option<Zeroizing<Vec<u8>>> {
    let word = scheme.word();
    let mut lines = lines.lines();
    let token = lines.find_map(|line| {
        let value = line.strip_prefix("WWW-Authenticate: ")?;
        value.strip_prefix(word)?.strip_prefix(' ')
    })?;
    STANDARD.decode(token).ok().map(Zeroizing::new)
}

/// NTLM inside of Negotiate takes three; nothing takes more than some.
const WORDS_MAX: usize = 8;
