//! mapigate in front of a mailbox server, with the keys of the lab's domain.

use crate::lab::{DOMAIN, Lab, PASSWORD, REALM};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::{Service, Users};
use mapigate::lab::site::{HOST, Plan, Site};
use mapigate::mapi::Flavour;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Command;

/// A site in a folder that goes with it.
pub(crate) struct AdSite {
    site: Site,
    pub(crate) lab: Lab,
    folder: TempDir,
}

impl Deref for AdSite {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for AdSite {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

/// What a site is to offer.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// `names[].authentication`.
    pub(crate) schemes: &'static str,
    /// More keys of `auth.negotiate`, as in a flow mapping.
    pub(crate) negotiate: String,
    /// `auth.ntlm`, as a flow mapping.
    pub(crate) ntlm: Option<&'static str>,
    /// Of `auth` itself.
    pub(crate) auth: &'static str,
    /// The keytab, where it is not the lab's.
    pub(crate) keytab: Option<PathBuf>,
}

impl Offer {
    /// These schemes in this order.
    pub(crate) fn of(schemes: &'static str) -> Self {
        Self {
            schemes,
            negotiate: String::new(),
            ntlm: None,
            auth: "",
            keytab: None,
        }
    }

    fn section(&self, lab: &Lab) -> String {
        let keytab = self.keytab.clone();
        let keytab = keytab.unwrap_or_else(|| lab.path("mail.keytab"));
        let mut text = format!(
            "  basic: {{ password_file: users.htpasswd, default_domain: {DOMAIN} }}\n{}",
            self.auth
        );
        if self.schemes.contains("negotiate") {
            text.push_str(&format!(
                "  negotiate:\n    keytab: {}\n    replay_cache: file2:RCACHE\n    \
                 realm_map: {{ {REALM}: {DOMAIN}, CONTOSO: {DOMAIN} }}\n{}",
                keytab.display(),
                self.negotiate
            ));
        }
        if let Some(ntlm) = self.ntlm {
            text.push_str(&format!("  ntlm: {ntlm}\n"));
        }
        text
    }
}

/// The keys of raw NTLM against the lab.
pub(crate) const NTLM: &str = "{ realm_map: { CONTOSO: contoso.test } }";

/// Starts a site that offers this.
pub(crate) async fn start(offer: Offer) -> AdSite {
    start_with(offer, |plan| plan).await
}

/// The same with a plan that is changed.
pub(crate) async fn start_with(offer: Offer, change: impl FnOnce(Plan) -> Plan) -> AdSite {
    start_by(Path::new(PROGRAM), offer, change).await
}

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mapigate");

/// The same by another program, which becomes mapigate.
pub(crate) async fn start_by(
    program: &Path,
    offer: Offer,
    change: impl FnOnce(Plan) -> Plan,
) -> AdSite {
    let lab = Lab::find();
    let folder = tempfile::tempdir().unwrap();
    let (service, secret) = ("svc@contoso.test", "service secret");
    let listed = BTreeMap::from([(UserName::new(service), secret.to_owned())]);
    let cache = folder.path().join("rcache2").display().to_string();
    let mut plan = Plan::new(Flavour::Exchange, &["MBX1"])
        .each(|server| {
            server.users = Users::Listed(listed.clone());
            server.service = Some(Service {
                user: UserName::new(service),
                header: "X-Remote-User".to_owned(),
            });
        })
        .section(
            "names",
            &format!("  - host: {HOST}\n    authentication: [{}]", offer.schemes),
        )
        .section(
            "directory",
            "  default_databases: { contoso.test: DB07 }\n  access: backend",
        )
        .section("auth", &offer.section(&lab).replace("RCACHE", &cache))
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc@contoso.test, password: '${SECRET}' }",
        );
    plan.environment = vec![("SECRET".to_owned(), secret.to_owned()), lab.environment()];
    let site = up(program, folder.path(), change(plan)).await;
    AdSite { site, lab, folder }
}

/// A site that runs in this folder.
pub(crate) async fn up(program: &Path, folder: &Path, plan: Plan) -> Site {
    match Site::start(program, folder, plan).await {
        Ok(site) => site,
        Err(error) => panic!("{error:#}"),
    }
}

/// curl on its way to a site, with all that it takes to find and to believe it; [`url`] has the rest.
pub(crate) fn curl(site: &Site) -> Command {
    let address = site.gate().unwrap().address();
    let resolve = format!("{HOST}:{}:{}", address.port(), address.ip());
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "30", "--cacert", "ca.pem"])
        .args(["--resolve", &resolve])
        .current_dir(site.folder())
        .kill_on_drop(true);
    command
}

/// Where a path of a site is.
pub(crate) fn url(site: &Site, path: &str) -> String {
    let port = site.gate().unwrap().address().port();
    format!("https://{HOST}:{port}{path}")
}

