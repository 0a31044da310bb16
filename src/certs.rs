//! rustls configurations from the certificates of the settings.
