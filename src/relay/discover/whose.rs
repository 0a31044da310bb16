//! Whose settings are asked for, and whether they are told: directory, placement, capability.

use super::{Reply, XML, pox_fault};
use crate::autodiscover::pox::{Answer, Fault, Mailbox, PoxRequest, Services, redirect};
use crate::autodiscover::soap::{self, SoapRequest, UserAnswer};
use crate::autodiscover::{Client, Dialect, Offer, Urls, Wrong};
use crate::capability::{self, Capable, From as Place, Rules};
use crate::config::settings::{AutodiscoverMode, PublicName, Scheme};
use crate::directory::{Directory, Profile, Whose};
use crate::ids::{DatabaseName, ServerName, UserName};
use crate::ldap::{Asked, Book, Findings, Look, Lookup, Lookups, Person};
use crate::mapi::Flavour;
use crate::metrics::Told;
use crate::refusal::Refusal;
use crate::relay::bill::Bill;
use crate::runtime::Snapshot;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// What one request is judged by.
pub(super) struct Scene<'a> {
    pub(super) world: &'a Snapshot,
    pub(super) name: &'a PublicName,
    pub(super) client: Client,
    pub(super) user: &'a UserName,
    pub(super) from: Place,
    /// What the directory service has said for this request, and when that is.
    pub(super) findings: &'a Findings,
    /// It may be asked for more; whoever it would be asked about is told to come again otherwise.
    pub(super) may_look: bool,
    pub(super) now: Instant,
}

/// What is asked, read once however often it is judged.
#[derive(Debug)]
pub(super) enum Question {
    Soap(SoapRequest),
    Pox(PoxRequest),
}

impl Question {
    /// Reads a request's body.
    pub(super) fn read(dialect: Dialect, body: &[u8]) -> Result<Self, Wrong> {
        Ok(match dialect {
            Dialect::Soap => Self::Soap(SoapRequest::read(body)?),
            _ => Self::Pox(PoxRequest::read(body)?),
        })
    }
}

/// What becomes of a request.
pub(super) enum Verdict {
    /// This is the answer.
    Say(Reply),
    /// A server is asked.
    Ask(Box<Errand>),
    /// The directory service is asked first; then the request is judged again.
    Look(Box<Lookups>),
    /// Who asks may not.
    Refuse(Refusal),
}

/// Which server is asked, and what its answer becomes.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) dialect: Dialect,
    pub(super) mailbox: String,
    pub(super) database: DatabaseName,
    pub(super) offer: Offer,
}

/// Whose settings, where they are to be told.
struct Found<'a> {
    /// Its `MailboxId`, where that is known.
    mailbox: Option<Cow<'a, str>>,
    source: Source<'a>,
    database: Cow<'a, DatabaseName>,
}

/// Who says more of a mailbox than where it lives.
enum Source<'a> {
    /// The mailbox file.
    File(Option<Profile<'a>>),
    /// The directory service.
    Service(Arc<Person>),
    /// Nobody but its server.
    Server,
}

