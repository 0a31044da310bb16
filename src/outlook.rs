//! A small real client of MAPI over HTTP: its connections, and the session contexts it keeps on them.
//!
//! It says what it is told to say and cures nothing: whoever uses it decides what to do when something fails. The
//! lab's Outlooks add the protocol's own ways back, the probe adds explanations.

pub mod line;
pub mod rops;
pub mod session;
pub mod tap;
pub mod wire;

pub use line::{Answer, AnswerHead, Failure, Line, Tagged, Target, dial};
pub use session::{CookieLines, Letterhead, Request, Session};
pub use wire::Wire;
