//! The words we use and the life of a request.
