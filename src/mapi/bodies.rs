//! Fixed bodies of requests and answers: read and written byte for byte.
