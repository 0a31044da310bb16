//! Reaches places, shows the user's credential there, and hears whole answers.

use super::place::Place;
use super::report::Trouble;
use super::trust::{self, Witness};
use super::{Credential, Probe};
use crate::gss::Client;
use crate::outlook::{Answer, Failure, Line, Target};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::lookup_host;

/// One probe's way out.
pub(super) struct Caller<'p> {
    pub(super) probe: &'p Probe,
    tls: Option<(Arc<ClientConfig>, Arc<Witness>)>,
    /// A connection for ordinary requests, kept as long as they go to the same place.
    line: Option<(Place, Line)>,
}

impl<'p> Caller<'p> {
    pub(super) fn new(probe: &'p Probe) -> Self {
        Self {
            probe,
            tls: None,
            line: None,
        }
    }

    /// Where a place is; by a detour, or by what DNS says.
    pub(super) async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, Trouble> {
        let mut detours = self.probe.detours.iter();
        if let Some(address) = detours.find_map(|detour| detour.of(place)) {
            return Ok(vec![address]);
        }
        let missing = |came: String| {
            let host = &place.host;
            Trouble::new(
                format!("an address of {host}"),
                came,
                format!(
                    "add {host} to DNS; to try one server without it: --resolve {host}=ADDRESS"
                ),
            )
        };
        let found = lookup_host((place.host.as_str(), place.port)).await;
        let found = found.map_err(|cause| missing(format!("none: {cause}")))?;
        let mut addresses: Vec<_> = found.collect();
        addresses.dedup();
        match addresses.is_empty() {
            true => Err(missing("none".to_owned())),
            false => Ok(addresses),
        }
    }

    /// A new connection to the first of its addresses that answers.
    pub(super) async fn open(&mut self, place: &Place) -> Result<Line, Trouble> {
        let addresses = self.addresses(place).await?;
        if place.is_tls && self.tls.is_none() {
            let made = trust::client(self.probe.authorities.as_deref()).map_err(|cause| {
                Trouble::new(
                    "authorities to trust",
                    cause.to_string(),
                    "name a PEM file with --ca",
                )
            })?;
            self.tls = Some(made);
        }
        let tls = self.tls.as_ref().filter(|_| place.is_tls);
        let mut last = None;
        for address in addresses {
            let target = Target {
                address,
                host: place.authority(),
                tls: tls.map(|(config, _)| Arc::clone(config)),
            };
            match Line::connect(&target).await {
                Ok(line) => return Ok(line),
                Err(failure) => last = Some((address, failure)),
            }
        }
        let Some((address, failure)) = last else {
            return Err(Trouble::new("an address", "none", "look at DNS"));
        };
        Err(match failure {
            Failure::Connecting(cause) if is_tls(&cause) => {
                trust::failed(&place.host, &cause, tls.map(|(_, witness)| &**witness))
            }
            failure => not_reached(address, &failure),
        })
    }

    /// What the certificate of the last new connection says; `None` without TLS.
    pub(super) fn shown(&self) -> Option<trust::Shown> {
        self.tls.as_ref()?.1.shown()
    }

    /// Asks, on the kept connection where it still serves.
    pub(super) async fn ask(&mut self, place: &Place, request: &[u8]) -> Result<Answer, Trouble> {
        let mut line = match self.line.take() {
            Some((kept, line)) if kept == *place => Some(line),
            _ => None,
        };
        if let Some(kept) = &mut line
            && kept.is_dead().await
        {
            line = None;
        }
        let mut line = match line {
            Some(line) => line,
            None => self.open(place).await?,
        };
        let answer = line.ask(request).await.map_err(|failure| lost(&failure))?;
        self.line = Some((place.clone(), line));
        Ok(answer)
    }

    /// The kept connection is not used any more: what it was used for did not end.
    pub(super) fn forget(&mut self) {
        self.line = None;
    }

    /// The value of `Authorization` for a request to this place; a new one for each, where that must be.
    pub(super) async fn authorization(&self, place: &Place) -> Result<String, Trouble> {
        Ok(match &self.probe.credential {
            Credential::Password(password) => {
                let pair = format!("{}:{}", self.probe.user, password.reveal());
                format!("Basic {}", STANDARD.encode(pair))
            }
            Credential::Token(token) => format!("Bearer {}", token.reveal()),
            Credential::Tickets(cache) => {
                let (host, cache) = (place.host.clone(), cache.clone());
                let word = tokio::task::spawn_blocking(move || {
                    let said = Client::with_tickets(&cache, &host)?.say(None, None)?;
                    Ok(said.unwrap_or_default())
                });
                let next = "get a ticket with kinit, and see `klist`; the service is HTTP/ and the host of the URL";
                let none = |cause: String| {
                    Trouble::new(format!("a ticket for HTTP/{}", place.host), cause, next)
                };
                match word.await {
                    Ok(Ok(word)) => format!("Negotiate {}", STANDARD.encode(word.as_slice())),
                    Ok(Err(cause)) => return Err(none(crate::gss::words(&cause))),
                    Err(cause) => return Err(none(cause.to_string())),
                }
            }
        })
    }
}

/// TLS speaks through errors of the system that carry its own, or that mean a broken-off handshake.
fn is_tls(cause: &std::io::Error) -> bool {
    let inner = cause.get_ref();
    inner.is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
        || cause.kind() == std::io::ErrorKind::UnexpectedEof
}

fn not_reached(address: SocketAddr, failure: &Failure) -> Trouble {
    Trouble::new(
        format!("a connection to {address}"),
        failure.to_string(),
        "see that something listens there and that no firewall is between; for mapigate `systemctl status mapigate`",
    )
}

fn lost(failure: &Failure) -> Trouble {
    Trouble::new(
        "an answer",
        failure.to_string(),
        "look at the access log of what listens there for this request, and at proxies between",
    )
}
