//! A whole site in one folder: an authority, mailbox servers in this process, mapigate in its own.
//!
//! The same code serves the demo, the tests and the benches; what it writes is what an administrator
//! would write.
#![expect(
    clippy::disallowed_methods,
    reason = "a site waits for its front end by the clock"
)]

mod files;
pub mod people;
mod process;

pub use process::{Admin, Gate};

use crate::ids::{DatabaseName, ServerName, UserName};
use crate::lab::authority::Authority;
use crate::lab::checker::{History, Owned};
use crate::lab::mailbox_server::{self, Journal, MailboxServer, Users};
use crate::lab::outlook::{self, Outlook, Target};
use crate::mapi::Flavour;
use anyhow::{Context, Result, anyhow};
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name clients know the site by.
pub const HOST: &str = "mail.contoso.test";
/// The domain of its users.
pub const DOMAIN: &str = "contoso.test";
/// Its database.
pub const DATABASE: &str = "DB07";
/// Everybody's password.
pub const PASSWORD: &str = "correct horse";

/// What a site looks like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Mailbox servers. The first holds the active copy.
    pub servers: Vec<mailbox_server::Options>,
    /// TLS between mapigate and the servers.
    pub back_tls: bool,
    /// The servers demand mapigate's certificate, with [`Self::back_tls`].
    pub back_certificate: bool,
    /// Names on the certificate of mapigate beside [`HOST`].
    pub more_names: Vec<String>,
    /// Users, `user1` and up, each with a mailbox.
    pub users: usize,
    /// Sections of the configuration in place of ours, by name: their YAML, indented by two.
    pub sections: BTreeMap<&'static str, String>,
    /// Keys of each server beside its address, as in a flow mapping: `requests_max: 3`. `{server}` stands for its
    /// name in lower case.
    pub server_keys: String,
    /// Environment of mapigate.
    pub environment: Vec<(String, String)>,
    /// What mapigate is started through, such as `prlimit --nofile=64`; it must become mapigate.
    pub wrapper: Vec<String>,
}

impl Plan {
    /// Servers of one flavour, all with a copy of the one database.
    pub fn new(flavour: Flavour, names: &[&str]) -> Self {
        let journal = Journal::default();
        let servers = names.iter().map(|name| {
            let mut options = mailbox_server::Options::new(name, flavour);
            // One journal for all: what ran twice shows, wherever it ran.
            options.journal = journal.clone();
            options.default_database = Some(DatabaseName::new(DATABASE));
            options
        });
        Self {
            servers: servers.collect(),
            back_tls: false,
            back_certificate: false,
            more_names: Vec::new(),
            users: 20,
            sections: BTreeMap::new(),
            server_keys: String::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Changes every server.
    #[must_use]
    pub fn each(mut self, change: impl Fn(&mut mailbox_server::Options)) -> Self {
        self.servers.iter_mut().for_each(change);
        self
    }

    /// Puts a section of the configuration in place of ours.
    #[must_use]
    pub fn section(mut self, name: &'static str, yaml: &str) -> Self {
        self.sections.insert(name, yaml.to_owned());
        self
    }
}

/// A running site. Dropping it ends every process of it and leaves the folder.
#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
    plan: Plan,
    authority: Authority,
    client: Arc<ClientConfig>,
    servers: BTreeMap<String, MailboxServer>,
    active: String,
    history: History,
    gate: Option<Gate>,
    program: PathBuf,
}

impl Site {
    /// Starts the servers and mapigate, and waits until it is ready.
    ///
    /// # Errors
    /// What could not be written or started; mapigate's own words where it did not come up.
    pub async fn start(program: &Path, folder: &Path, plan: Plan) -> Result<Self> {
        let authority = Authority::new("lab")?;
        let client = authority.client_config()?;
        let active = plan.servers.first().map(|first| first.name.to_string());
        let active = active.ok_or_else(|| anyhow!("a site needs a mailbox server"))?;
        let mut site = Self {
            folder: folder.to_owned(),
            plan,
            authority,
            client,
            servers: BTreeMap::new(),
            active: active.clone(),
            history: History::default(),
            gate: None,
            program: program.to_owned(),
        };
        for options in site.plan.servers.clone() {
            site.spawn_server(options).await?;
        }
        let now = crate::lab::unix_micros();
        site.own(&active, now, now);
        files::write(&site)?;
        site.start_gate(false).await?;
        Ok(site)
    }

    async fn spawn_server(&mut self, mut options: mailbox_server::Options) -> Result<()> {
        let name = options.name.to_string();
        if self.plan.back_tls && options.tls.is_none() {
            let names = [options.host.as_str()];
            options.tls = Some(match self.plan.back_certificate {
                true => self.authority.strict_server_config(&names)?,
                false => self.authority.server_config(&names)?,
            });
        }
        if matches!(options.users, Users::Any) {
            let users = 1..=self.plan.users;
            let listed = users.map(|number| (UserName::new(user(number)), PASSWORD.to_owned()));
            options.users = Users::Listed(listed.collect());
        }
        if name == self.active {
            options.databases.insert(DatabaseName::new(DATABASE));
        }
        let server = MailboxServer::spawn(options)
            .await
            .with_context(|| format!("mailbox server {name}"))?;
        self.servers.insert(name, server);
        Ok(())
    }

