//! Which tokens of an issuer open mail, and whose: what must be in the claims.

use super::super::names::canonical;
use super::diagnosis as wrong;
use super::keys::Key;
use crate::config::settings::TokenIssuer;
use crate::ids::UserName;
use crate::refusal::Diagnosis;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::debug;

/// The claims of a token whose signature was verified.
type Claims = Map<String, Value>;

/// What the settings ask of an issuer's tokens.
#[derive(Debug)]
pub(super) struct Rules {
    settings: TokenIssuer,
    leeway: Duration,
    /// One for each algorithm: a key of one family must never be held against the rules of another.
    validations: Vec<Validation>,
}

/// Whom a token proves, and until when it does.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) user: UserName,
    pub(super) expires: SystemTime,
}

impl Rules {
    pub(super) fn new(settings: &TokenIssuer, leeway: Duration) -> Self {
        let validation = |algorithm: &Algorithm| {
            let mut validation = Validation::new(*algorithm);
            validation.set_issuer(&[&settings.issuer]);
            validation.set_audience(&settings.audiences);
            // A claim that is not there is not wrong either, unless it is asked for.
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            // Time is an argument: it is judged in `lifetime`.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation
        };
        Self {
            validations: settings.algorithms.iter().map(validation).collect(),
            settings: settings.clone(),
            leeway,
        }
    }

    pub(super) fn settings(&self) -> &TokenIssuer {
        &self.settings
    }

    /// The algorithm of this name, where the issuer may use it.
    pub(super) fn algorithm(&self, name: &str) -> Option<Algorithm> {
        let wanted: Algorithm = name.parse().ok()?;
        self.settings.algorithms.contains(&wanted).then_some(wanted)
    }

