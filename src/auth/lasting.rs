//! That somebody who was let in may stay, for what lasts longer than a request.

use super::Authenticator;
use super::cache::Beliefs;
use super::people::Standing;
use crate::ids::UserName;
use std::sync::Arc;

/// A user as let in now. To be asked from time to time; costs a lock each time it is made, and no more than a few loads
/// when it is asked.
pub struct Lasting {
    standing: Standing,
    beliefs: Arc<Beliefs>,
    epoch: u64,
}

impl Lasting {
    /// Neither this user nor everybody has been revoked since.
    pub fn stands(&self) -> bool {
        self.standing.stands() && self.beliefs.epoch() == self.epoch
    }
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lasting").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Notes that this user is let in, for something that lasts. A configuration that remembers otherwise begins to
    /// remember anew: whoever keeps this takes another one from it then.
    pub fn lasting(&self, user: &UserName) -> Lasting {
        let beliefs = &self.memory.beliefs;
        Lasting {
            standing: beliefs.people().standing(user),
            epoch: beliefs.epoch(),
            beliefs: Arc::clone(beliefs),
        }
    }
}
