//! Which database, server and user a session cookie stands for.
