//! Short-lived tokens of our own that tell a server who the user is, and those who check them.
//!
//! JSON Web Tokens with one algorithm, ES256: whoever can check one cannot make one. RFC 7519, RFC 7518 3.4
//!
//! A token names its server: one that another server was shown is worth nothing here. It is bound to
//! nothing else, so what carries it should be TLS.

use crate::config::settings::AssertionHandOff;
use crate::ids::{ServerName, UserName};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use moka::sync::Cache;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Makes tokens, and shows one again while it is good for some time yet.
pub struct Signer {
    pair: EcdsaKeyPair,
    key_id: String,
    issuer: String,
    lifetime: Duration,
    as_negotiate: bool,
    made: Cache<(UserName, ServerName), Arc<Made>>,
}

/// A token as it is sent, and when it is no longer.
struct Made {
    value: Zeroizing<String>,
    renewed_at: u64,
}

impl Signer {
    /// Signs with the first of the keys. `None`: it is no key for ES256.
    pub fn new(settings: &AssertionHandOff) -> Option<Self> {
        let key = settings.keys.first()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key).ok()?;
        Some(Self {
            key_id: key_id(pair.public_key().as_ref()),
            pair,
            issuer: settings.issuer.clone(),
            lifetime: settings.lifetime,
            as_negotiate: settings.as_negotiate,
            made: Cache::builder()
                .max_capacity(TOKENS_MAX)
                .time_to_live(settings.lifetime)
                .build(),
        })
    }

    /// The value that tells `server` that this is `user`, scheme word included where it has one. Half
    /// a microsecond for a token that is here, 40 for a new one; `None` where the system has no
    /// random bytes.
    pub fn value(
        &self,
        user: &UserName,
        server: &ServerName,
        with_scheme: bool,
        now: SystemTime,
    ) -> Option<Zeroizing<String>> {
        let now = seconds(now);
        let whose = (user.clone(), server.clone());
        let known = self.made.get(&whose).filter(|made| now < made.renewed_at);
        if let Some(made) = known {
            return Some(made.value.clone());
        }
        let token = self.sign(user, server, now)?;
        let value = Zeroizing::new(match (with_scheme, self.as_negotiate) {
            (true, true) => format!("Negotiate {}", STANDARD.encode(token.as_bytes())),
            (true, false) => format!("Bearer {}", *token),
            (false, _) => token.to_string(),
        });
        let renewed_at = now + self.lifetime.as_secs() / 2;
        let made = Made {
            value: value.clone(),
            renewed_at,
        };
        self.made.insert(whose, Arc::new(made));
        Some(value)
    }

    fn sign(&self, user: &UserName, server: &ServerName, now: u64) -> Option<Zeroizing<String>> {
        let head = json!({ "alg": "ES256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.issuer,
            "aud": server.as_str(),
            "sub": user.as_str(),
            "iat": now,
            "exp": now + self.lifetime.as_secs(),
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = Zeroizing::new(format!("{}.{}", part(&head), part(&claims)));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Some(Zeroizing::new(format!("{}.{signature}", *signed)))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, …)", self.key_id)
    }
}

/// What a server knows of us: public keys, and what it is called in tokens.
pub struct Verifier {
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
}

/// Why a token tells a server nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAssertion {
    /// Not a token of ours, for another server, or changed on the way.
    #[error("not a token for this server")]
    Invalid,
    /// Signed with a key that is not known here.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// Its time is over, or has not come.
    #[error("expired, or clocks differ")]
    Time,
}

