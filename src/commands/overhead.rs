//! `mapigate overhead`: what MAPI over HTTP costs beside RPC over HTTP, measured on this machine.

use super::say::say;
use super::unless_ended;
use crate::lab::demo::Teller;
use crate::lab::overhead::{self, Setting};
use anyhow::{Context as _, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::time::Instant;

/// What `mapigate overhead` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct OverheadArgs {
    /// Print what came out as one JSON object; progress goes to standard error
    #[arg(long)]
    pub json: bool,

    /// Draw overhead against payload into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Rounds of the processor's account; bytes need one, for they are the same every time
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub rounds: u16,

    /// One short round: enough to see that it runs, too little for the processor's account
    #[arg(long, conflicts_with = "rounds")]
    pub quick: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 measured, 1 something did not start, or bytes did not add up.";

/// Measures, and says what came out.
///
/// # Errors
/// What could not be started or written, or bytes that did not add up.
pub fn run(args: &OverheadArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(unless_ended(measure(args)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "who waits is told how long it has taken"
)]
async fn measure(args: &OverheadArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let folder = Folder::new()?;
    let setting = Setting {
        program: std::env::current_exe().context("our own program")?,
        folder: folder.0.clone(),
        rounds: if args.quick {
            1
        } else {
            usize::from(args.rounds)
        },
        is_quick: args.quick,
    };
    let teller = Teller::stderr(began);
    let mut facts = overhead::measure(&setting, &teller).await?;
    facts.seconds = began.elapsed().as_secs_f64();
    if let Some(path) = &args.svg {
        fs::write(path, overhead::svg(&facts)).with_context(|| path.display().to_string())?;
    }
    say(&match args.json {
        true => serde_json::to_string_pretty(&facts)?,
        false => overhead::table(&facts),
    });
    Ok(ExitCode::SUCCESS)
}

/// A new folder, readable by its owner only, for it holds private keys; gone when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let name = format!("mapigate-overhead-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whoever has removed it already was quicker.
        let _gone = fs::remove_dir_all(&self.0);
    }
}
