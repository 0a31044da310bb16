//! Basic against the password file. RFC 7617

use super::method::{Grounds, Judged, Method, Proven, Work};
use super::passwords::{self, Passwords};
use super::people::People;
use super::verify::{Held, aside};
use super::{AuthError, Denied, Scheme, names};
use crate::config::settings::BasicAuth;
use crate::ids::UserName;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use zeroize::Zeroizing;

/// The password file as the settings name it.
#[derive(Debug)]
pub(super) struct Basic {
    challenge: String,
    default_domain: Option<String>,
    passwords: Arc<Passwords>,
    /// Chooses whose hash an unknown name is held against.
    lots: RandomState,
}

impl Basic {
    /// Reads the password file; accounts that did not change go on being those of `earlier`. Blocks on
    /// the disk.
    pub(super) fn new(
        settings: &BasicAuth,
        file: &Path,
        earlier: Option<&Self>,
    ) -> Result<Self, AuthError> {
        let domain = settings.default_domain.as_deref();
        let passwords = passwords::read(file, domain).map_err(|problems| AuthError::Passwords {
            file: file.to_owned(),
            problems,
        })?;
        // Under another domain the same line is somebody else's.
        let earlier = earlier.filter(|earlier| earlier.default_domain == settings.default_domain);
        Ok(Self {
            challenge: challenge(&settings.realm).ok_or(AuthError::Realm)?,
            default_domain: settings.default_domain.clone(),
            passwords: match earlier {
                Some(earlier) => passwords.succeed(&earlier.passwords),
                None => Arc::new(passwords),
            },
            lots: earlier.map_or_else(RandomState::new, |earlier| earlier.lots.clone()),
        })
    }
}

impl Method for Basic {
    fn scheme(&self) -> Scheme {
        Scheme::Basic
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    fn measure(&self, bytes: usize) -> Result<(), Denied> {
        measure(bytes)
    }

    fn serial(&self) -> u64 {
        self.passwords.serial()
    }

    fn upholds(&self, user: &UserName, grounds: Grounds) -> bool {
        let account = self.passwords.account(user);
        account.is_some_and(|account| grounds == Grounds(account.serial(), 0))
    }

    fn knows(&self, user: &UserName) -> bool {
        self.passwords.account(user).is_some()
    }

    fn look(&self, token: &[u8], _now: (Instant, SystemTime)) -> Result<Arc<dyn Work>, Denied> {
        let Credentials { user, password } =
            Credentials::read(token, self.default_domain.as_deref())
                .map_err(Denied::Credentials)?;
        Ok(Arc::new(Login {
            lot: self.lots.hash_one(&user),
            user,
            password,
            passwords: Arc::clone(&self.passwords),
        }))
    }
}

/// A name and a password on their way to the hash.
struct Login {
    user: UserName,
    password: Zeroizing<Vec<u8>>,
    passwords: Arc<Passwords>,
    lot: u64,
}

#[async_trait]
impl Work for Login {
    fn queue(&self) -> Option<&UserName> {
        Some(&self.user)
    }

