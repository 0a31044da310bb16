//! `make bench`: mapigate, nginx and HAProxy on the same work, in the same minutes, on the same core.
//!
//! The program starts everything it needs on 127.0.0.1: mailbox servers that cost almost nothing,
//! the proxies, and generators of load. Each of them is a process of its own, because the proxy
//! under test must have a core to itself; the simulator and the generators are this program again,
//! started with a hidden first argument. What counts is the CPU time of the proxy per request, and its ratio to
//! nginx in the same round: microseconds move with the neighbours on a shared machine, ratios far less.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench is read on the terminal"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a bench measures time, and waits for programs that cannot tell when they are ready"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people: counts below 2^52 become floating point and back"
)]

mod answer;
mod chart;
mod client;
mod cpu;
mod handshakes;
mod launch;
mod load;
mod peers;
mod plan;
mod polls;
mod report;
mod rounds;
mod site;
mod tables;
mod upstream;

use anyhow::Context as _;
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some(launch::RUN) => launch::become_program(&arguments),
        Some(upstream::NAME) => upstream::run(&arguments),
        Some(load::NAME) => launch::answer(&arguments, load::run),
        Some(polls::NAME) => launch::answer(&arguments, polls::run),
        Some(handshakes::NAME) => launch::answer(&arguments, handshakes::run),
        // `cargo bench` says so; `cargo test --all-targets` does not, and nobody waits ten minutes for it.
        None => {
            println!(
                "a benchmark: run it with `make bench`, or `make bench-smoke` for a minute's check"
            );
            return ExitCode::SUCCESS;
        }
        Some(_) => return bench(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the arguments ask for; fails when a request failed under load, not when a target was missed.
fn bench() -> ExitCode {
    let plan = match plan::Arguments::try_parse() {
        Ok(arguments) => plan::Plan::from(arguments),
        Err(words) => {
            let _ = words.print();
            return if words.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if plan.peers.is_empty() || plan.parts.is_empty() {
        eprintln!("nothing to run: no part and proxy fits these arguments");
        return ExitCode::from(2);
    }
    launch::notice_interrupts();
    let done = site::Site::build(&plan)
        .context("preparing")
        .and_then(|site| rounds::run(&plan, &site))
        .and_then(|results| {
            tables::print(&plan, &results);
            chart::write(&plan, &results)?;
            tables::write_json(&plan, &results)?;
            Ok(results.errors())
        });
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("{errors} failures under load");
            ExitCode::FAILURE
        }
        Err(cause) => {
            eprintln!("the bench could not go on: {cause:#}");
            ExitCode::FAILURE
        }
    }
}
