//! `mapigate schema`: the keys of the configuration, for editors and for people.

use crate::config::{reference, schema};
use std::io::Write as _;
use std::process::ExitCode;

/// What `mapigate schema` is asked.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct SchemaArgs {
    /// A YAML file with every key, its sentence and its default, instead of the JSON Schema
    #[arg(long)]
    pub reference: bool,
}

/// Prints the JSON Schema (draft 2020-12), or the reference file.
pub fn run(args: SchemaArgs) -> ExitCode {
    let text = if args.reference {
        reference::text()
    } else {
        format!("{:#}\n", schema::schema())
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
