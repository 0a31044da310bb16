//! Basic against the password file.

use super::basic::{Against, Credentials, WRONG};
use super::method::{Grounds, Judged, Proven, Work};
use super::passwords::{self, Passwords};
use super::people::People;
use super::verify::{Held, aside};
use super::{AuthError, Denied};
use crate::ids::UserName;
use async_trait::async_trait;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// The password file as the settings name it.
#[derive(Debug)]
pub(super) struct ByFile {
    passwords: Arc<Passwords>,
    /// Chooses whose hash an unknown name is held against.
    lots: RandomState,
}

impl ByFile {
    /// Reads the password file; accounts that did not change go on being those of `earlier`. Blocks on
    /// the disk.
    pub(super) fn new(
        file: &Path,
        domain: Option<&str>,
        earlier: Option<&Self>,
    ) -> Result<Self, AuthError> {
        let passwords = passwords::read(file, domain).map_err(|problems| AuthError::Passwords {
            file: file.to_owned(),
            problems,
        })?;
        Ok(Self {
            passwords: match earlier {
                Some(earlier) => passwords.succeed(&earlier.passwords),
                None => Arc::new(passwords),
            },
            lots: earlier.map_or_else(RandomState::new, |earlier| earlier.lots.clone()),
        })
    }
}

impl Against for ByFile {
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

    fn work(&self, shown: Credentials, _now: Instant) -> Result<Arc<dyn Work>, Denied> {
        let Credentials { user, password } = shown;
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
