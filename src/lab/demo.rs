//! The demo: a whole site goes through a bad day, and every promise made about it is checked.
//!
//! Three mailbox servers with a copy each of one database, mapigate as its own process, Outlooks behind a
//! network that can be cut. The story is told as it happens; the [`Facts`] at the end are the same for
//! people and for programs.
#![expect(
    clippy::disallowed_methods,
    reason = "a story takes its time, and tells how long"
)]

mod acts;
mod facts;
mod teller;
mod timeline;

pub use facts::{Code10s, Cost, Executes, Facts, Places, Promise, Recovery, Reloads, Sessions};
pub use teller::Teller;

use crate::ids::DatabaseName;
use crate::lab::checker::{self, Violation};
use crate::lab::crowd::{Crowd, Work};
use crate::lab::network::Network;
use crate::lab::site::{self, DATABASE, Plan, Site};
use crate::lab::{outlook, unix_micros};
use crate::mapi::Flavour;
use crate::mapi::bodies::{Body as _, ConnectRequest};
use anyhow::{Context, Result};
use facts::Spent;
use serde::Serialize;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How the demo is set up.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The program that is started as mapigate.
    pub program: PathBuf,
    /// Where the site's files go; made if missing.
    pub folder: PathBuf,
    /// Simulated Outlooks.
    pub outlooks: usize,
    /// Reloads of the storm.
    pub reloads: usize,
    /// Port of mapigate; 0 takes a free one.
    pub port: u16,
    /// Port of its admin address; 0 takes a free one.
    pub admin_port: u16,
}

/// Something that happened, for the timeline.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Microseconds since 1970.
    pub at: u64,
    /// What.
    pub words: String,
}

/// The running demo. Dropping it ends every process of it.
#[derive(Debug)]
pub struct Show {
    setting: Setting,
    teller: Teller,
    site: Site,
    network: Network,
    crowd: Crowd,
    marks: Vec<Mark>,
    promises: Vec<Promise>,
    spent: Spent,
    reloads: Reloads,
    recovery: Recovery,
    began: (Instant, u64),
}

impl Show {
    /// Starts the site and lets the Outlooks in.
    ///
    /// # Errors
    /// What could not be written or started.
    pub async fn open(setting: Setting, teller: Teller) -> Result<Self> {
        let began = (Instant::now(), unix_micros());
        let (port, admin_port) = (free(setting.port)?, free(setting.admin_port)?);
        let listener = format!(
            "[{{ address: '127.0.0.1:{port}', certificates: [{{ chain: mail.pem, key: mail.key }}] }}]"
        );
        let mut plan = Plan::new(Flavour::Exchange, &SERVERS)
            .each(|server| server.pending_period = Duration::from_secs(1))
            .section("listeners", &listener)
            .section("admin", &format!("{{ address: '127.0.0.1:{admin_port}' }}"))
            .section("health", "{ interval: 500ms, timeout: 500ms }");
        plan.back_tls = true;
        plan.users = setting.outlooks;
        let site = Site::start(&setting.program, &setting.folder, plan).await?;
        let network = Network::to(site.gate()?.address()).await?;
        let connect = ConnectRequest::of(&site.outlook_options(1)?.user_dn).encode();
        fs::write(setting.folder.join(CONNECT_BODY), connect).context(CONNECT_BODY)?;
        let members = (1..=setting.outlooks)
            .map(|number| behind(&network, &site, number))
            .collect::<Result<_>>()?;
        let work = Work {
            pause: Duration::from_millis(25),
            ..Work::default()
        };
        Ok(Self {
            crowd: Crowd::start(members, &work),
            setting,
            teller,
            site,
            network,
            marks: Vec::new(),
            promises: Vec::new(),
            spent: Spent::default(),
            reloads: Reloads::default(),
            recovery: Recovery::default(),
            began,
        })
    }

    /// Plays every act.
    ///
    /// # Errors
    /// What the story cannot go on without: a process that does not start, a reload that is refused.
    pub async fn play(&mut self) -> Result<()> {
        self.everybody_connects().await?;
        self.the_network_goes_away().await?;
        self.the_active_server_dies().await?;
        self.a_storm_of_reloads().await?;
        self.mapigate_is_killed().await
    }

