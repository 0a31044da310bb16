//! Where a mailbox lives, as files say.
