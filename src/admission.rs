//! May this user, this server take one more request?