impl Verifier {
    /// With the public keys of a PEM file (`openssl pkey -pubout`), for the server of this name.
    ///
    /// # Errors
    /// A key that is none for P-256, or no key at all.
    pub fn new(pem: &[u8], server: &str, issuer: &str) -> Result<Self, &'static str> {
        let mut keys = HashMap::new();
        for key in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let key = key.map_err(|_why| "not a PEM file")?;
            let point = key
                .strip_prefix(P256)
                .ok_or("a key that is not for P-256")?;
            keys.insert(key_id(point), DecodingKey::from_ec_der(point));
        }
        if keys.is_empty() {
            return Err("no public key (-----BEGIN PUBLIC KEY-----)");
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[server]);
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["aud", "exp", "iss", "sub"]);
        // Times are held against the caller's clock.
        validation.validate_exp = false;
        Ok(Self { keys, validation })
    }

    /// The user whom a token names.
    ///
    /// # Errors
    /// Why it names nobody.
    pub fn user(&self, token: &str, now: SystemTime) -> Result<String, BadAssertion> {
        #[derive(Deserialize)]
        struct Claims {
            sub: String,
            iat: u64,
            exp: u64,
        }
        let head = jsonwebtoken::decode_header(token).map_err(|_why| BadAssertion::Invalid)?;
        let key = head.kid.and_then(|id| self.keys.get(&id));
        let key = key.ok_or(BadAssertion::UnknownKey)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|_why| BadAssertion::Invalid)?
            .claims;
        let now = seconds(now);
        if now >= claims.exp || claims.iat > now + CLOCKS {
            return Err(BadAssertion::Time);
        }
        if claims.sub.is_empty() || claims.sub.contains(char::is_control) {
            return Err(BadAssertion::Invalid);
        }
        Ok(claims.sub)
    }

    /// The user whom the value of a header names; as Bearer, as Negotiate, or bare.
    ///
    /// # Errors
    /// Why it names nobody.
    pub fn user_of_header(&self, value: &str, now: SystemTime) -> Result<String, BadAssertion> {
        match value.split_once(' ') {
            None => self.user(value, now),
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.user(token.trim(), now)
            }
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("negotiate") => {
                self.user_of_base64(token.trim(), now)
            }
            Some(_) => Err(BadAssertion::Invalid),
        }
    }

    /// The user whom a token in base64 names, as it stands behind `Negotiate`.
    ///
    /// # Errors
    /// Why it names nobody.
    pub fn user_of_base64(&self, encoded: &str, now: SystemTime) -> Result<String, BadAssertion> {
        let token = STANDARD
            .decode(encoded)
            .map_err(|_why| BadAssertion::Invalid)?;
        let token = std::str::from_utf8(&token).map_err(|_why| BadAssertion::Invalid)?;
        self.user(token, now)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} keys)", self.keys.len())
    }
}

