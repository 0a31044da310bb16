//! The way of a request through the house, a fact for each station.

use super::question::{Question, Subject};
use super::{Explanation, Fact, Health, protocol};
use crate::auth::canonical;
use crate::autodiscover::Dialect;
use crate::capability::{From, Rules};
use crate::config::settings::{Access, AutodiscoverMode, PublicName, Scheme, Server};
use crate::directory::Whose;
use crate::ids::{DatabaseName, UserName};
use crate::ldap::{Findings, Lookups};
use crate::mapi::{Endpoint, RequestType};
use crate::refusal::Refusal;
use crate::relay::target::{Place, Target};
use crate::routing::{self, Decision};
use crate::runtime::Snapshot;
use std::time::Instant;

/// Where we are on the way.
pub(super) struct Trail<'a> {
    world: &'a Snapshot,
    question: &'a Question,
    health: Health,
    now: Instant,
    facts: Vec<Fact>,
}

/// Why the way ends: everything that is to be said has been said.
enum End {
    /// It is answered as it should be.
    Served,
    /// It is refused.
    Refused,
    /// The directory service must be asked first.
    Ask(Box<Lookups>),
}

/// A mailbox that was found.
struct Found {
    database: DatabaseName,
    /// Its own switch for MAPI over HTTP.
    mapi_http: Option<bool>,
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
        let (place, id) = self.place(name)?;
        let endpoint = match place {
            Place::Mapi(endpoint) => Some(endpoint),
            _ => None,
        };
        self.schemes(name, endpoint);
        let found = self.mailbox(id, findings)?;
        let server = self.server(&found.database)?;
        let routed = self.route(&found.database, endpoint);
        let told = self.other_name(name, server);
        self.mode(name);
        if name.autodiscover != AutodiscoverMode::Off {
            self.offer(told, &found, server);
        }
        self.fact(
            "hand-off",
            self.world.settings.backend_identity.in_words(),
            Some("backend_identity.mode".to_owned()),
        );
        self.limits(server);
        routed
    }

    fn fact(&mut self, topic: &str, words: impl Into<String>, why: Option<String>) {
        self.facts.push(Fact {
            topic: topic.to_owned(),
            words: words.into(),
            why,
        });
    }

    /// The last fact of a way that ends with a refusal.
    fn refuse(&mut self, topic: &str, refusal: &Refusal, why: impl Into<String>) -> End {
        let code = refusal
            .code()
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

    /// What is asked for, and the mailbox that the URL names.
    fn place(&mut self, name: &PublicName) -> Result<(Place, Option<&'a str>), End> {
        let question = self.question;
        let Subject::Url { target, .. } = &question.subject else {
            let place = Place::Mapi(Endpoint::Emsmdb);
            self.fact("path", "/mapi/emsmdb/: mailboxes", None);
            return Ok((place, None));
        };
        let target = match Target::read(target) {
            Ok(target) => target,
            Err(refusal) => {
                let path = target.split('?').next().unwrap_or_default();
                return Err(self.refuse(
                    "path",
                    &refusal,
                    format!("the gate opens to no such path as {path}"),
                ));
            }
        };
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
            Place::Vdir(_) => "another virtual directory",
            Place::Health | Place::HealthOf(_) => "answered by mapigate itself",
        };
        self.fact("path", format!("{path}: {what}"), None);
        match target.place {
            Place::Mapi(_) => Ok((target.place, target.mailbox)),
            Place::Vdir(vdir) => {
                let Some(settings) = self.world.settings.vdirs.get(vdir) else {
                    let why = "no such virtual directory is served here";
                    return Err(self.refuse("directory", &Refusal::UnknownPath, why));
                };
                let words = match settings.inside_only {
                    true => "served to clients inside the internal networks",
                    false => "served",
                };
                self.fact("directory", words, None);
                self.fact("next", NEXT_USER, None);
                Err(End::Served)
            }
            Place::Rpc(_) => {
                self.fact("next", NEXT_USER, None);
                Err(End::Served)
            }
            Place::Autodiscover(_) if name.autodiscover == AutodiscoverMode::Off => Err(self
                .refuse(
                    "autodiscover",
                    &Refusal::UnknownPath,
                    "autodiscover.mode is off",
                )),
            Place::Autodiscover(_) => {
                if target.place != Place::Autodiscover(Dialect::Json) {
                    self.schemes(name, None);
                }
                self.mode(name);
                self.fact(
                    "next",
                    "whose mailbox is asked for stands in the body: ask about the user",
                    None,
                );
                Err(End::Served)
            }
            _ => Err(End::Served),
        }
    }

    fn schemes(&mut self, name: &PublicName, endpoint: Option<Endpoint>) {
        let offered = name.offered(endpoint);
        let words: Vec<_> = offered.iter().map(|scheme| scheme.as_str()).collect();
        let is_own = endpoint.is_some_and(|endpoint| {
            name.endpoints
                .get(endpoint.index())
                .is_some_and(Option::is_some)
        });
        let mut why = match is_own {
            true => "`names[].paths` of this path; challenges in this order".to_owned(),
            false => "`names[].authentication`; challenges in this order".to_owned(),
        };
        if offered.contains(&Scheme::Certificate) {
            why.push_str("; a certificate has no challenge");
        }
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
        self.fact("authentication", words.join(", "), Some(why));
    }

    fn mailbox(&mut self, id: Option<&'a str>, findings: &Findings) -> Result<Found, End> {
        let question = self.question;
        match (&question.subject, id) {
            (Subject::Mailbox(id), _) => self.mailbox_of_id(id, findings),
            (Subject::Url { .. }, Some(id)) => self.mailbox_of_id(id, findings),
            (Subject::Url { .. }, None) => {
                self.fact(
                    "mailbox",
                    "the user's own",
                    Some("the URL has no MailboxId: ask about the user".to_owned()),
                );
                Err(End::Served)
            }
            (Subject::Person(name), _) => self.person(name, findings),
        }
    }

    fn mailbox_of_id(&mut self, id: &str, findings: &Findings) -> Result<Found, End> {
        let directory = &self.world.directory;
        if self.world.book.is_some() {
            let whose = directory.whose(Some(id), None, findings, self.now);
            return self.in_service(id, whose);
        }
        let Some(home) = directory.mailbox(id) else {
            return Err(self.unknown(id));
        };
        self.found(&home)
    }

    fn found(&mut self, home: &crate::directory::Home<'_>) -> Result<Found, End> {
        let directory = &self.world.directory;
        let profile = directory.profile(home);
        let who = profile.and_then(|profile| profile.display_name.or(profile.address));
        let who = who.map_or_else(String::new, |who| format!(", {who}"));
        let settings = &self.world.settings.directory;
        let why = match (&settings.file, home.is_in_file()) {
            (Some(file), true) => format!("the mailbox file {}", file.display()),
            _ => "in no file: the default database of its domain (directory.default_databases)"
                .to_owned(),
        };
        self.fact("mailbox", format!("{}{who}", home.id_text()), Some(why));
        self.access(profile.map(|profile| profile.access));
        Ok(Found {
            database: home.database().clone(),
            mapi_http: profile.and_then(|profile| profile.mapi_http),
        })
    }

    /// `own`: what the mailbox file says of this one.
    fn access(&mut self, own: Option<Access>) {
        let words = match own.unwrap_or(self.world.settings.directory.access) {
            Access::Backend => "the mailbox server decides who may open it",
            Access::Listed => "its owner and those who are listed may open it",
        };
        self.fact(
            "access",
            words,
            Some("directory.access, or the mailbox' own".to_owned()),
        );
    }

    fn in_service(&mut self, asked: &str, whose: Whose) -> Result<Found, End> {
        match whose {
            Whose::Ask(lookups) => Err(End::Ask(lookups)),
            Whose::Mailbox(id, database) => {
                self.fact(
                    "mailbox",
                    id.to_string(),
                    Some(
                        "the directory service (directory.ldap), or its domain's default database"
                            .to_owned(),
                    ),
                );
                self.access(None);
                Ok(Found {
                    database,
                    mapi_http: None,
                })
            }
            Whose::Forbidden => {
                self.fact(
                    "mailbox",
                    "there is one; its owner and delegates alone may open it",
                    Some("directory.access is `listed`: ask about the user".to_owned()),
                );
                Err(End::Served)
            }
            Whose::Disabled => {
                self.fact(
                    "mailbox",
                    "the account is disabled",
                    Some("the directory service says so".to_owned()),
                );
                Err(End::Refused)
            }
            Whose::Unknown => Err(self.unknown(asked)),
        }
    }

    fn person(&mut self, name: &str, findings: &Findings) -> Result<Found, End> {
        let settings = &self.world.settings;
        let basic = settings.auth.basic.as_ref();
        let domain = basic.and_then(|basic| basic.default_domain.as_deref());
        let Some(user) = canonical(name, domain) else {
            self.fact(
                "user",
                "nobody can be called so",
                Some("write `user`, `user@domain` or `DOMAIN\\user`".to_owned()),
            );
            return Err(End::Refused);
        };
        let why = match self.world.auth.lists(&user) {
            true => Some("a password file has the name".to_owned()),
            false => None,
        };
        self.fact("user", user.to_string(), why);
        if self.world.book.is_some() {
            let whose = self
                .world
                .directory
                .whose(None, Some(&user), findings, self.now);
            return self.in_service(user.as_str(), whose);
        }
        self.person_in_file(&user)
    }

    fn person_in_file(&mut self, user: &UserName) -> Result<Found, End> {
        let world = self.world;
        if let Some(home) = world.directory.own_mailbox(user) {
            return self.found(&home);
        }
        let Some(database) = world.directory.default_database(user.as_str()) else {
            return Err(self.unknown(user.as_str()));
        };
        self.fact("mailbox", "not known beforehand: the mailbox server tells its id", Some("the name is in no file; its domain has a default database (directory.default_databases)".to_owned()));
        self.access(None);
        Ok(Found {
            database: database.clone(),
            mapi_http: None,
        })
    }

    /// Whoever is in no directory; the administrator is told who was perhaps meant.
    fn unknown(&mut self, asked: &str) -> End {
        let asked = asked.to_ascii_lowercase();
        let hint = match self.world.book {
            Some(_) => "no entry of the directory service has this name, or it has no mailbox of ours: see directory.ldap.attributes and recipient_types".to_owned(),
            None => meant(&asked, self.world.directory.names())
                .unwrap_or_else(|| "add it to the mailbox file, or its domain to directory.default_databases".to_owned()),
        };
        self.refuse("mailbox", &Refusal::UnknownMailbox, hint)
    }

    /// The server that holds the active copy.
    fn server(&mut self, database: &DatabaseName) -> Result<&'a Server, End> {
        let world = self.world;
        let Some(home) = world.placement.home(database) else {
            let known = world.placement.iter().map(|(name, _)| name.as_str());
            let why = meant(database.as_str(), known)
                .unwrap_or_else(|| "add it to `databases`".to_owned());
            let refusal = Refusal::NoEligibleCopy {
                database: database.clone(),
                why: "it is not configured",
            };
            return Err(self.refuse("database", &refusal, why));
        };
        let copies: Vec<_> = home.copies.iter().map(|copy| copy.as_str()).collect();
        let source = match &world.settings.databases_file {
            Some(file) => file.display().to_string(),
            None => "`databases`".to_owned(),
        };
        self.fact("database", database.to_string(), None);
        let why = format!(
            "{source} says so; placement epoch {}",
            world.placement.epoch().0
        );
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
        let mut names = self.world.settings.names.iter();
        let own = server.url_name.as_ref();
        let own = own.and_then(|own| names.find(|known| known.host == *own));
        let Some(other) = own.filter(|own| own.host != name.host) else {
            return name;
        };
        let words = format!(
            "{}: Autodiscover tells its URLs, and devices that come to {} are sent there with HTTP 451",
            other.host, name.host
        );
        let why = format!("servers.{}.url_name", server.name);
        self.fact("other name", words, Some(why));
        other
    }

    /// A session that begins now.
    fn route(&mut self, database: &DatabaseName, endpoint: Option<Endpoint>) -> Result<(), End> {
        let world = self.world;
        let question = routing::Question {
            request_type: match endpoint {
                Some(Endpoint::Nspi) => RequestType::Bind,
                _ => RequestType::Connect,
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

    fn limits(&mut self, server: &Server) {
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

/// Who was perhaps meant: the nearest names, the nearest first.
fn meant<'n>(asked: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    const SHOWN: usize = 3;
    const NEAR: f64 = 0.75;
    let mut near: Vec<(f64, &str)> = names
        .map(|name| (likeness(asked, name), name))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    near.dedup_by(|(_, one), (_, other)| one == other);
    let names: Vec<_> = near.iter().take(SHOWN).map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(", ")))
}

/// From 0 to 1. The same name at another domain is like, however unlike the domains are.
fn likeness(one: &str, other: &str) -> f64 {
    const SAME_LOCAL_PART: f64 = 0.9;
    let local = |name: &str| name.split_once('@').map(|(local, _)| local.len());
    let is_same = match (local(one), local(other)) {
        (Some(length), Some(other_length)) if length == other_length => {
            one.get(..length) == other.get(..length)
        }
        _ => false,
    };
    let by_letters = strsim::jaro_winkler(one, other);
    match is_same {
        true => by_letters.max(SAME_LOCAL_PART),
        false => by_letters,
    }
}

const NEXT_USER: &str = "its server is that of the mailbox: ask about the user or the MailboxId";
