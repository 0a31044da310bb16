//! What MAPI over HTTP costs beside RPC over HTTP: the same work in both, every byte weighed.
//!
//! MAPI over HTTP goes through a mapigate of its own process to a simulated mailbox server; RPC over HTTP goes from client
//! to server directly. Both speak TLS over real sockets, through a network that weighs what it carries; what was said inside
//! of TLS is heard by a tap and told apart by kinds; and the two must agree to the byte.

mod chart;
mod claims;
mod facts;
pub mod kinds;
mod legs;
mod mapi;
mod processor;
pub mod rpc;
#[cfg(test)]
mod samples;
mod sessions;
mod table;
mod tunnel;
mod wire;
pub mod work;

pub use chart::svg;
pub use facts::{
    BASIC, BEARER, Check, Claim, ConnectionFacts, CpuFacts, Facts, InterruptedFacts, KERBEROS,
    MAPI, RPC, RPC_SEALED, Row, SessionFacts, WorkFacts,
};
pub use table::table;

use crate::lab::demo::Teller;
use crate::lab::rpc_http::RpcServer;
use crate::lab::rpc_http::server;
use crate::lab::site::{HOST, Plan, Site};
use crate::mapi::Flavour;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;
use work::Work;

/// Bytes of a line `Authorization` with a bearer token: an RS256 token of 1.7 KB with the claims of a mail client.
pub const BEARER_LINE: u64 = 1_800;
/// Bytes of a line `Authorization` with a Kerberos ticket of a user in many groups. With hardly any group it is 2,000,
/// with very many 64,000.
pub const KERBEROS_LINE: u64 = 6_000;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The program that is started as mapigate.
    pub program: PathBuf,
    /// Where the site's files go; made if missing.
    pub folder: PathBuf,
    /// Rounds of the processor's account.
    pub rounds: usize,
    /// Less work in each, for those who only want to see that it runs.
    pub is_quick: bool,
}

/// Everything that takes part.
#[derive(Debug)]
struct Stage {
    site: Site,
    /// RPC over HTTP behind TLS of its own.
    rpc: RpcServer,
    /// RPC over HTTP without TLS, behind the stand-in.
    rpc_plain: RpcServer,
    rounds: usize,
    is_quick: bool,
}

/// Measures everything.
///
/// # Errors
/// What could not be started, an answer that is wrong, or bytes that do not add up.
pub async fn measure(setting: &Setting, teller: &Teller) -> Result<Facts> {
    let stage = Stage::set(setting).await?;
    teller
        .says("a mapigate with one mailbox server for MAPI/HTTP, and a server for RPC/HTTP are up");
    let mut works = Vec::new();
    for work in Work::ALL {
        let facts = wire::weigh(&stage, &work).await?;
        teller.says(&wire::told(&facts));
        works.push(facts);
    }
    let check = wire::check(&stage, &works).await?;
    teller.says(&format!(
        "longer credentials: {} bytes computed, {} measured",
        check.computed, check.measured
    ));
    let mapigate_adds = wire::added(&stage, &works).await?;
    let (sessions, connections) = sessions::weigh(&stage).await?;
    let interrupted = sessions::interrupt(&stage).await?;
    teller.says("sessions opened, cut off, resumed and rebuilt");
    let cpu = processor::account(&stage, teller).await?;
    let mut facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        seconds: 0.0,
        rounds: setting.rounds,
        work: works,
        sessions,
        interrupted,
        connections,
        cpu,
        check,
        mapigate_adds,
        published: Vec::new(),
        notes: claims::notes(),
    };
    facts.published = claims::beside(&facts);
    Ok(facts)
}

impl Stage {
    async fn set(setting: &Setting) -> Result<Self> {
        let mut plan = Plan::new(Flavour::Exchange, &[SERVER]).each(|server| {
            server.writes_journal = false;
            server.heads_kept = 0;
            // No sign of life falls into what is weighed.
            server.pending_period = Duration::from_secs(300);
        });
        // As many threads for connections as the stand-in has.
        plan = plan.section("workers", "1");
        plan.users = 4;
        let site = Site::start(&setting.program, &setting.folder, plan).await?;
        let mut options = server::Options::new(SERVER);
        let rpc_plain = RpcServer::spawn(options.clone()).await?;
        options.tls = Some(site.authority().server_config(&[HOST])?);
        let rpc = RpcServer::spawn(options).await?;
        Ok(Self {
            site,
            rpc,
            rpc_plain,
            rounds: setting.rounds,
            is_quick: setting.is_quick,
        })
    }
}

/// Both servers have the same name, so that their answers are the same bytes.
const SERVER: &str = "MBX1";
