//! The way of a request through the house, a fact for each station.

use super::directories::in_words;
use super::question::{Question, Subject};
use super::whose::meant;
use super::{Explanation, Fact, Health, protocol};
use crate::autodiscover::Dialect;
use crate::capability::{From, Rules};
use crate::config::settings::{AutodiscoverMode, PublicName, Server};
use crate::ids::DatabaseName;
use crate::ldap::{Findings, Lookups};
use crate::mapi::{Endpoint, RequestType};
use crate::placement::{Difference, Source};
use crate::refusal::Refusal;
use crate::relay::target::{Place, Target};
use crate::relay::vdir::page;
use crate::routing::{self, Decision};
use crate::runtime::Snapshot;
use crate::vdir::Vdir;
use std::time::Instant;

/// Where we are on the way.
pub(super) struct Trail<'a> {
    pub(super) world: &'a Snapshot,
    pub(super) question: &'a Question,
    pub(super) health: Health,
    pub(super) now: Instant,
    /// The client reads codes of MAPI.
    pub(super) speaks_mapi: bool,
    facts: Vec<Fact>,
}

/// Why the way ends: everything that is to be said has been said.
pub(super) enum End {
    /// It is answered as it should be.
    Served,
    /// It is refused.
    Refused,
    /// The directory service must be asked first.
    Ask(Box<Lookups>),
}

/// A mailbox that was found.
pub(super) struct Found {
    pub(super) database: DatabaseName,
    /// Its own switch for MAPI over HTTP.
    pub(super) mapi_http: Option<bool>,
}

impl<'a> Trail<'a> {
    pub(super) fn new(
        world: &'a Snapshot,
        question: &'a Question,
        health: Health,
        now: Instant,
    ) -> Self {
        Self {
            world,
            question,
            health,
            now,
            speaks_mapi: true,
            facts: Vec::new(),
        }
    }

    pub(super) fn follow(mut self, findings: &Findings) -> Result<Explanation, Box<Lookups>> {
        let is_served = match self.walk(findings) {
            Err(End::Ask(lookups)) => return Err(lookups),
            Ok(()) | Err(End::Served) => true,
            Err(End::Refused) => false,
        };
        Ok(Explanation {
            subject: self.question.subject.words(),
            is_served,
            facts: self.facts,
        })
    }

    fn walk(&mut self, findings: &Findings) -> Result<(), End> {
        let name = self.name()?;
        let question = self.question;
        let Subject::Url { target, .. } = &question.subject else {
            self.fact("path", "/mapi/emsmdb/: mailboxes", None);
            return self.session(name, Endpoint::Emsmdb, None, findings);
        };
        let target = self.target(target)?;
        match target.place {
            Place::Mapi(endpoint) => self.session(name, endpoint, target.mailbox, findings),
            Place::Vdir(vdir) => self.below(name, vdir, &target, findings),
            Place::Rpc(_) => self.channel(name, target.mailbox, findings),
            Place::Autodiscover(dialect) => self.discovery(name, dialect),
            Place::Health(which) => Err(self.page(page(which, self.world, true))),
        }
    }

    /// A session of MAPI over HTTP.
    fn session(
        &mut self,
        name: &'a PublicName,
        endpoint: Endpoint,
        id: Option<&'a str>,
        findings: &Findings,
    ) -> Result<(), End> {
        self.schemes(name, endpoint);
        let found = self.mailbox(id, findings)?;
        let server = self.server(&found.database)?;
        let routed = self.route(&found.database, endpoint);
        let told = self.other_name(name, server);
        self.mode(name);
        if name.autodiscover != AutodiscoverMode::Off {
            self.offer(told, &found, server);
        }
        self.hand_off();
        self.limits(server);
        routed
    }

    pub(super) fn hand_off(&mut self) {
        let words = self.world.settings.backend_identity.in_words();
        self.fact("hand-off", words, Some("backend_identity.mode".to_owned()));
    }

    pub(super) fn fact(&mut self, topic: &str, words: impl Into<String>, why: Option<String>) {
        self.facts.push(Fact {
            topic: topic.to_owned(),
            words: words.into(),
            why,
        });
    }

    /// The last fact of a way that ends with a refusal.
    pub(super) fn refuse(&mut self, topic: &str, refusal: &Refusal, why: impl Into<String>) -> End {
        let code = refusal
            .code()
            .filter(|_| self.speaks_mapi)
            .map_or_else(String::new, |code| format!(", X-ResponseCode {}", code.0));
        let words = format!(
            "refused: {refusal}. The client gets HTTP {}{code}: {:?}",
            refusal.status(),
            refusal.public_words()
        );
        self.fact(topic, words, Some(why.into()));
        End::Refused
    }