/// What an address leads to.
enum Led<'a> {
    Here(Found<'a>),
    /// Another Autodiscover.
    Elsewhere(&'a str),
    /// Nobody's, or not this user's business.
    Nowhere,
    /// Only the directory service knows.
    Ask(Lookup),
    /// Who asks may not log on.
    Disabled,
}

impl<'a> Scene<'a> {
    /// Judges a request.
    pub(super) fn judge(&self, question: &Question, bill: &Bill<'_>) -> Result<Verdict, Wrong> {
        match question {
            Question::Soap(request) => self.judge_soap(request),
            Question::Pox(request) => Ok(self.judge_pox(request, bill)),
        }
    }

    fn judge_pox(&self, request: &PoxRequest, bill: &Bill<'_>) -> Verdict {
        if request.address.is_none() && request.legacy_dn.is_none() {
            return Verdict::Say(pox_fault(Fault::InvalidRequest, bill));
        }
        let found = match self.lead(request) {
            Led::Here(found) => found,
            Led::Elsewhere(url) => return Verdict::Say(Reply::xml(redirect(url), Told::Elsewhere)),
            Led::Nowhere => return Verdict::Say(pox_fault(Fault::NotFound, bill)),
            Led::Ask(lookup) => return look(lookup),
            Led::Disabled => return Verdict::Refuse(Refusal::Unauthenticated(DISABLED)),
        };
        if self.name.autodiscover == AutodiscoverMode::Proxy {
            return Verdict::Ask(Box::new(self.errand(Dialect::Pox, &found, self.client)));
        }
        // ActiveSync has a schema of its own, and we know nothing to say in it.
        if !request.is_for_outlook {
            return Verdict::Say(pox_fault(Fault::NoProvider, bill));
        }
        match self.answer(&found, self.client) {
            Some(answer) => Verdict::Say(Reply::xml(answer.write(), told(&answer.offer))),
            None => Verdict::Say(pox_fault(Fault::NotFound, bill)),
        }
    }

    fn judge_soap(&self, request: &SoapRequest) -> Result<Verdict, Wrong> {
        if request.users.is_empty() {
            return Err(Wrong::Other("a request for anybody"));
        }
        // Clients of SOAP ask for a setting instead of sending a header.
        let client = Client {
            mapi_http: self.client.mapi_http.or(Some(1)),
            ..self.client
        };
        let mut led: Vec<Led<'a>> = Vec::new();
        for user in &request.users {
            match self.lead_of(user) {
                Led::Ask(lookup) if self.may_look => return Ok(look(lookup)),
                Led::Disabled => {
                    return Ok(Verdict::Refuse(Refusal::Unauthenticated(DISABLED)));
                }
                known => led.push(known),
            }
        }
        let proxies = self.name.autodiscover == AutodiscoverMode::Proxy;
        // A server answers for all or none: where one of them is not to be told, it is not asked.
        let is_busy = led.iter().any(|led| matches!(led, Led::Ask(_)));
        let are_all_here = led.iter().all(|led| matches!(led, Led::Here(_)));
        if let Some(Led::Here(found)) = led.first()
            && proxies
            && are_all_here
        {
            let errand = self.errand(Dialect::Soap, found, client);
            return Ok(Verdict::Ask(Box::new(errand)));
        }
        let answers: Vec<UserAnswer<'_>> = led
            .iter()
            .map(|led| match led {
                Led::Here(found) if !proxies => match self.answer(found, client) {
                    Some(answer) => UserAnswer::Settings(Box::new(answer)),
                    None => UserAnswer::Invalid,
                },
                Led::Elsewhere(url) => UserAnswer::Redirect(url),
                Led::Ask(_) => UserAnswer::Busy,
                // It might be told, if all could be.
                Led::Here(_) if is_busy => UserAnswer::Busy,
                Led::Here(_) | Led::Nowhere | Led::Disabled => UserAnswer::Invalid,
            })
            .collect();
        let told = match answers.first() {
            Some(UserAnswer::Settings(answer)) => told(&answer.offer),
            Some(UserAnswer::Redirect(_)) => Told::Elsewhere,
            _ => Told::NotFound,
        };
        Ok(Verdict::Say(Reply {
            status: 200,
            content_type: XML,
            location: None,
            body: soap::answer(request, &answers).into_bytes(),
            told,
        }))
    }

    fn lead(&self, request: &PoxRequest) -> Led<'a> {
        match (&request.address, &request.legacy_dn) {
            (Some(address), _) => self.lead_of(address),
            // Outlook asks by a distinguished name for its own mailbox; nobody else's is looked up by one.
            (None, Some(dn)) => match self.lead_of(self.user.as_str()) {
                Led::Here(found) if !found.is_called(dn) => Led::Nowhere,
                Led::Elsewhere(_) => Led::Nowhere,
                led => led,
            },
            (None, None) => Led::Nowhere,
        }
    }

    fn lead_of(&self, address: &str) -> Led<'a> {
        let (directory, settings) = (&self.world.directory, &self.world.settings.autodiscover);
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        if let Some(url) = settings.redirects.get(domain) {
            return Led::Elsewhere(url);
        }
        if let Some(book) = &self.world.book {
            return self.lead_in_book(book, address);
        }
        let is_own = address == self.user.as_str();
        let home = match directory.mailbox_of(address) {
            Some(home) => Some(home),
            None if is_own => directory.own_mailbox(self.user),
            None => None,
        };
        let Some(home) = home else {
            return self.lead_by_domain(address, is_own);
        };
        let is_allowed = match settings.own_only {
            true => directory.is_named_by(&home, self.user),
            false => directory.may_open(&home, self.user),
        };
        match is_allowed {
            true => Led::Here(Found {
                source: Source::File(directory.profile(&home)),
                database: Cow::Borrowed(home.database()),
                mailbox: Some(Cow::Borrowed(home.id_text())),
            }),
            false => Led::Nowhere,
        }
    }

    /// By the directory service. An address that is not the user's own is asked for every time: neither the answer
    /// nor its time tells whether there is one.
    fn lead_in_book(&self, book: &Arc<Book>, address: &str) -> Led<'a> {
        let (directory, settings) = (&self.world.directory, &self.world.settings.autodiscover);
        let asker = match book.look(Asked::User(self.user.as_str()), self.findings, self.now) {
            Look::Ask(lookup) => return Led::Ask(lookup),
            Look::Person(asker) if asker.is_disabled() => return Led::Disabled,
            Look::Person(asker) => Some(asker),
            Look::Nobody => None,
        };
        // Everybody may know who there is: then what is known from before may be told while nobody knows better.
        let tells_all = !settings.own_only && directory.admits_strangers();
        let is_asker = |asker: &Arc<Person>| asker.is_called(address);
        let is_own = address == self.user.as_str() || asker.as_ref().is_some_and(is_asker);
        let owner = match is_own {
            true => asker.clone(),
            false => {
                let asked = Asked::User(address);
                match book.look_anew(asked, tells_all, self.findings, self.now) {
                    Look::Ask(lookup) => return Led::Ask(lookup),
                    Look::Person(owner) => Some(owner),
                    Look::Nobody => None,
                }
            }
        };
        let Some(owner) = owner else {
            return self.lead_by_domain(address, is_own);
        };
        let is_named = asker
            .as_ref()
            .is_some_and(|asker| asker.is(&owner) || owner.has_delegate(asker));
        if !is_named && !tells_all {
            return Led::Nowhere;
        }
        match directory.own(&owner, &UserName::new(address)) {
            Whose::Mailbox(mailbox, database) => Led::Here(Found {
                mailbox: Some(Cow::Owned(mailbox.to_string())),
                source: Source::Service(owner),
                database: Cow::Owned(database),
            }),
            // No recipient of ours.
            _ => Led::Nowhere,
        }
    }

    /// Of an address that the directory does not know, its domain's default database is all that is known, and the
    /// server knows the rest.
    fn lead_by_domain(&self, address: &str, is_own: bool) -> Led<'a> {
        let (directory, settings) = (&self.world.directory, &self.world.settings.autodiscover);
        let may_ask = is_own || (!settings.own_only && directory.admits_strangers());
        match directory.default_database(address).filter(|_| may_ask) {
            Some(database) => Led::Here(Found {
                mailbox: None,
                source: Source::Server,
                database: Cow::Borrowed(database),
            }),
            None => Led::Nowhere,
        }
    }

    /// Everything an answer of ours is made of; `None` where too little is known of the mailbox.
    fn answer<'f>(&self, found: &'f Found<'a>, client: Client) -> Option<Answer<'f>>
    where
        'a: 'f,
    {
        let profile = found.profile(&self.world.directory)?;
        let mailbox = found.mailbox.as_deref()?;
        let address = profile.address?;
        let settings = &self.world.settings.autodiscover;
        let server = self.server(&found.database);
        Some(Answer {
            mailbox: Mailbox {
                id: mailbox,
                address,
                display_name: profile.display_name.unwrap_or(address),
                legacy_dn: profile.legacy_dn,
            },
            offer: self.offer(found, client),
            urls: self.urls(&found.database),
            services: Services {
                ews: settings.ews_url.as_deref(),
                oab: settings.oab_url.as_deref(),
            },
            auth_package: auth_package(&self.name.authentication),
            server_version: server.and_then(|server| server.version),
        })
    }

    fn errand(&self, dialect: Dialect, found: &Found<'_>, client: Client) -> Errand {
        Errand {
            dialect,
            mailbox: found.mailbox.as_deref().unwrap_or_default().to_owned(),
            database: found.database.clone().into_owned(),
            offer: self.offer(found, client),
        }
    }

    /// By the server that holds the active copy at this moment.
    fn offer(&self, found: &Found<'_>, client: Client) -> Offer {
        let settings = &self.world.settings.autodiscover;
        let profile = found.profile(&self.world.directory);
        let mailbox = profile.and_then(|profile| profile.mapi_http);
        let rules = Rules::of(settings, mailbox);
        let capable = match self.server(&found.database) {
            Some(server) => server.capable,
            None => Capable::of(Flavour::Exchange, None, Some(&|_| false)),
        };
        capability::offer(client, rules, capable, self.from)
    }

    fn server(&self, database: &DatabaseName) -> Option<&'a crate::config::settings::Server> {
        let server: &ServerName = self.world.placement.active(database)?;
        self.world.settings.servers.get(server).map(AsRef::as_ref)
    }

    /// What clients of this database are told to call us: the name of its server, where that has one.
    pub(super) fn urls(&self, database: &DatabaseName) -> Urls<'a> {
        let own = self
            .server(database)
            .and_then(|server| server.url_name.as_deref());
        let own = own.and_then(|own| self.world.settings.named(own));
        let name = own.unwrap_or(self.name);
        Urls {
            internal: &name.internal_url,
            external: name.external_url.as_deref(),
        }
    }
}

