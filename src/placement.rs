//! Which server holds the active copy of each database.