    fn name(&mut self) -> Result<&'a PublicName, End> {
        let names = &self.world.settings.names;
        let asked = match &self.question.subject {
            Subject::Url {
                host: Some(host), ..
            } => Some((host, "the URL says so")),
            _ => self
                .question
                .name
                .as_ref()
                .map(|name| (name, "it was asked for")),
        };
        let Some((host, why)) = asked else {
            let first = names.first().ok_or(End::Refused)?;
            self.fact(
                "name",
                first.host.clone(),
                Some("the first under `names`".to_owned()),
            );
            return Ok(first);
        };
        let found = names
            .iter()
            .find(|name| name.host.eq_ignore_ascii_case(host));
        match found {
            Some(name) => {
                self.fact("name", name.host.clone(), Some(why.to_owned()));
                Ok(name)
            }
            None => {
                let known = names.iter().map(|name| name.host.as_str());
                let why = meant(host, known).unwrap_or_else(|| "add it to `names`".to_owned());
                Err(self.refuse("name", &Refusal::UnknownHost, why))
            }
        }
    }

    /// What is asked for, as the gate reads it.
    fn target(&mut self, written: &'a str) -> Result<Target<'a>, End> {
        let target = Target::read_with(written, !self.world.settings.vdirs.is_empty());
        let target = target.map_err(|refusal| {
            let why = self.shut(written, &refusal);
            self.refuse("path", &refusal, why)
        })?;
        let mut path = Vec::new();
        target.write(&mut path);
        let path = String::from_utf8_lossy(&path);
        let path = path.split('?').next().unwrap_or_default();
        let what = match target.place {
            Place::Mapi(Endpoint::Emsmdb) => "mailboxes",
            Place::Mapi(Endpoint::Nspi) => "the address book",
            Place::Autodiscover(Dialect::Pox) => "Autodiscover, as Outlook asks",
            Place::Autodiscover(Dialect::Soap) => "Autodiscover, as EWS clients ask",
            Place::Autodiscover(Dialect::Json) => "Autodiscover V2, without authentication",
            Place::Rpc(_) => "Outlook Anywhere",
            Place::Vdir(vdir) => in_words(vdir),
            Place::Health(_) => "a health page, answered by mapigate itself",
        };
        self.fact("path", format!("{path}: {what}"), None);
        Ok(target)
    }

    fn discovery(&mut self, name: &PublicName, dialect: Dialect) -> Result<(), End> {
        if name.autodiscover == AutodiscoverMode::Off {
            let why = "autodiscover.mode is off";
            return Err(self.refuse("autodiscover", &Refusal::UnknownPath, why));
        }
        if dialect != Dialect::Json {
            self.schemes_of(name, None);
        }
        self.mode(name);
        let words = "whose mailbox is asked for stands in the body: ask about the user";
        self.fact("next", words, None);
        Err(End::Served)
    }

    fn schemes(&mut self, name: &PublicName, endpoint: Endpoint) {
        self.schemes_of(name, Some(endpoint));
    }

    fn schemes_of(&mut self, name: &PublicName, endpoint: Option<Endpoint>) {
        let offered = name.offered(endpoint);
        let own = endpoint.and_then(|endpoint| name.endpoints.get(endpoint.index()));
        let mut why = match own.is_some_and(Option::is_some) {
            true => "`names[].paths` of this path; challenges in this order".to_owned(),
            false => "`names[].authentication`; challenges in this order".to_owned(),
        };
        let untouched = self.world.settings.auth.passthrough.as_ref();
        let left: Vec<_> = untouched
            .iter()
            .flat_map(|untouched| &untouched.schemes)
            .filter(|scheme| offered.contains(scheme))
            .map(|scheme| scheme.as_str())
            .collect();
        if !left.is_empty() {
            why.push_str(&format!("; {} left to the mailbox server", left.join(", ")));
        }
        self.schemes_are(offered, why);
    }

    /// The server that holds the active copy.
    pub(super) fn server(&mut self, database: &DatabaseName) -> Result<&'a Server, End> {
        let world = self.world;
        let Some(home) = world.placement.home(database) else {
            let known = world.placement.iter().map(|(name, _)| name.as_str());
            let about = |difference: &&Difference| difference.database() == database;
            let differences = world.placement.homes().differences().iter().filter(about);
            let differences: Vec<_> = differences.map(ToString::to_string).collect();
            let why = match (&world.copies.trouble, differences.as_slice()) {
                (Some(trouble), []) => trouble.clone(),
                (None, []) => meant(database.as_str(), known)
                    .unwrap_or_else(|| "add it to `databases`".to_owned()),
                (_, differences) => differences.join("; "),
            };
            let refusal = Refusal::NoEligibleCopy {
                database: database.clone(),
                why: world.placement.homes().why_homeless(database),
            };
            return Err(self.refuse("database", &refusal, why));
        };
        let copies: Vec<_> = home.copies.iter().map(|copy| copy.as_str()).collect();
        let source = match &world.settings.databases_file {
            Some(file) => file.display().to_string(),
            None => "`databases`".to_owned(),
        };
        self.fact("database", database.to_string(), None);
        let says = match world.placement.homes().source(database) {
            Source::Configuration => format!("{source} says so"),
            Source::Directory => {
                "the directory says so (databases.copies_from), and nobody which is active: the first is taken to be"
                    .to_owned()
            }
            Source::Both => format!(
                "the directory says so (databases.copies_from), and {source} which is active"
            ),
        };
        let why = format!("{says}; placement epoch {}", world.placement.epoch().0);
        self.fact(
            "copies",
            format!("on {}; active on {}", copies.join(", "), home.active),
            Some(why),
        );
        let server = world
            .settings
            .servers
            .get(&home.active)
            .ok_or(End::Refused)?;
        let version = server
            .version
            .map_or_else(String::new, |version| format!(" {version}"));
        let flavour = format!("{:?}", server.flavour).to_lowercase();
        let words = format!(
            "{} at {}:{}, {flavour}{version}",
            server.name, server.host, server.port
        );
        let state = match (self.health, world.health.is_up(&server.name)) {
            (Health::Unknown, _) => {
                "health unknown: the configuration was read from its file, and nobody has looked"
                    .to_owned()
            }
            (Health::Watched, true) => "up".to_owned(),
            (Health::Watched, false) if world.health.is_eligible(&server.name) => {
                "looks down, but too many do to be believed".to_owned()
            }
            (Health::Watched, false) => {
                format!(
                    "down: {}",
                    world.health.reason(&server.name).unwrap_or("no answer")
                )
            }
        };
        self.fact(
            "server",
            words,
            Some(format!("it holds the active copy; {state}")),
        );
        Ok(server)
    }

    /// The name that clients of the server are told, which may be another than they came to.
    fn other_name(&mut self, name: &'a PublicName, server: &Server) -> &'a PublicName {
        let own = server.url_name.as_deref();
        let own = own.and_then(|own| self.world.settings.named(own));
        let Some(other) = own.filter(|own| own.host != name.host) else {
            return name;
        };
        let mut words = format!("{}: Autodiscover tells its URLs", other.host);
        if self.world.settings.vdirs.get(Vdir::ActiveSync).is_some() {
            words.push_str(&format!(
                ", and devices that come to {} are sent there with HTTP 451",
                name.host
            ));
        }
        let why = format!("servers.{}.url_name", server.name);
        self.fact("other name", words, Some(why));
        other
    }

    /// A session that begins now.
    fn route(&mut self, database: &DatabaseName, endpoint: Endpoint) -> Result<(), End> {
        let world = self.world;
        let question = routing::Question {
            request_type: match endpoint {
                Endpoint::Nspi => RequestType::Bind,
                Endpoint::Emsmdb => RequestType::Connect,
            },
            carries_context: false,
            session: None,
            database: Some(database),
            tried: &[],
        };
        let capable = |server: &crate::ids::ServerName| {
            let server = world.settings.servers.get(server);
            server.is_some_and(|server| server.capable.mapi_http)
        };
        match routing::decide(&question, &world.placement, &world.health, capable) {
            Decision::Forward { server, .. } => {
                self.fact("route", format!("a new session goes to {server}"), Some("a passive copy never gets a request; sessions that are open stay where their database is".to_owned()));
                Ok(())
            }
            Decision::EndSession => Ok(()),
            Decision::Refuse(refusal) => {
                let why = "repair the server, or activate another copy and reload";
                Err(self.refuse("route", &refusal, why))
            }
        }
    }

    fn mode(&mut self, name: &PublicName) {
        let (words, why) = match name.autodiscover {
            AutodiscoverMode::Proxy => (
                "the mailbox server answers; what must not be offered is taken out",
                "proxy",
            ),
            AutodiscoverMode::Answer => {
                ("mapigate answers, from directory and placement", "answer")
            }
            AutodiscoverMode::Off => ("nobody answers: HTTP 404", "off"),
        };
        self.fact("autodiscover", words, Some(format!("its mode is {why}")));
    }

    /// `name`: the one whose URLs are told.
    fn offer(&mut self, name: &PublicName, found: &Found, server: &Server) {
        let settings = &self.world.settings.autodiscover;
        if let Subject::Person(person) = &self.question.subject
            && let Some((_, domain)) = person.rsplit_once('@')
            && let Some(url) = settings.redirects.get(&domain.to_ascii_lowercase())
        {
            let why = "autodiscover.redirects has the domain of the address".to_owned();
            self.fact("offer", format!("a redirect to {url}"), Some(why));
            return;
        }
        let rules = Rules::of(settings, found.mapi_http);
        let from = self
            .question
            .from
            .map_or(From::Anywhere, |address| From::of(address, settings));
        let question = self.question;
        let (words, why) =
            protocol::told(question.client, &question.client_words, rules, server, from);
        self.fact("offer", words, Some(why));
        let mut urls = vec![name.internal_url.as_str()];
        urls.extend(
            name.external_url
                .as_deref()
                .filter(|_| !rules.blocks_external),
        );
        urls.dedup();
        self.fact(
            "urls",
            urls.join(", "),
            Some("names[].internal_url, external_url".to_owned()),
        );
    }

    pub(super) fn limits(&mut self, server: &Server) {
        let limits = &self.world.settings.limits;
        let words = format!(
            "{} requests of a user at once, {} at {}; bodies of {}; a wait of {}",
            limits.requests_per_user,
            server.requests_max,
            server.name,
            bytesize::ByteSize(limits.body),
            humantime::format_duration(limits.notification_wait),
        );
        self.fact(
            "limits",
            words,
            Some("limits, servers.*.requests_max".to_owned()),
        );
    }
}
