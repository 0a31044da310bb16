//! Bearer: tokens that an identity provider signed. RFC 6750, RFC 7519
//!
//! A token says of itself whose it is; that only chooses the keys and the rules it is held against.
//! Nothing else in it is looked at before its signature was found good. Keys come from the provider
//! alone, never from the token, and only asymmetric ones.

mod diagnosis;
mod keys;
mod ring;
mod rules;
mod token;

pub use keys::KeySetProblem;
pub use ring::{Fetch, KeyRing, Put};

use super::method::{Grounds, Judged, Method, Proven, Work, serial};
use super::people::People;
use super::verify::{Held, aside};
use super::{AuthError, Denied, Scheme};
use crate::config::settings::{BearerAuth, BearerChallenge, TokenIssuer};
use crate::ids::UserName;
use async_trait::async_trait;
use diagnosis as wrong;
use jsonwebtoken::Algorithm;
use ring::{Missing, Wait};
use rules::Rules;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use token::{TOKEN_BYTES_MAX, Token};

/// The identity providers as the settings name them.
#[derive(Debug)]
pub(super) struct Bearer {
    challenge: String,
    refused: String,
    issuers: Vec<Arc<Issuer>>,
    serial: u64,
}

/// An identity provider: its rules, and its keys.
#[derive(Debug)]
struct Issuer {
    rules: Rules,
    leeway: Duration,
    ring: Arc<KeyRing>,
    serial: u64,
}

impl Bearer {
    /// Prepares the issuers. One that did not change goes on being the same; one whose rules changed
    /// keeps its keys.
    pub(super) fn new(settings: &BearerAuth, earlier: Option<&Self>) -> Result<Self, AuthError> {
        let known = earlier.map_or(&[][..], |earlier| &earlier.issuers);
        let issuer = |wanted: &TokenIssuer| Issuer::new(wanted, settings.leeway, known);
        let issuers: Result<Vec<_>, _> = settings.issuers.iter().map(issuer).collect();
        let challenge = challenge(&settings.challenge).ok_or(AuthError::Challenge)?;
        Ok(Self {
            refused: format!("{challenge}, error=\"invalid_token\"\r\n"),
            challenge: format!("{challenge}\r\n"),
            issuers: issuers?,
            serial: serial(),
        })
    }

    /// The keys of all issuers, for the one who fetches them.
    pub(super) fn rings(&self) -> impl Iterator<Item = &Arc<KeyRing>> {
        self.issuers.iter().map(|issuer| &issuer.ring)
    }
}

impl Method for Bearer {
    fn scheme(&self) -> Scheme {
        Scheme::Bearer
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    fn challenge_to_refused(&self) -> &str {
        &self.refused
    }

    fn measure(&self, bytes: usize) -> Result<(), Denied> {
        match bytes > VALUE_BYTES_MAX {
            true => Err(Denied::Token(&wrong::TOO_LONG)),
            false => Ok(()),
        }
    }

    fn serial(&self) -> u64 {
        // Numbers only grow: whatever changes becomes the greatest.
        let rings = self.issuers.iter().map(|issuer| issuer.ring.serial());
        rings.fold(self.serial, u64::max)
    }

    fn upholds(&self, _user: &UserName, Grounds(issuer, key): Grounds) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|known| known.serial == issuer && known.ring.has(key))
    }

    fn knows(&self, _user: &UserName) -> bool {
        false
    }

    fn look(&self, token: &[u8], now: (Instant, SystemTime)) -> Result<Arc<dyn Work>, Denied> {
        let token = Token::read(token).map_err(Denied::Token)?;
        let mut issuers = self.issuers.iter();
        let issuer = issuers
            .find(|known| known.rules.settings().issuer == token.issuer)
            .ok_or(Denied::Token(&wrong::ISSUER))?;
        let algorithm = issuer
            .rules
            .algorithm(&token.algorithm)
            .ok_or(Denied::Token(&wrong::ALGORITHM))?;
        let wait = match issuer.ring.find(token.key.as_deref()) {
            Some(_known) => None,
            None => Some(issuer.ring.ask(now.0).wait()?),
        };
        Ok(Arc::new(Shown {
            token,
            algorithm,
            issuer: Arc::clone(issuer),
            wait,
            now: now.1,
        }))
    }
}