    /// Starts mapigate on the site's files; with `takes_over`, beside the one that runs.
    ///
    /// # Errors
    /// mapigate's own words where it did not come up.
    pub async fn start_gate(&mut self, takes_over: bool) -> Result<()> {
        let gate = Gate::start(&self.program, &self.folder, &self.plan, takes_over).await?;
        self.gate = Some(gate);
        Ok(())
    }

    /// mapigate.
    ///
    /// # Errors
    /// It was stopped.
    pub fn gate(&self) -> Result<&Gate> {
        self.gate
            .as_ref()
            .ok_or_else(|| anyhow!("mapigate is stopped"))
    }

    /// Takes mapigate out, to stop or kill it.
    pub fn take_gate(&mut self) -> Option<Gate> {
        self.gate.take()
    }

    /// A mailbox server by name.
    ///
    /// # Errors
    /// It was killed, or never was.
    pub fn server(&self, name: &str) -> Result<&MailboxServer> {
        self.servers
            .get(name)
            .ok_or_else(|| anyhow!("no mailbox server {name}"))
    }

    /// All that run.
    pub fn servers(&self) -> impl Iterator<Item = &MailboxServer> {
        self.servers.values()
    }

    /// Kills a mailbox server as `kill -9` would.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill_server(&mut self, name: &str) -> Result<()> {
        let server = self
            .servers
            .remove(name)
            .ok_or_else(|| anyhow!("no mailbox server {name}"))?;
        server.kill().await;
        Ok(())
    }

    /// Starts a killed server again where it was, with no memory of its sessions.
    ///
    /// # Errors
    /// Its address is taken meanwhile.
    pub async fn revive_server(&mut self, name: &str) -> Result<()> {
        let options = self
            .plan
            .servers
            .iter()
            .find(|options| options.name.as_str() == name)
            .cloned();
        let mut options = options.ok_or_else(|| anyhow!("no mailbox server {name}"))?;
        options.listen = files::address_of(&self.folder, name)?;
        self.spawn_server(options).await
    }

    /// The server that holds the active copy.
    pub fn active(&self) -> &str {
        &self.active
    }

    /// Moves the active copy: the servers first, then the map, then the word to mapigate.
    ///
    /// # Errors
    /// The file cannot be written, or mapigate refuses it.
    pub async fn move_database(&mut self, to: &str) -> Result<()> {
        for server in self.servers.values() {
            server.set_active(DATABASE, server.name().as_str() == to);
        }
        self.active = to.to_owned();
        let published = crate::lab::unix_micros();
        files::write_databases(self)?;
        self.gate()?.admin().reload().await?;
        self.own(to, published, crate::lab::unix_micros());
        Ok(())
    }

    fn own(&mut self, server: &str, published: u64, acknowledged: u64) {
        let (database, server) = (DatabaseName::new(DATABASE), ServerName::new(server));
        self.history.add(Owned {
            database,
            server,
            published,
            acknowledged,
        });
    }

    /// Which server was right when.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A client of user `number`, through mapigate.
    ///
    /// # Errors
    /// mapigate is stopped.
    pub fn outlook(&self, number: usize) -> Result<Outlook> {
        Ok(Outlook::new(self.outlook_options(number)?))
    }

    /// How such a client is set up.
    ///
    /// # Errors
    /// mapigate is stopped.
    pub fn outlook_options(&self, number: usize) -> Result<outlook::Options> {
        Ok(outlook::Options::new(
            self.target()?,
            &user(number),
            PASSWORD,
            &mailbox(number),
        ))
    }

    /// Where clients connect to.
    ///
    /// # Errors
    /// mapigate is stopped.
    pub fn target(&self) -> Result<Target> {
        Ok(Target {
            address: self.gate()?.address(),
            host: HOST.to_owned(),
            tls: Some(self.client.clone()),
        })
    }

    /// Who signs the site's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The TLS of the site's clients.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How it was planned.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Every line of the access log so far.
    ///
    /// # Errors
    /// A line that is not JSON.
    pub fn access_lines(&self) -> Result<Vec<serde_json::Value>> {
        let path = self.folder.join(files::ACCESS_LOG);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }
}

/// The login name of user `number`.
pub fn user(number: usize) -> String {
    format!("user{number}@{DOMAIN}")
}

/// The `MailboxId` of user `number`.
pub fn mailbox(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}@{DOMAIN}")
}

/// The distinguished name of user `number` in the address book.
pub fn legacy_dn(number: usize) -> String {
    format!(
        "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=user{number}"
    )
}
