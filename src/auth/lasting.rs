//! That somebody who was let in may stay, for what lasts longer than a request.

use super::Authenticator;
use super::people::{People, Standing};
use crate::ids::UserName;
use std::sync::Arc;

/// A user as let in now. To be asked from time to time; costs a lock each time it is made, and no more than a few loads
/// when it is asked.
pub struct Lasting {
    standing: Standing,
    people: Arc<People>,
    epoch: u64,
}

impl Lasting {
    /// Neither this user nor everybody has been revoked since.
    pub fn stands(&self) -> bool {
        self.standing.stands() && self.people.epoch() == self.epoch
    }
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lasting").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Notes that this user is let in, for something that lasts. Good under every later configuration.
    pub fn lasting(&self, user: &UserName) -> Lasting {
        let people = self.memory.beliefs.people();
        Lasting {
            standing: people.standing(user),
            epoch: people.epoch(),
            people: Arc::clone(people),
        }
    }
}