/// What makes curl send a PING.
pub(crate) const PING: [&str; 14] = [
    "-X",
    "POST",
    "-d",
    "",
    "-H",
    "Content-Type: application/mapi-http",
    "-H",
    "X-RequestType: PING",
    "-H",
    "X-ClientInfo: {c}:1",
    "-H",
    "X-RequestId: {00000000-0000-4000-8000-000000000000}:1",
    "-H",
    "X-ClientApplication: Outlook/16.0.0.0",
];

/// What curl got.
#[derive(Debug)]
pub(crate) struct Got {
    /// Status of every answer, in order.
    pub(crate) statuses: Vec<u16>,
    /// Connections that were made.
    pub(crate) connections: usize,
    /// Heads and bodies of all answers.
    pub(crate) text: String,
    /// What curl said of its work.
    pub(crate) verbose: String,
}

impl Got {
    /// The status of the last answer.
    pub(crate) fn status(&self) -> u16 {
        self.statuses.last().copied().unwrap_or(0)
    }
}

impl AdSite {
    /// The tickets of a user, made anew.
    pub(crate) fn tickets(&self, user: &str) -> PathBuf {
        let path = self.folder.path().join(format!("tickets.{user}"));
        if !path.exists() {
            self.lab.log_on(user, PASSWORD, &path);
        }
        path
    }

    /// curl, as a person would use it: `times` PINGs on one connection if it can keep it.
    pub(crate) async fn curl(&self, tickets: Option<&Path>, times: usize, words: &[&str]) -> Got {
        self.curl_with(tickets, times, words, &[]).await
    }

    /// The same in this environment.
    pub(crate) async fn curl_with(
        &self,
        tickets: Option<&Path>,
        times: usize,
        words: &[&str],
        environment: &[(&str, &str)],
    ) -> Got {
        let mailbox = format!("00000000-0000-4000-8000-000000000001@{DOMAIN}");
        self.curl_for(&mailbox, tickets, times, words, environment)
            .await
    }

    /// The same for this mailbox.
    pub(crate) async fn curl_for(
        &self,
        mailbox: &str,
        tickets: Option<&Path>,
        times: usize,
        words: &[&str],
        environment: &[(&str, &str)],
    ) -> Got {
        let url = url(self, &format!("/mapi/emsmdb/?MailboxId={mailbox}"));
        let (name, value) = self.lab.environment();
        let tickets = tickets.map_or("/nonexistent".to_owned(), |path| path.display().to_string());
        let mut command = curl(self);
        command
            .envs(environment.iter().copied())
            .env(name, value)
            .env("KRB5CCNAME", format!("FILE:{tickets}"))
            .args(["-i", "-v"])
            .args(PING)
            .args(words)
            .args(vec![url.as_str(); times]);
        let output = command.output().await.expect("curl is needed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let verbose = String::from_utf8_lossy(&output.stderr).into_owned();
        let statuses = text
            .lines()
            .filter_map(|line| line.strip_prefix("HTTP/1.1 "))
            .filter_map(|rest| rest.split(' ').next()?.parse().ok());
        Got {
            statuses: statuses.collect(),
            connections: verbose.matches("* Connected to ").count(),
            text,
            verbose,
        }
    }

    /// Kerberos by curl, as this user.
    pub(crate) async fn kerberos(&self, user: &str, times: usize) -> Got {
        let tickets = self.tickets(user);
        self.curl(Some(&tickets), times, &["--negotiate", "-u", ":"])
            .await
    }

    /// NTLM by curl.
    pub(crate) async fn ntlm(&self, credentials: &str, times: usize) -> Got {
        self.curl(None, times, &["--ntlm", "-u", credentials]).await
    }

    /// The users that the mailbox server was told of, in order.
    pub(crate) fn served(&self) -> Vec<String> {
        let heads = self.server("MBX1").unwrap().heads().into_iter();
        let user = |head: Vec<u8>| {
            let head = String::from_utf8(head).unwrap();
            let mut lines = head.lines();
            let user = lines.find_map(|line| line.strip_prefix("X-Remote-User: "));
            user.map(str::to_owned)
        };
        heads.filter_map(user).collect()
    }

    /// The reasons in the access log, in order, once there are so many lines.
    pub(crate) async fn reasons(&self, lines: usize) -> Vec<String> {
        eventually("the access log is written", || async {
            self.access_lines().unwrap().len() >= lines
        })
        .await;
        let lines = self.access_lines().unwrap();
        let why = |line: &serde_json::Value| {
            let why = line["why"].as_str().unwrap_or_default();
            why.strip_prefix("not authenticated: ")
                .unwrap_or(why)
                .to_owned()
        };
        lines.iter().map(why).collect()
    }

    /// The operator's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("mapigate.log")).unwrap()
    }
}

/// Waits until something is true, and says what when it does not become so.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut is_true: impl FnMut() -> F,
) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_true().await {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