fn look(first: Lookup) -> Verdict {
    let second = None;
    Verdict::Look(Box::new(Lookups { first, second }))
}

const DISABLED: &str = "disabled in the directory";

impl Found<'_> {
    fn profile(&self, directory: &Directory) -> Option<Profile<'_>> {
        match &self.source {
            Source::File(profile) => *profile,
            Source::Service(person) => Some(directory.profile_of(person)),
            Source::Server => None,
        }
    }

    fn is_called(&self, dn: &str) -> bool {
        let is_it = match &self.source {
            Source::File(profile) => profile
                .and_then(|profile| profile.legacy_dn)
                .map(|own| own.eq_ignore_ascii_case(dn)),
            Source::Service(person) => person.has_legacy_dn(dn),
            Source::Server => None,
        };
        // Where nobody has such a name, the server knows it, and it is the user's own mailbox anyway.
        is_it.unwrap_or(true)
    }
}

/// What is counted.
pub(super) fn told(offer: &Offer) -> Told {
    match (offer.mapi_http, offer.outlook_anywhere, offer.rpc) {
        (Some(_), _, _) => Told::MapiHttp,
        (None, true, _) => Told::OutlookAnywhere,
        (None, false, true) => Told::Rpc,
        (None, false, false) => Told::Nothing,
    }
}

/// How clients of Outlook Anywhere are told to authenticate: by the first scheme of the name that has a word
/// for them. `[MS-OXDSCLI] 2.2.4.1.1.2.6.2`
fn auth_package(schemes: &[Scheme]) -> &'static str {
    schemes
        .iter()
        .find_map(|scheme| match scheme.word() {
            "Basic" => Some("Basic"),
            "NTLM" => Some("Ntlm"),
            "Negotiate" => Some("Negotiate"),
            _ => None,
        })
        .unwrap_or("Negotiate")
}
