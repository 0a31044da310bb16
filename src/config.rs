//! The configuration: text as operators write it in, settings that are true out, or every problem at once.

pub mod settings;

pub use settings::Settings;
