//! Holds a recorded conversation again: the same requests in the same order, with the cookies of the living.

use super::exchange::{Recorded, set_cookies};
use super::judge::{Door, same};
use base64::Engine as _;
use mapigate::ids::UserName;
use mapigate::lab::MailboxServer;
use mapigate::lab::mailbox_server::{Options, Users};
use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::mapi::Flavour;
use std::collections::HashMap;
use std::time::Duration;

/// The domain of the recordings.
pub(crate) const DOMAIN: &str = "org.test";
/// Its users, each with the password [`PASSWORD`].
pub(crate) const USERS: [&str; 4] = ["user1", "bob", "carol", "dave"];
/// Everybody's password.
pub(crate) const PASSWORD: &str = "secret";

/// The server the recordings were made with, as the lab has it.
pub(crate) fn options(name: &str) -> Options {
    let mut options = Options::new(name, Flavour::Gromox);
    options.host = "mbx1.org.test".to_owned();
    options.checks_dn = true;
    options.lingering_wait = Duration::ZERO;
    let listed = USERS.map(|name| {
        (
            UserName::new(format!("{name}@{DOMAIN}")),
            PASSWORD.to_owned(),
        )
    });
    options.users = Users::Listed(listed.into());
    options
}

/// A conversation under way.
pub(crate) struct Replay<'a> {
    server: &'a MailboxServer,
    target: Target,
    door: Door,
    line: Line,
    /// What the recorded cookies are called today.
    living: HashMap<String, String>,
    /// The last sequence cookie of each recorded context.
    sequences: HashMap<String, String>,
    held: Option<(Recorded, Line)>,
}

impl<'a> Replay<'a> {
    pub(crate) async fn new(server: &'a MailboxServer, target: Target, door: Door) -> Self {
        let line = Line::connect(&target).await.unwrap();
        Self {
            server,
            target,
            door,
            line,
            living: HashMap::new(),
            sequences: HashMap::new(),
            held: None,
        }
    }

    /// Asks everything that was asked; every answer must be the recorded one.
    pub(crate) async fn run(mut self, all: &[Recorded]) {
        for recorded in all {
            self.open_what_was_open(recorded, all).await;
            if recorded.kind() == "NotificationWait" {
                self.hold(recorded).await;
                if recorded.name.contains("held") {
                    self.let_time_pass(recorded).await;
                    self.server.wake(None);
                    self.woken().await;
                }
                continue;
            }
            let waits = self.held.as_ref().map(|(waits, _)| waits.clone());
            if let (Some(waits), true) = (waits, recorded.name.contains("create-save")) {
                self.let_time_pass(&waits).await;
            }
            let answer = self.ask(recorded).await;
            same(recorded, &answer, self.door);
            self.learn(recorded, &answer);
            if recorded.name.contains("create-save") {
                self.woken().await;
            }
        }
        assert!(self.held.is_none());
    }

    async fn ask(&mut self, recorded: &Recorded) -> Answer {
        if self.line.is_dead().await {
            self.line = Line::connect(&self.target).await.unwrap();
        }
        self.line.ask(&self.bytes(recorded)).await.unwrap()
    }

