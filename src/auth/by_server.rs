//! Basic by the word of a mailbox server: who may log on there with the password is known.
//!
//! The server is asked with a request of its own, before anything that the client sent goes anywhere: no mail is
//! touched, and nothing is done twice. Its yes is remembered like any other, and its no.

use super::Denied;
use super::basic::{Against, Credentials, WRONG};
use super::method::{Grounds, Judged, Proven, Work, serial};
use super::people::People;
use super::verify::Held;
use crate::ids::UserName;
use async_trait::async_trait;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use zeroize::Zeroizing;

/// Is told whose account a password is about; an error: no server must be asked.
pub type About<'a> = dyn Fn(&UserName) -> Result<(), Denied> + Send + Sync + 'a;

/// Asks mailbox servers whether a password is right.
#[async_trait]
pub trait Judge: fmt::Debug + Send + Sync {
    /// True where the server that knows this user takes the password; false where it says that name and password
    /// do not belong together. `about` is told the name of the account before a server is asked, where that is
    /// known.
    ///
    /// # Errors
    /// There is neither a yes nor a no, or `about` would not have the server asked.
    async fn is_right(&self, login: &Login, about: &About<'_>) -> Result<bool, Denied>;
}

/// A name and a password as somebody showed them.
pub struct Login {
    /// The canonical name, by which the user is known from then on.
    pub user: UserName,
    /// The password, UTF-8.
    pub password: Zeroizing<Vec<u8>>,
    /// When.
    pub asked_at: Instant,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Who asks the servers, once somebody can. Outlives a reload.
pub(super) type Bench = Arc<OnceLock<Arc<dyn Judge>>>;

/// Mailbox servers as what passwords are held against.
#[derive(Debug)]
pub(super) struct ByServer {
    bench: Bench,
    serial: u64,
}

impl ByServer {
    /// Nothing is asked yet. What servers said to `earlier` goes on being so.
    pub(super) fn new(bench: &Bench, earlier: Option<&Self>) -> Self {
        Self {
            bench: Arc::clone(bench),
            serial: earlier.map_or_else(serial, |earlier| earlier.serial),
        }
    }
}

impl Against for ByServer {
    fn serial(&self) -> u64 {
        self.serial
    }

    fn work(&self, shown: Credentials, now: Instant) -> Result<Arc<dyn Work>, Denied> {
        Ok(Arc::new(Hearing {
            login: Login {
                user: shown.user,
                password: shown.password,
                asked_at: now,
            },
            bench: Arc::clone(&self.bench),
            serial: self.serial,
        }))
    }
}

/// A name and a password on their way to a server.
struct Hearing {
    login: Login,
    bench: Bench,
    serial: u64,
}

#[async_trait]
impl Work for Hearing {
    fn queue(&self) -> Option<&UserName> {
        Some(&self.login.user)
    }

    async fn judge(self: Arc<Self>, people: Arc<People>, held: Held) -> Option<Judged> {
        // Before the server is asked: who is revoked meanwhile is not believed afterwards.
        let standing = people.standing(&self.login.user);
        let about = |account: &UserName| held.is_about(account);
        let told = match self.bench.get() {
            Some(judge) => judge.is_right(&self.login, &about).await,
            None => Err(Denied::Busy("nobody asks mailbox servers yet")),
        };
        Some(match told {
            Ok(true) => Judged::Proven(Proven {
                user: self.login.user.clone(),
                standing,
                grounds: Grounds(self.serial, 0),
                expires: None,
            }),
            Ok(false) => Judged::Wrong(Denied::Credentials(WRONG)),
            // A client told 401 would throw its password away.
            Err(denied) => Judged::NotNow(denied),
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]
mod tests {
    use super::super::tests::Site;
    use super::super::{Asker, AuthStep, Authenticator, Identity, Memo, Scheme};
    use super::*;
    use crate::config::settings::{BasicVerify, LockoutGuard};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use parking_lot::Mutex;
    use std::time::{Duration, SystemTime};

    /// A server that knows one password, and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Server {
        asked: Mutex<Vec<String>>,
        is_away: bool,
        account: Option<&'static str>,
    }

    #[async_trait]
    impl Judge for Server {
        async fn is_right(&self, login: &Login, about: &About<'_>) -> Result<bool, Denied> {
            if let Some(account) = self.account {
                about(&UserName::new(account))?;
            }
            self.asked.lock().push(login.user.to_string());
            match self.is_away {
                true => Err(Denied::Unavailable("away")),
                false => Ok(&**login.password == b"right"),
            }
        }
    }

    fn authenticator(server: Arc<Server>, keep: Option<&Authenticator>) -> Authenticator {
        let mut settings = Site::with(&[]).settings;
        settings.basic.as_mut().unwrap().verify = BasicVerify::Backend;
        settings.lockout_guard = Some(LockoutGuard {
            user_failures: 3,
            user_window: Duration::from_secs(600),
            per_source: None,
            delay: Duration::ZERO,
            delays_max: 0,
        });
        let auth = Authenticator::new(&settings, keep).unwrap();
        auth.appoint(server);
        auth
    }

    async fn show(auth: &Authenticator, login: &str) -> Result<Arc<Identity>, Denied> {
        let value = format!("Basic {}", STANDARD.encode(login));
        let asker = Asker {
            authorization: Some(value.as_bytes()),
            offered: &[Scheme::Basic],
            source: std::net::Ipv4Addr::LOCALHOST.into(),
            now: (Instant::now(), SystemTime::now()),
        };
        match auth.step(&asker, &mut Memo::default()) {
            AuthStep::Granted(identity) => Ok(identity),
            AuthStep::Verify(verification) => verification.run().await,
            AuthStep::Deny(_, denied) => Err(denied),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_server_is_asked_once_for_a_yes_and_once_for_a_no_even_over_a_reload() {
        let server = Arc::new(Server::default());
        let auth = authenticator(Arc::clone(&server), None);

        for _ in 0..3 {
            let known = show(&auth, "USER1:right").await.unwrap();
            assert_eq!(known.user.as_str(), "user1@contoso.test");
            assert_eq!(show(&auth, "user2:wrong").await.unwrap_err(), WRONG_ONE);
        }
        let reloaded = authenticator(Arc::new(Server::default()), Some(&auth));
        assert!(show(&reloaded, "USER1:right").await.is_ok());

        let asked = server.asked.lock();
        assert_eq!(*asked, ["user1@contoso.test", "user2@contoso.test"]);
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_no_no_and_is_asked_again() {
        let server = Arc::new(Server {
            is_away: true,
            ..Server::default()
        });
        let auth = authenticator(Arc::clone(&server), None);

        for _ in 0..5 {
            let denied = show(&auth, "user1:right").await.unwrap_err();
            assert_eq!(denied, Denied::Unavailable("away"));
        }
        assert_eq!(server.asked.lock().len(), 5);
    }

    #[tokio::test]
    async fn guesses_under_all_names_of_an_account_count_against_it() {
        let server = Arc::new(Server {
            account: Some("user1@contoso.test"),
            ..Server::default()
        });
        let auth = authenticator(Arc::clone(&server), None);

        for name in ["alias1", "alias2", "alias3", "alias4", "alias5"] {
            assert!(show(&auth, &format!("{name}:guess")).await.is_err());
        }

        assert_eq!(server.asked.lock().len(), 3);
    }

    const WRONG_ONE: Denied = Denied::Credentials(WRONG);
}