    /// Lets everybody disconnect, compares the books, and says what came out. The site goes on.
    ///
    /// # Errors
    /// The timeline cannot be written, or mapigate does not tell its figures.
    pub async fn close(mut self) -> Result<(Facts, Site)> {
        self.act(6, "The books are compared");
        let gate = self.site.gate()?;
        self.spent.add(gate).await?;
        let address = gate.address();
        let counters: Vec<_> = self
            .crowd
            .members()
            .iter()
            .map(outlook::Outlook::counters)
            .collect();
        let (report, sent) = self.crowd.stop(Duration::from_secs(10)).await;
        let ended = unix_micros();
        let executed = self.site.server(SUCCESSOR)?.executed();
        let left_out: u64 = counters.iter().map(|counters| counters.sent_left_out).sum();
        let home = |_: &str| Some(DatabaseName::new(DATABASE));
        let violations = checker::check(&sent, &executed, home, self.site.history());
        let timeline = self.setting.folder.join(TIMELINE);
        let picture = timeline::svg(&sent, &self.marks, self.began.1, ended);
        fs::write(&timeline, picture).with_context(|| timeline.display().to_string())?;
        let facts = Facts {
            version: env!("CARGO_PKG_VERSION"),
            seconds: self.began.0.elapsed().as_secs_f64(),
            outlooks: self.setting.outlooks,
            servers: SERVERS.len(),
            requests: self.spent.requests,
            executes: Executes::of(&report, &sent, &executed),
            sessions: Sessions::of(&counters),
            code10s: Code10s::of(&counters),
            recovery: self.recovery,
            reloads: self.reloads,
            cost: self.spent.cost(),
            events: self.marks,
            promises: self.promises,
            violations,
            places: Places {
                mapi: format!("https://{}:{}/mapi/", site::HOST, address.port()),
                admin: format!("http://{}/", self.site.gate()?.admin().address()),
                folder: self.setting.folder.clone(),
                timeline,
            },
        };
        Ok((facts.judged(left_out, &self.teller), self.site))
    }

    fn act(&mut self, number: usize, title: &str) {
        self.teller.act(number, title);
    }

    fn says(&self, words: &str) {
        self.teller.says(words);
    }

    fn mark(&mut self, words: &str) {
        self.marks.push(Mark {
            at: unix_micros(),
            words: words.to_owned(),
        });
    }

    fn promise(&mut self, name: &'static str, is_kept: bool, words: &str) {
        self.teller.promise(is_kept, words);
        self.promises.push(Promise {
            name,
            is_kept,
            words: words.to_owned(),
        });
    }

    /// Waits until every Outlook has executed something since `before`; how long that took.
    async fn all_execute(
        &self,
        before: &[outlook::Counters],
        within: Duration,
    ) -> Option<Duration> {
        let began = Instant::now();
        let is_so = until(within, || {
            let members = self.crowd.members().iter().zip(before);
            let mut news = members.map(|(member, then)| (member.counters(), then));
            news.all(|(now, then)| now.executes_ok > then.executes_ok)
        })
        .await;
        is_so.then(|| began.elapsed())
    }

    fn counters(&self) -> Vec<outlook::Counters> {
        let members = self.crowd.members().iter();
        members.map(outlook::Outlook::counters).collect()
    }

    /// Waits until so many polls are held.
    async fn polls_held(&self, within: Duration) -> Result<bool> {
        let wanted = f64::from(u32::try_from(self.setting.outlooks)?);
        let end = Instant::now() + within;
        let admin = self.site.gate()?.admin();
        loop {
            if admin.metric("mapigate_held_polls").await? >= wanted {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            sleep(POLL).await;
        }
    }
}

/// A client of user `number` behind the network.
fn behind(network: &Network, site: &Site, number: usize) -> Result<outlook::Options> {
    let mut options = site.outlook_options(number)?;
    options.target.address = network.address();
    // Whoever waits for a failover asks often, so that what is measured is mapigate.
    options.pause_max = Duration::from_millis(100);
    Ok(options)
}

/// The port, or one that is free: chosen beforehand, because mapigate comes back to the same one.
fn free(port: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .with_context(|| format!("port {port} of 127.0.0.1"))?;
    Ok(listener.local_addr()?.port())
}

/// Waits until something is so; false where it is not within this time.
async fn until(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        sleep(POLL).await;
    }
    true
}

/// The mailbox servers, in the order in which their copies are activated.
const SERVERS: [&str; 3] = ["MBX1", "MBX2", "MBX3"];
const FIRST: &str = "MBX1";
const SUCCESSOR: &str = "MBX2";
/// How often something is looked at.
const POLL: Duration = Duration::from_millis(10);
/// The picture, in the site's folder.
const TIMELINE: &str = "timeline.svg";
/// The body of a Connect of user 1, in the site's folder.
pub const CONNECT_BODY: &str = "connect.bin";

/// What was broken, in a line each.
pub fn broken(promises: &[Promise], violations: &[Violation]) -> Vec<String> {
    let promises = promises
        .iter()
        .filter(|promise| !promise.is_kept)
        .map(|promise| format!("{}: {}", promise.name, promise.words));
    let violations = violations.iter().map(ToString::to_string);
    promises.chain(violations).collect()
}