impl Issuer {
    fn new(
        settings: &TokenIssuer,
        leeway: Duration,
        known: &[Arc<Self>],
    ) -> Result<Arc<Self>, AuthError> {
        let mut same = known.iter();
        if let Some(same) =
            same.find(|known| known.rules.settings() == settings && known.leeway == leeway)
        {
            return Ok(Arc::clone(same));
        }
        let mut rings = known.iter().map(|known| &known.ring);
        let ring = match rings.find(|ring| *ring.source() == settings.keys) {
            Some(ring) => Arc::clone(ring),
            None => Arc::new(
                KeyRing::new(&settings.keys).map_err(|problem| AuthError::Keys {
                    issuer: settings.issuer.clone(),
                    problem,
                })?,
            ),
        };
        Ok(Arc::new(Self {
            rules: Rules::new(settings, leeway),
            leeway,
            ring,
            serial: serial(),
        }))
    }
}

impl Missing {
    /// Where waiting can help, a place to wait.
    fn wait(self) -> Result<Wait, Denied> {
        match self {
            Self::Fetching(wait) => Ok(wait),
            Self::Unknown => Err(Denied::Token(&wrong::KEY)),
            Self::Unreachable(reason) => Err(Denied::Busy(reason)),
        }
    }
}

/// A token on its way to its signature.
struct Shown {
    token: Token,
    algorithm: Algorithm,
    issuer: Arc<Issuer>,
    wait: Option<Wait>,
    now: SystemTime,
}

#[async_trait]
impl Work for Shown {
    /// None: a token takes microseconds, and whoever makes one up in another's name would take the
    /// other's turn.
    fn queue(&self) -> Option<&UserName> {
        None
    }

    async fn ready(&self) -> Result<(), Denied> {
        match &self.wait {
            Some(wait) => wait.end().await,
            None => Ok(()),
        }
    }

    async fn judge(self: Arc<Self>, people: Arc<People>, held: Held) -> Option<Judged> {
        aside(held, move || self.verify(&people)).await
    }
}

impl Shown {
    fn verify(&self, people: &People) -> Judged {
        let (issuer, name) = (&self.issuer, self.token.key.as_deref());
        let Some(key) = issuer.ring.find(name) else {
            let missing = issuer.ring.after_fetch().wait().err();
            return Judged::NotNow(missing.unwrap_or(Denied::Token(&wrong::KEY)));
        };
        let proof = issuer
            .rules
            .verify(self.token.text(), self.algorithm, &key, self.now);
        match proof {
            Ok(proof) => Judged::Proven(Proven {
                standing: people.standing(&proof.user),
                user: proof.user,
                grounds: Grounds(issuer.serial, key.serial()),
                expires: Some(proof.expires),
            }),
            // In a minute it may be good.
            Err(early) if *early == wrong::EARLY => Judged::NotNow(Denied::Token(early)),
            Err(diagnosis) => Judged::Wrong(Denied::Token(diagnosis)),
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(…)")
    }
}

/// The challenge as Exchange writes it, without its line end; `None` where a part cannot be said in a
/// header.
fn challenge(parts: &BearerChallenge) -> Option<String> {
    let named = [
        ("client_id", &parts.client_id),
        ("trusted_issuers", &parts.trusted_issuers),
        ("token_types", &parts.token_types),
        ("authorization_uri", &parts.authorization_uri),
    ];
    let mut said = Vec::new();
    for (name, value) in named {
        let Some(value) = value else {
            continue;
        };
        let is_plain = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b'"' && b != b'\\';
        if !value.bytes().all(is_plain) {
            return None;
        }
        said.push(format!("{name}=\"{value}\""));
    }
    if said.is_empty() {
        // A challenge of parameters needs one. RFC 6750 3
        said.push("realm=\"mail\"".to_owned());
    }
    Some(format!("WWW-Authenticate: Bearer {}", said.join(", ")))
}

/// The longest `Authorization` value that is looked at.
const VALUE_BYTES_MAX: usize = "Bearer ".len() + TOKEN_BYTES_MAX;

#[cfg(test)]
pub(crate) mod mint;

#[cfg(test)]
mod tests;
