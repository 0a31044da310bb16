//! What an authentication scheme is to the chain: a challenge, a cheap look, slow work.
//!
//! A scheme is a file of its own that implements [`Method`], and a field of `Schemes`. Memory, queues,
//! revocation and time are the chain's business: a scheme says who is proven, by what, and until when.

use super::people::{People, Standing};
use super::verify::Held;
use super::{Denied, Scheme};
use crate::ids::UserName;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

/// A scheme as the settings shape it.
pub(super) trait Method: fmt::Debug + Send + Sync {
    /// Which scheme it is.
    fn scheme(&self) -> Scheme;

    /// The challenge, a whole header line with its line end.
    fn challenge(&self) -> &str;

    /// The challenge to somebody whose credential of this scheme was refused.
    fn challenge_to_refused(&self) -> &str {
        self.challenge()
    }

    /// Refuses an `Authorization` value of so many bytes that it is not even looked at.
    fn measure(&self, bytes: usize) -> Result<(), Denied>;

    /// Changes whenever what is believed or disbelieved may rest on nothing any more; see [`serial`].
    /// Read with every request.
    fn serial(&self) -> u64;

    /// True while these grounds still prove this user.
    fn upholds(&self, user: &UserName, grounds: Grounds) -> bool;

    /// True where the scheme itself lists its users, and this is one of them.
    fn knows(&self, user: &UserName) -> bool;

    /// Reads what stands behind the scheme word. Takes microseconds, waits for nothing and proves
    /// nothing; what is refused here is not remembered.
    fn look(&self, token: &[u8], now: (Instant, SystemTime)) -> Result<Arc<dyn Work>, Denied>;
}

/// A credential that was read, and that only slow work can judge.
#[async_trait]
pub(super) trait Work: Send + Sync {
    /// Whose turn it takes: verifications of one user run one after the other. `None` where a
    /// verification costs so little that nobody can keep others waiting with it.
    fn queue(&self) -> Option<&UserName>;

    /// Whose account a wrong guess is counted against, where guessing can do harm: passwords can be
    /// guessed, and domains lock accounts over it; tokens cannot.
    fn suspect(&self) -> Option<&UserName> {
        self.queue()
    }

    /// Waits for what [`Self::judge`] needs. Holds up nobody: no turn is taken yet.
    async fn ready(&self) -> Result<(), Denied> {
        Ok(())
    }

    /// Judges the credential. Where a directory tells another name of the account, [`Held::is_about`] is
    /// told before the verifier is asked. Processor work goes through [`super::verify::aside`]. `None` where it was
    /// interrupted and nothing is known.
    async fn judge(self: Arc<Self>, people: Arc<People>, held: Held) -> Option<Judged>;
}

/// What came of slow work.
pub(super) enum Judged {
    /// It proves somebody.
    Proven(Proven),
    /// It proves nothing, and will not before the method's serial changes.
    Wrong(Denied),
    /// It proves nothing now; the same credential is judged anew the next time.
    NotNow(Denied),
}

/// Somebody who is proven.
pub(super) struct Proven {
    /// The canonical name.
    pub(super) user: UserName,
    /// Taken before the user was judged: who is revoked meanwhile is not believed afterwards.
    pub(super) standing: Standing,
    /// What proved it.
    pub(super) grounds: Grounds,
    /// When it stops proving it, where the credential itself says so.
    pub(super) expires: Option<SystemTime>,
}

/// What a belief rests on: numbers out of [`serial`] that a scheme gives to its accounts, rules, keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grounds(pub(super) u64, pub(super) u64);

/// A number that was never given before.
pub(super) fn serial() -> u64 {
    NEXT_SERIAL.fetch_add(1, Ordering::Relaxed)
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);