    async fn hold(&mut self, recorded: &Recorded) {
        let before = self.server.counters().waits_held;
        let mut waiting = Line::connect(&self.target).await.unwrap();
        waiting.send(&self.bytes(recorded)).await.unwrap();
        let held = async {
            while self.server.counters().waits_held == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let held = tokio::time::timeout(Duration::from_secs(10), held).await;
        held.unwrap_or_else(|_| panic!("{}: never held", recorded.name));
        self.held = Some((recorded.clone(), waiting));
    }

    /// Where the clock is ours, a request is held as long as it was.
    async fn let_time_pass(&self, recorded: &Recorded) {
        if let (Door::None, Some(seconds)) = (self.door, recorded.seconds) {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }

    async fn woken(&mut self) {
        let (recorded, mut waiting) = self.held.take().unwrap();
        same(&recorded, &waiting.answer().await.unwrap(), self.door);
    }

    fn bytes(&self, recorded: &Recorded) -> Vec<u8> {
        request(recorded, &self.target.host, &self.living, &self.sequences)
    }

    fn learn(&mut self, recorded: &Recorded, ours: &Answer) {
        let theirs = set_cookies(&recorded.headers);
        let context = theirs.iter().find(|(name, _)| name == "sid");
        for (name, value) in set_cookies(&ours.head.headers) {
            let Some((_, recorded)) = theirs.iter().find(|(known, _)| *known == name) else {
                continue;
            };
            self.living.insert(recorded.clone(), value.clone());
            if let (Some((_, context)), "sequence") = (context, name.as_str()) {
                self.sequences.insert(context.clone(), value);
            }
        }
    }

    /// Sessions whose beginning was not recorded are opened before their first request, and are told of events if
    /// that is what they wait for.
    async fn open_what_was_open(&mut self, recorded: &Recorded, all: &[Recorded]) {
        let Some(context) = recorded.cookie("sid") else {
            return;
        };
        let is_invented = context.bytes().all(|byte| byte == b'0');
        if is_invented || self.living.contains_key(&context) {
            return;
        }
        let like = |what: &str| {
            let found = all
                .iter()
                .find(|known| known.name.ends_with(what) && known.code() == Some(0));
            found.unwrap_or_else(|| panic!("no {what}")).clone()
        };
        let opened = self.ask(&like("-connect")).await;
        self.keep(recorded, &opened);
        if recorded.kind() == "NotificationWait" {
            let mut register = like("-registernotification");
            let cookie = recorded.asked("Cookie").unwrap().to_owned();
            register
                .request
                .retain(|line| !line.starts_with("Cookie: "));
            register.request.push(format!("Cookie: {cookie}"));
            let registered = self.ask(&register).await;
            assert_eq!(registered.head.code(), Some(0), "{}", recorded.name);
            self.keep(recorded, &registered);
        }
    }

    /// The cookies of an answer stand for those this request was recorded with.
    fn keep(&mut self, recorded: &Recorded, answer: &Answer) {
        for (name, ours) in set_cookies(&answer.head.headers) {
            let Some(theirs) = recorded.cookie(&name) else {
                continue;
            };
            if let (Some(context), "sequence") = (recorded.cookie("sid"), name.as_str()) {
                self.sequences.insert(context, ours.clone());
            }
            self.living.insert(theirs, ours);
        }
    }
}

/// A recorded request to this host, with what its cookies are called today and somebody's credentials.
pub(crate) fn request(
    recorded: &Recorded,
    host: &str,
    living: &HashMap<String, String>,
    sequences: &HashMap<String, String>,
) -> Vec<u8> {
    let mut head = String::new();
    for line in &recorded.request {
        if line.starts_with("Cookie: ") {
            let pairs = cookies(recorded, living, sequences).join("; ");
            head.push_str(&format!("Cookie: {pairs}\r\n"));
        } else if line.starts_with("Host: ") {
            head.push_str(&format!("Host: {host}\r\n"));
        } else {
            head.push_str(&format!("{line}\r\n"));
        }
    }
    if recorded.user != "nobody" {
        let (user, password) = recorded
            .user
            .split_once(':')
            .unwrap_or((&recorded.user, PASSWORD));
        let credentials = format!("{user}@{DOMAIN}:{password}");
        let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
        head.push_str(&format!("Authorization: Basic {credentials}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", recorded.body.len()));
    [head.as_bytes(), &recorded.body].concat()
}

/// The cookies it goes with. A sequence that was issued while nobody recorded is the last one of its context.
fn cookies(
    recorded: &Recorded,
    living: &HashMap<String, String>,
    sequences: &HashMap<String, String>,
) -> Vec<String> {
    let context = recorded.cookie("sid");
    let latest = context.and_then(|context| sequences.get(&context));
    let pair = |(name, value): (String, String)| {
        let of_unrecorded = latest.filter(|_| name == "sequence");
        let value = living.get(&value).or(of_unrecorded).unwrap_or(&value);
        format!("{name}={value}")
    };
    recorded.cookies().into_iter().map(pair).collect()
}
