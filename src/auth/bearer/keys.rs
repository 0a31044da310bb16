//! The keys of one identity provider, as its key set tells them. RFC 7517

use super::super::method::serial;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Public keys by name. Immutable; another set takes its place.
#[derive(Default)]
pub(super) struct Keys {
    by_name: HashMap<Box<str>, Arc<Key>>,
    /// The only key, for tokens that name none.
    only: Option<Arc<Key>>,
}

/// A public key.
pub(super) struct Key {
    jwk: Jwk,
    decoding: DecodingKey,
    serial: u64,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// Why a key set is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetProblem {
    /// It is not a JSON Web Key Set.
    #[error("not a JSON Web Key Set: {0}")]
    NotOne(String),
    /// None of its keys can verify a token.
    #[error("none of its {0} keys can verify a token")]
    NoKey(usize),
}

impl Keys {
    /// Reads a key set. Keys that verify nothing are passed over: symmetric ones, those for encryption,
    /// RSA below 2048 bits, kinds that are not known. Of two keys with one name the first counts. A key
    /// that `earlier` had goes on being the same key.
    pub(super) fn read(document: &[u8], earlier: &Self) -> Result<Self, KeySetProblem> {
        let Document { keys } = serde_json::from_slice(document)
            .map_err(|cause| KeySetProblem::NotOne(cause.to_string()))?;
        let count = keys.len();
        let mut by_name: HashMap<Box<str>, Arc<Key>> = HashMap::new();
        let mut all = Vec::new();
        for value in keys.into_iter().take(KEYS_MAX) {
            let Some((name, key)) = serde_json::from_value(value).ok().and_then(Key::read) else {
                continue;
            };
            let known = earlier.all().find(|known| known.jwk == key.jwk);
            let key = known.cloned().unwrap_or_else(|| Arc::new(key));
            all.push(Arc::clone(&key));
            if let Some(name) = name {
                by_name.entry(name).or_insert(key);
            }
        }
        let only = match all.as_slice() {
            [] => return Err(KeySetProblem::NoKey(count)),
            [only] => Some(Arc::clone(only)),
            _ => None,
        };
        Ok(Self { by_name, only })
    }

    /// The key of this name; without a name, the only one there is.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<Key>> {
        match name {
            Some(name) => self.by_name.get(name),
            None => self.only.as_ref(),
        }
    }

    /// True while the set has the key with this serial.
    pub(super) fn has(&self, serial: u64) -> bool {
        self.all().any(|key| key.serial == serial)
    }

    /// True where both have the same keys under the same names.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.by_name.len() == other.by_name.len()
            && self.all().all(|key| other.has(key.serial))
    }

    /// How many keys.
    pub(super) fn len(&self) -> usize {
        self.by_name.len() + usize::from(self.has_nameless())
    }

    fn has_nameless(&self) -> bool {
        self.only.is_some() && self.by_name.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        let nameless = self.only.iter().filter(|_| self.has_nameless());
        self.by_name.values().chain(nameless)
    }
}

impl Key {
    fn read(jwk: Jwk) -> Option<(Option<Box<str>>, Self)> {
        let common = &jwk.common;
        let may_sign = common
            .public_key_use
            .as_ref()
            .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        // An algorithm that is written must be one that signs.
        let alg = common.key_algorithm.map(Algorithm::try_from).transpose();
        let is_asymmetric = matches!(
            jwk.algorithm,
            AlgorithmParameters::RSA(_)
                | AlgorithmParameters::EllipticCurve(_)
                | AlgorithmParameters::OctetKeyPair(_)
        );
        if !may_sign || !is_asymmetric || alg.is_err() {
            return None;
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = decoding.kind()
            && n.iter().skip_while(|byte| **byte == 0).count() < RSA_BYTES_MIN
        {
            return None;
        }
        let name = common.key_id.as_deref().map(Box::from);
        let key = Self {
            jwk,
            decoding,
            serial: serial(),
        };
        Some((name, key))
    }

    /// What verifies with it.
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Distinguishes it from every other key.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// True where this algorithm is the key's own, or the key names none and is of its family.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        let own = self.jwk.common.key_algorithm.map(Algorithm::try_from);
        self.decoding.family() == algorithm.family()
            && own.is_none_or(|own| own.is_ok_and(|own| own == algorithm))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.len())
    }
}

/// Keys of one set that are looked at; providers have a handful.
const KEYS_MAX: usize = 100;

/// Bytes of the shortest RSA modulus that is accepted.
const RSA_BYTES_MIN: usize = 2048 / 8;