    async fn judge(self: Arc<Self>, people: Arc<People>, held: Held) -> Option<Judged> {
        aside(held, move || self.hash(&people)).await
    }
}

impl Login {
    /// A name without an account costs what one with an account costs.
    fn hash(&self, people: &People) -> Judged {
        // Before the hash: who is revoked while it runs is not believed afterwards.
        let standing = people.standing(&self.user);
        let account = self.passwords.account(&self.user);
        let is_proven = match account.or_else(|| self.passwords.stand_in(self.lot)) {
            Some(judged) => judged.proves(&self.password),
            None => passwords::spend_time(&self.password),
        };
        match account.filter(|_| is_proven) {
            Some(account) => Judged::Proven(Proven {
                user: account.user.clone(),
                standing,
                grounds: Grounds(account.serial(), 0),
                expires: None,
            }),
            None => Judged::Wrong(Denied::Credentials(WRONG)),
        }
    }
}

/// A name and a password nobody has checked yet.
pub(super) struct Credentials {
    pub(super) user: UserName,
    pub(super) password: Zeroizing<Vec<u8>>,
}

impl Credentials {
    /// Reads the part after the scheme word.
    ///
    /// The name must be UTF-8. A password that is not is read as Latin-1, which older clients send;
    /// since everything remembered is keyed by the header's own bytes, the two spellings are never
    /// taken for each other. An empty password is refused here, because some directories take it for
    /// a request to log in anonymously and say yes. RFC 4513 5.1.2
    pub(super) fn read(token: &[u8], default_domain: Option<&str>) -> Result<Self, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("malformed credentials: too long");
        }
        // Room for everything from the start: a buffer that grows leaves its old self in memory.
        let mut clear = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(
            token.len(),
        )));
        STANDARD
            .decode_vec(token, &mut clear)
            .map_err(|_place| "malformed credentials: not base64")?;
        let colon = memchr::memchr(b':', &clear).ok_or("malformed credentials: no colon")?;
        let (user, password) = clear.split_at(colon);
        let password = password.get(1..).unwrap_or_default();
        let user = std::str::from_utf8(user)
            .ok()
            .and_then(|login| names::canonical(login, default_domain))
            .ok_or("malformed credentials: not a name")?;
        if password.is_empty() {
            return Err("empty password");
        }
        if password.iter().any(u8::is_ascii_control) {
            return Err("malformed credentials: control character in password");
        }
        Ok(Self {
            user,
            password: utf8_of(password),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

fn utf8_of(password: &[u8]) -> Zeroizing<Vec<u8>> {
    if std::str::from_utf8(password).is_ok() {
        return Zeroizing::new(password.to_vec());
    }
    let mut text = Zeroizing::new(Vec::with_capacity(2 * password.len()));
    for byte in password {
        let mut letter = [0; 4];
        text.extend_from_slice(char::from(*byte).encode_utf8(&mut letter).as_bytes());
    }
    text
}

/// Refuses a value that is longer than any name and password.
pub(super) fn measure(bytes: usize) -> Result<(), Denied> {
    match bytes > VALUE_BYTES_MAX {
        true => Err(Denied::Credentials("malformed credentials: too long")),
        false => Ok(()),
    }
}

/// The challenge line of a realm; `None` for a realm that cannot be said in a header.
pub(super) fn challenge(realm: &str) -> Option<String> {
    if realm.chars().any(char::is_control) {
        return None;
    }
    let quoted = realm.replace('\\', r"\\").replace('"', "\\\"");
    Some(format!(
        "WWW-Authenticate: Basic realm=\"{quoted}\", charset=\"UTF-8\"\r\n"
    ))
}

/// Base64 of a name and a password of sensible length.
const TOKEN_BYTES_MAX: usize = 2048;

/// The longest `Authorization` value that is looked at: beyond any name and password.
const VALUE_BYTES_MAX: usize = 4096;

/// The reason of every credential that was looked at and found wrong.
pub(super) const WRONG: &str = "wrong name or password";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(clear: &[u8]) -> Result<Credentials, &'static str> {
        Credentials::read(STANDARD.encode(clear).as_bytes(), Some("contoso.test"))
    }

    #[test]
    fn the_first_colon_ends_the_name() {
        let credentials = read(b"User1:a:b").unwrap();
        assert_eq!(credentials.user.as_str(), "user1@contoso.test");
        assert_eq!(&**credentials.password, b"a:b");
    }

    #[test]
    fn a_password_that_is_not_utf8_is_read_as_latin1() {
        assert_eq!(
            &**read(b"user1:p\xe4ss").unwrap().password,
            "p\u{e4}ss".as_bytes()
        );
        assert_eq!(
            &**read("user1:p\u{e4}ss".as_bytes()).unwrap().password,
            "p\u{e4}ss".as_bytes()
        );
    }

    #[test]
    fn what_is_not_a_name_and_a_password_is_refused() {
        for clear in [
            &b"user1"[..],
            b"",
            b":secret",
            b"user1:",
            b"user1:sec\0ret",
            b"us\0er1:secret",
            b"user1:secret\r\n",
            b" user1:secret",
            b"us\xe4r1:secret",
        ] {
            assert!(read(clear).is_err(), "{clear:?}");
        }
        for token in [
            &b"%%%"[..],
            b"dXNlcjE6YQ",
            b"dXNlcjE6YQ=",
            b"\xff",
            b"dXNlcjE 6YQ==",
        ] {
            assert!(Credentials::read(token, None).is_err(), "{token:?}");
        }
        let long = STANDARD.encode([b"user1:".to_vec(), vec![b'x'; 4000]].concat());
        assert!(Credentials::read(long.as_bytes(), None).is_err());
    }

    #[test]
    fn a_realm_is_quoted() {
        assert_eq!(
            challenge(r#"the "mail" \ realm"#).unwrap(),
            "WWW-Authenticate: Basic realm=\"the \\\"mail\\\" \\\\ realm\", charset=\"UTF-8\"\r\n"
        );
        assert_eq!(challenge("a\r\nSet-Cookie: x"), None);
    }

    #[test]
    fn debug_prints_neither_name_nor_password() {
        assert_eq!(
            format!("{:?}", read(b"user1:secret").unwrap()),
            "Credentials(…)"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(clear in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&clear);
            let _ = Credentials::read(&clear, None);
        }
    }
}
