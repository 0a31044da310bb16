//! Basic: a name and a password with every request. RFC 7617

use super::method::{Grounds, Method, Work};
use super::{AuthError, Denied, Scheme, names};
use crate::config::settings::BasicAuth;
use crate::ids::UserName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use zeroize::Zeroizing;

/// What passwords are held against.
pub(super) trait Against: fmt::Debug + Send + Sync {
    /// See [`Method::serial`].
    fn serial(&self) -> u64;

    /// See [`Method::upholds`].
    fn upholds(&self, _user: &UserName, grounds: Grounds) -> bool {
        grounds == Grounds(self.serial(), 0)
    }

    /// See [`Method::knows`].
    fn knows(&self, _user: &UserName) -> bool {
        false
    }

    /// The work of holding these against it; `now` is when they were shown.
    fn work(&self, shown: Credentials, now: Instant) -> Result<Arc<dyn Work>, Denied>;
}

/// Basic as the settings have it, against what they name.
#[derive(Debug)]
pub(super) struct Basic<A> {
    challenge: String,
    default_domain: Option<String>,
    against: A,
}

impl<A> Basic<A> {
    /// `make` is given what passwords were held against before, where a name still means the same user.
    pub(super) fn new(
        settings: &BasicAuth,
        earlier: Option<&Self>,
        make: impl FnOnce(Option<&A>) -> Result<A, AuthError>,
    ) -> Result<Self, AuthError> {
        // Under another domain the same name is somebody else's.
        let earlier = earlier.filter(|earlier| earlier.default_domain == settings.default_domain);
        Ok(Self {
            against: make(earlier.map(|earlier| &earlier.against))?,
            challenge: challenge(&settings.realm).ok_or(AuthError::Realm)?,
            default_domain: settings.default_domain.clone(),
        })
    }
}

impl<A: Against> Method for Basic<A> {
    fn scheme(&self) -> Scheme {
        Scheme::Basic
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Refuses a value that is longer than any name and password.
    fn measure(&self, bytes: usize) -> Result<(), Denied> {
        match bytes > VALUE_BYTES_MAX {
            true => Err(Denied::Credentials("malformed credentials: too long")),
            false => Ok(()),
        }
    }

    fn serial(&self) -> u64 {
        self.against.serial()
    }

    fn upholds(&self, user: &UserName, grounds: Grounds) -> bool {
        self.against.upholds(user, grounds)
    }

    fn knows(&self, user: &UserName) -> bool {
        self.against.knows(user)
    }

    fn look(&self, token: &[u8], now: (Instant, SystemTime)) -> Result<Arc<dyn Work>, Denied> {
        let shown = Credentials::read(token, self.default_domain.as_deref());
        self.against
            .work(shown.map_err(Denied::Credentials)?, now.0)
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
    fn read(token: &[u8], default_domain: Option<&str>) -> Result<Self, &'static str> {
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

/// The challenge line of a realm; `None` for a realm that cannot be said in a header.
fn challenge(realm: &str) -> Option<String> {
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