/// A key's name: nobody has to write it down anywhere.
fn key_id(point: &[u8]) -> String {
    let digest = digest(&SHA256, point);
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..12).unwrap_or_default())
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What stands before the point of an uncompressed P-256 key. RFC 5480 2
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// Tokens kept; each is some 300 bytes.
const TOKENS_MAX: u64 = 100_000;
/// How far a server's clock may be behind ours.
const CLOCKS: u64 = 60;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};

    /// A new key: PKCS#8, and the public half in PEM.
    pub(in crate::auth::handoff) fn key() -> (Zeroizing<Vec<u8>>, String) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let body = STANDARD.encode(public.as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        (Zeroizing::new(private.as_ref().to_vec()), pem)
    }

    pub(in crate::auth::handoff) fn settings(key: Zeroizing<Vec<u8>>) -> AssertionHandOff {
        AssertionHandOff {
            keys: vec![key],
            header: "Authorization".to_owned(),
            as_negotiate: false,
            lifetime: Duration::from_secs(60),
            issuer: "mapigate".to_owned(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn value(signer: &Signer, user: &str, server: &str, now: SystemTime) -> String {
        let (user, server) = (UserName::new(user), ServerName::new(server));
        signer.value(&user, &server, true, now).unwrap().to_string()
    }

    #[test]
    fn a_server_reads_the_user_that_was_signed_for_it_and_no_other() {
        let (private, public) = key();
        let signer = Signer::new(&settings(private)).unwrap();
        let verifier = |server| Verifier::new(public.as_bytes(), server, "mapigate").unwrap();
        let token = value(&signer, "user1@contoso.test", "MBX1", at(0));

        let told = verifier("MBX1").user_of_header(&token, at(1));
        assert_eq!(told.unwrap(), "user1@contoso.test");
        let other = verifier("MBX2").user_of_header(&token, at(1));
        assert_eq!(other, Err(BadAssertion::Invalid));
        let foreign = Verifier::new(public.as_bytes(), "MBX1", "somebody").unwrap();
        assert_eq!(
            foreign.user_of_header(&token, at(1)),
            Err(BadAssertion::Invalid)
        );
    }

    #[test]
    fn a_token_ends_after_its_lifetime_and_is_renewed_after_half_of_it() {
        let (private, public) = key();
        let signer = Signer::new(&settings(private)).unwrap();
        let verifier = Verifier::new(public.as_bytes(), "MBX1", "mapigate").unwrap();
        let token = |seconds| value(&signer, "user1@contoso.test", "MBX1", at(seconds));

        let first = token(0);
        assert_eq!(token(29), first);
        assert_ne!(token(30), first);
        assert!(verifier.user_of_header(&first, at(59)).is_ok());
        assert_eq!(
            verifier.user_of_header(&first, at(60)),
            Err(BadAssertion::Time)
        );
        let early = at(0) - Duration::from_secs(61);
        assert_eq!(
            verifier.user_of_header(&first, early),
            Err(BadAssertion::Time)
        );
    }

    #[test]
    fn tokens_of_two_users_and_two_servers_are_never_mixed_up() {
        let (private, public) = key();
        let signer = Signer::new(&settings(private)).unwrap();

        for round in 0..2 {
            for number in 0..20 {
                for server in ["MBX1", "MBX2"] {
                    let user = format!("user{number}@contoso.test");
                    let verifier = Verifier::new(public.as_bytes(), server, "mapigate").unwrap();
                    let token = value(&signer, &user, server, at(round));
                    assert_eq!(verifier.user_of_header(&token, at(round)).unwrap(), user);
                }
            }
        }
    }

    #[test]
    fn old_and_new_keys_are_good_side_by_side_and_strange_ones_never() {
        let ((old, old_public), (new, new_public), (strange, _)) = (key(), key(), key());
        let both = format!("{old_public}{new_public}");
        let verifier = Verifier::new(both.as_bytes(), "MBX1", "mapigate").unwrap();
        let told = |key| {
            let signer = Signer::new(&settings(key)).unwrap();
            verifier.user_of_header(&value(&signer, "u@c", "MBX1", at(0)), at(0))
        };

        assert!(told(old).is_ok() && told(new).is_ok());
        assert_eq!(told(strange), Err(BadAssertion::UnknownKey));
    }

    #[test]
    fn a_changed_token_or_one_without_signature_names_nobody() {
        let (private, public) = key();
        let signer = Signer::new(&settings(private)).unwrap();
        let verifier = Verifier::new(public.as_bytes(), "MBX1", "mapigate").unwrap();
        let token = value(&signer, "user1@contoso.test", "MBX1", at(0));
        let bare = token.strip_prefix("Bearer ").unwrap();
        let parts: Vec<_> = bare.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, signer.key_id));
        let other = URL_SAFE_NO_PAD.encode(
            r#"{"iss":"mapigate","aud":"MBX1","sub":"user2@contoso.test","iat":1800000000,"exp":1800000060}"#,
        );

        for bad in [
            format!("{}.{other}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            String::new(),
        ] {
            assert!(verifier.user(&bad, at(0)).is_err(), "{bad}");
        }
        assert!(verifier.user_of_header("Basic dTpw", at(0)).is_err());
        assert!(verifier.user(bare, at(0)).is_ok());
    }

    #[test]
    fn a_negotiate_token_is_base64_as_helpers_get_it() {
        let (private, public) = key();
        let as_negotiate = AssertionHandOff {
            as_negotiate: true,
            ..settings(private)
        };
        let signer = Signer::new(&as_negotiate).unwrap();
        let verifier = Verifier::new(public.as_bytes(), "MBX1", "mapigate").unwrap();

        let value = value(&signer, "user1@contoso.test", "MBX1", at(0));

        let encoded = value.strip_prefix("Negotiate ").unwrap();
        assert_eq!(
            verifier.user_of_base64(encoded, at(0)).unwrap(),
            "user1@contoso.test"
        );
        assert!(verifier.user_of_header(&value, at(0)).is_ok());
        // gromox takes tokens of less than 4 kB.
        assert!(encoded.len() < 1024);
    }

    #[test]
    fn debug_prints_no_key() {
        let (private, _) = key();
        let settings = settings(private);
        let text = format!("{:?} {settings:?}", Signer::new(&settings).unwrap());

        assert!(text.contains('…') && !text.contains("[48,"), "{text}");
    }
}
