//! The provider's keys: signs tokens, publishes the public halves, checks what others show.

use crate::ids::UserName;
use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

/// Keys of a provider, shared by all who hold a clone: the newest signs, all are published.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Vec<Key>>>);

struct Key {
    name: String,
    pair: RsaKeyPair,
}

impl Keys {
    /// With one key, RSA of 2048 bits.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(vec![Key::new()?]))))
    }

    /// A new key signs from now on. The earlier ones stay published, or do not.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn rotate(&self, keep_earlier: bool) -> Result<()> {
        let key = Key::new()?;
        let mut keys = self.0.lock();
        if !keep_earlier {
            keys.clear();
        }
        keys.insert(0, key);
        Ok(())
    }

    /// The key set. RFC 7517 5
    ///
    /// # Errors
    /// None that a key made here could cause.
    pub fn published(&self) -> Result<Value> {
        let keys: Result<Vec<Value>> = self.0.lock().iter().map(Key::published).collect();
        Ok(json!({ "keys": keys? }))
    }

    /// Signs these claims with the newest key, or with another one if `header` is not ours alone: the keys
    /// of `header` stand beside, or instead of, `alg`, `typ` and `kid`.
    ///
    /// # Errors
    /// None that a key made here could cause.
    pub fn sign(&self, claims: &Value, header: &Value) -> Result<String> {
        let keys = self.0.lock();
        let key = keys.first().ok_or_else(|| anyhow!("no key"))?;
        let mut own = json!({ "alg": "RS256", "typ": "JWT", "kid": key.name });
        if let (Some(own), Some(more)) = (own.as_object_mut(), header.as_object()) {
            own.extend(more.clone());
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&own), part(claims));
        let mut signature = vec![0; key.pair.public_modulus_len()];
        key.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .map_err(|_unspecified| anyhow!("the key does not sign"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose token it is, if one of these keys signed it and it did not end more than five minutes ago, as
    /// Exchange takes it; `now` is in seconds since 1970.
    pub fn user_of(&self, token: &str, now: u64) -> Option<UserName> {
        let (message, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let is_signed = self.0.lock().iter().any(|key| {
            let public = key.pair.public_key().as_ref();
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
                .verify(message.as_bytes(), &signature)
                .is_ok()
        });
        let (user, ends) = named_in(token)?;
        (is_signed && now < ends + 300).then_some(user)
    }
}

impl Key {
    fn new() -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)
            .map_err(|_unspecified| anyhow!("no random bytes"))?;
        Ok(Self {
            name: crate::lab::guid(),
            pair,
        })
    }

    fn published(&self) -> Result<Value> {
        let (_, public) = RSAPublicKey::from_der(self.pair.public_key().as_ref())?;
        let number = |bytes: &[u8]| {
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or_default();
            URL_SAFE_NO_PAD.encode(bytes.get(first..).unwrap_or_default())
        };
        Ok(json!({
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.name,
            "n": number(public.modulus),
            "e": number(public.exponent),
        }))
    }
}

/// The user a token names and when it ends; nothing of it is checked.
pub(crate) fn named_in(token: &str) -> Option<(UserName, u64)> {
    let payload = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let user = claims.get("upn")?.as_str()?.to_ascii_lowercase();
    Some((UserName::new(user), claims.get("exp")?.as_u64()?))
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.lock().len())
    }
}