    /// Verifies a token with a key of its issuer at time `now`. Tens of microseconds of processor time.
    pub(super) fn verify(
        &self,
        token: &[u8],
        algorithm: Algorithm,
        key: &Key,
        now: SystemTime,
    ) -> Result<Proof, &'static Diagnosis> {
        if !key.serves(algorithm) {
            return Err(&wrong::OTHER_KEY);
        }
        let mut validations = self.validations.iter();
        let validation = validations
            .find(|validation| validation.algorithms == [algorithm])
            .ok_or(&wrong::ALGORITHM)?;
        let token = jsonwebtoken::decode::<Claims>(token, key.decoding(), validation)
            .map_err(|error| self.diagnosis(error.kind()))?;
        let claims = token.claims;
        let expires = self.lifetime(&claims, now)?;
        self.judge(&claims)?;
        let user = self.user(&claims)?;
        Ok(Proof { user, expires })
    }

    fn diagnosis(&self, kind: &ErrorKind) -> &'static Diagnosis {
        let issuer = &self.settings.issuer;
        match kind {
            ErrorKind::InvalidSignature => &wrong::SIGNATURE,
            ErrorKind::InvalidAlgorithm => &wrong::ALGORITHM,
            ErrorKind::InvalidIssuer => &wrong::ISSUER,
            ErrorKind::InvalidAudience => {
                debug!(%issuer, accepted = ?self.settings.audiences, "token for another audience");
                &wrong::AUDIENCE
            }
            ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
                "exp" => &wrong::NO_EXPIRY,
                "aud" => &wrong::AUDIENCE,
                _ => &wrong::ISSUER,
            },
            _ => &wrong::MALFORMED,
        }
    }

    /// When the token ends to be good, if it is good now. RFC 7519 4.1.4, 4.1.5
    fn lifetime(&self, claims: &Claims, now: SystemTime) -> Result<SystemTime, &'static Diagnosis> {
        let ends = claims.get("exp").and_then(moment);
        let expires = ends
            .ok_or(&wrong::NO_EXPIRY)?
            .checked_add(self.leeway)
            .ok_or(&wrong::NO_EXPIRY)?;
        if expires <= now {
            return Err(&wrong::EXPIRED);
        }
        let Some(begins) = claims.get("nbf") else {
            return Ok(expires);
        };
        let begins = moment(begins).ok_or(&wrong::EARLY)?;
        let is_early = now
            .checked_add(self.leeway)
            .is_none_or(|latest| begins > latest);
        if is_early {
            return Err(&wrong::EARLY);
        }
        Ok(expires)
    }

    fn judge(&self, claims: &Claims) -> Result<(), &'static Diagnosis> {
        let settings = &self.settings;
        let client = CLIENT_CLAIMS.iter().find_map(|claim| claims.get(*claim));
        let is_known = |client: &Value| says_one_of(client, &settings.clients);
        if !settings.clients.is_empty() && !client.is_some_and(is_known) {
            return Err(&wrong::CLIENT);
        }
        let has = |required: &crate::config::settings::RequiredClaim| {
            let value = claims.get(&required.claim);
            value.is_some_and(|value| says_one_of(value, &required.any_of))
        };
        if let Some(missing) = settings.required_claims.iter().find(|claim| !has(claim)) {
            debug!(issuer = %settings.issuer, claim = %missing.claim, "token without a required claim");
            return Err(&wrong::CLAIM);
        }
        Ok(())
    }

    /// The user the token names: by the first claim of the list that it has at all, so that nobody
    /// becomes somebody else by a claim that was meant for less.
    fn user(&self, claims: &Claims) -> Result<UserName, &'static Diagnosis> {
        let settings = &self.settings;
        let mut named = settings.identity_claims.iter();
        let (claim, value) = named
            .find_map(|claim| claims.get(claim).map(|value| (claim, value)))
            .ok_or(&wrong::NO_USER)?;
        // Anybody can write any address into a profile; what counts is that the provider looked.
        let is_verified = |value: &Value| match value {
            Value::Bool(is_verified) => *is_verified,
            Value::String(word) => word == "true",
            _ => false,
        };
        if claim == "email" && !claims.get("email_verified").is_some_and(is_verified) {
            return Err(&wrong::NO_USER);
        }
        let login = value.as_str().ok_or(&wrong::NO_USER)?;
        let user = canonical(login, settings.default_domain.as_deref()).ok_or(&wrong::NO_USER)?;
        let domain = user.as_str().rsplit_once('@').map(|(_, domain)| domain);
        let speaks_for = |domain: &str| settings.domains.iter().any(|own| own == domain);
        if !settings.domains.is_empty() && !domain.is_some_and(speaks_for) {
            return Err(&wrong::FOREIGN_USER);
        }
        Ok(user)
    }
}

/// A NumericDate: seconds since 1970, perhaps with a fraction. RFC 7519 2
fn moment(value: &Value) -> Option<SystemTime> {
    let seconds = value.as_f64().filter(|s| (0.0..SECONDS_MAX).contains(s))?;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// True where a claim has one of these values: as one of its words, or as an item of its list.
fn says_one_of(value: &Value, wanted: &[String]) -> bool {
    let is_wanted = |text: &str| wanted.iter().any(|wanted| wanted == text);
    match value {
        Value::String(text) => is_wanted(text) || text.split(' ').any(is_wanted),
        Value::Array(items) => items.iter().any(|item| match item {
            Value::String(text) => is_wanted(text),
            Value::Bool(_) | Value::Number(_) => is_wanted(&item.to_string()),
            _ => false,
        }),
        Value::Bool(_) | Value::Number(_) => is_wanted(&value.to_string()),
        Value::Null | Value::Object(_) => false,
    }
}

/// Where providers say which application got the token: Entra ID and AD FS, OpenID Connect, RFC 9068.
const CLIENT_CLAIMS: [&str; 3] = ["appid", "azp", "client_id"];

/// The year 9999: keeps the arithmetic of clocks within their range.
const SECONDS_MAX: f64 = 253_402_300_800.0;
