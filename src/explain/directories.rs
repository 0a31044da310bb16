//! The way of a request to the other virtual directories and to Outlook Anywhere.
//!
//! What the door decides is asked of the door: the policy of a directory, the schemes, the mailbox of a path, the name
//! that a device is sent to.

use super::Health;
use super::trail::{End, Found, Trail};
use crate::auth::canonical;
use crate::capability::From as Side;
use crate::config::settings::{PublicName, Scheme, Server, Shareable, VdirLogon, VdirSettings};
use crate::directory::Whose;
use crate::health::Ward;
use crate::ids::{DatabaseName, ServerName, UserName};
use crate::ldap::Findings;
use crate::refusal::Refusal;
use crate::relay::target::Target;
use crate::relay::vdir::rules;
use crate::routing;
use crate::vdir::{Vdir, parameter};

impl<'a> Trail<'a> {
    /// A request below a directory, from its reach to its server.
    pub(super) fn below(
        &mut self,
        name: &'a PublicName,
        vdir: Vdir,
        target: &Target<'a>,
        findings: &Findings,
    ) -> Result<(), End> {
        self.speaks_mapi = false;
        let served = self.reach(vdir)?;
        self.schemes_below(served, name);
        self.protocols(vdir, name);
        self.takes(vdir, served);
        if served.logon == VdirLogon::Server {
            let words = "any server that serves it; a sealed cookie leads back to the same one";
            let why = "nobody here knows who asks: the mailbox server's own form finds out";
            self.fact("route", words, Some(why.to_owned()));
            return Ok(());
        }
        let found = self.anchored(vdir, served, target, findings)?;
        let server = self.server(&found.database)?;
        self.route_below(vdir, served, &found.database)?;
        let (settings, side) = (&self.world.settings, self.side(served));
        if let Err(refusal) = rules::stays(vdir, name, server, settings, side) {
            let why = format!("servers.{}.url_name; it keeps the new name", server.name);
            self.refuse("other name", &refusal, why);
            return Ok(());
        }
        self.hand_off();
        self.patience(served, server);
        Ok(())
    }

    /// A channel of Outlook Anywhere.
    pub(super) fn channel(
        &mut self,
        name: &'a PublicName,
        id: Option<&'a str>,
        findings: &Findings,
    ) -> Result<(), End> {
        if !self.world.settings.autodiscover.outlook_anywhere {
            let why = "autodiscover.outlook_anywhere is off";
            return Err(self.refuse("path", &Refusal::UnknownPath, why));
        }
        self.speaks_mapi = false;
        let why = match name.channels {
            Some(_) => "`names[].paths` of this path; challenges in this order",
            None => "`names[].authentication`; challenges in this order",
        };
        self.schemes_are(name.offered_to_channels(), why.to_owned());
        let Some(id) = id else {
            let words = "an echo of ours: the URL names no mailbox, as clients ask for challenges";
            self.fact("answer", words, None);
            return Err(End::Served);
        };
        let found = self.mailbox(Some(id), findings)?;
        let server = self.server(&found.database)?;
        let world = self.world;
        let capable = |server: &ServerName| {
            let server = world.settings.servers.get(server);
            server.is_some_and(|server| server.capable.outlook_anywhere)
        };
        let (placement, health, wards) =
            (&world.placement, &world.health, world.wards.of(Ward::Rpc));
        match routing::channel(
            &found.database,
            None,
            &[],
            placement,
            health,
            wards,
            capable,
        ) {
            Ok((server, _)) => {
                let words = format!("a new virtual connection goes to {server}");
                let why = "all its channels go there, and end when the database moves";
                self.fact("route", words, Some(why.to_owned()));
            }
            Err(refusal) => return Err(self.refuse("route", &refusal, REPAIR)),
        }
        self.hand_off();
        self.limits(server);
        Ok(())
    }

    /// Where the client is taken to be. Who does not say so is taken to be inside where that matters and can be.
    fn side(&self, served: &VdirSettings) -> Side {
        let settings = &self.world.settings.autodiscover;
        match self.question.from {
            Some(address) => Side::of(address, settings),
            None if served.inside_only && !settings.internal_networks.is_empty() => Side::Inside,
            None => Side::Anywhere,
        }
    }

    fn reach(&mut self, vdir: Vdir) -> Result<&'a VdirSettings, End> {
        let settings = &self.world.settings;
        let side = settings.vdirs.get(vdir).map(|served| self.side(served));
        match rules::open_to(vdir, settings, side.unwrap_or(Side::Anywhere)) {
            Ok(served) => {
                let (words, why) = match (served.inside_only, self.question.from) {
                    (false, _) => ("served to clients everywhere", None),
                    (true, Some(_)) => ("served to clients inside, as this one is", Some(NETWORKS)),
                    (true, None) => (
                        "served to clients inside; where this one is has not been said",
                        Some("say it: --from ADDRESS"),
                    ),
                };
                self.fact("directory", words, why.map(str::to_owned));
                Ok(served)
            }
            Err(refusal) => {
                let networks = &settings.autodiscover.internal_networks;
                let why = match &refusal {
                    Refusal::InsideOnly(_) if networks.is_empty() => {
                        "there are no autodiscover.internal_networks, so nobody is inside; see `from` under virtual_directories.paths"
                    }
                    Refusal::InsideOnly(_) => NETWORKS,
                    _ => "it is off: see virtual_directories, `preset` and `from` under `paths`",
                };
                Err(self.refuse("directory", &refusal, why))
            }
        }
    }

    /// By which versions of HTTP a name that offers both may be asked for the directory.
    fn protocols(&mut self, vdir: Vdir, name: &PublicName) {
        if !name.http2 {
            return;
        }
        let by_http2 = self
            .world
            .settings
            .by_http2(name, Shareable::Vdir(vdir), None);
        let (words, why) = match by_http2 {
            Ok(()) => ("HTTP/2 or HTTP/1.1", "names[].http2"),
            Err(why) => ("HTTP/1.1 alone", why.words()),
        };
        self.fact("protocol", words, Some(why.to_owned()));
    }

    fn schemes_below(&mut self, served: &'a VdirSettings, name: &'a PublicName) {
        let why = match served.logon {
            VdirLogon::AsName => "`names[].authentication`; challenges in this order",
            VdirLogon::Schemes(_) => {
                "virtual_directories.paths[].authentication; challenges in this order"
            }
            VdirLogon::Server => {
                let words =
                    "the mailbox server's own form: requests of strangers reach mailbox servers";
                let why = "virtual_directories.paths[].authentication is [server]".to_owned();
                return self.fact("authentication", words, Some(why));
            }
        };
        let offered = rules::offered(served, name, &self.world.settings);
        self.schemes_are(&offered, why.to_owned());
    }

    pub(super) fn schemes_are(&mut self, offered: &[Scheme], mut why: String) {
        if offered.contains(&Scheme::Certificate) {
            why.push_str("; a certificate has no challenge");
        }
        let words: Vec<_> = offered.iter().map(|scheme| scheme.as_str()).collect();
        let words = match words.is_empty() {
            true => "none: nobody can sign on".to_owned(),
            false => words.join(", "),
        };
        self.fact("authentication", words, Some(why));
    }

    /// How a request may be made, and what in it may name a mailbox.
    fn takes(&mut self, vdir: Vdir, served: &VdirSettings) {
        let verbs: Vec<_> = served.verbs.iter().map(|verb| verb.as_str()).collect();
        let body = match served.body_max {
            0 => "no bodies".to_owned(),
            most => format!("bodies of {}", bytesize::ByteSize(most)),
        };
        let tunnels = match served.websocket {
            true => "WebSockets",
            false => "no WebSockets",
        };
        let words = format!("{}; {body}; {tunnels}", verbs.join(", "));
        let why =
            "virtual_directories: the preset, `methods`, `body` and `websocket` under `paths`";
        self.fact("takes", words, Some(why.to_owned()));
        if served.logon == VdirLogon::Server {
            return;
        }
        let mut ways = Vec::new();
        if served.anchor_in_path && vdir.has_explicit_logon() {
            ways.push("an address in the path (explicit logon)");
        }
        if served.anchor_in_header {
            ways.push("X-AnchorMailbox");
        }
        if vdir == Vdir::Ews && self.world.sealer.is_some() {
            ways.push("the sealed cookie of an EWS subscription");
        }
        let words = match ways.is_empty() {
            true => "the user's own mailbox, whatever a request says".to_owned(),
            false => format!("the user's own mailbox, or that of {}", ways.join(", of ")),
        };
        let why = "virtual_directories.paths[].anchor; it chooses the server and not the user";
        self.fact("anchor", words, Some(why.to_owned()));
    }

    /// The mailbox that decides.
    fn anchored(
        &mut self,
        vdir: Vdir,
        served: &VdirSettings,
        target: &Target<'a>,
        findings: &Findings,
    ) -> Result<Found, End> {
        if let Some(written) = target.mailbox {
            let address = rules::explicit_logon(written, served).map_err(|refusal| {
                let why = "virtual_directories.paths[].anchor has no `path`";
                self.refuse("mailbox", &refusal, why)
            })?;
            let asker = self.question.user.clone();
            return self.mailbox_of_address(&address, asker.as_deref(), findings);
        }
        if let Some(user) = &self.question.user {
            return self.person(user, findings);
        }
        let named = target.query.filter(|_| vdir == Vdir::ActiveSync);
        if let Some(user) = named.and_then(|query| parameter(query, "User")) {
            let words = format!("whoever signs on, taken to be `User={user}`");
            let why = "the query decides nothing: the credentials do";
            self.fact("device of", words, Some(why.to_owned()));
            return self.person(&user, findings);
        }
        let why = "say who: --user NAME";
        let words = "the own one of whoever signs on";
        self.fact("mailbox", words, Some(why.to_owned()));
        Err(End::Served)
    }

    /// The mailbox of an address in a path. Without an asker it is its owner who asks.
    fn mailbox_of_address(
        &mut self,
        address: &str,
        asker: Option<&str>,
        findings: &Findings,
    ) -> Result<Found, End> {
        let directory = &self.world.directory;
        let basic = self.world.settings.auth.basic.as_ref();
        let domain = basic.and_then(|basic| basic.default_domain.as_deref());
        let user = match asker {
            Some(asker) => canonical(asker, domain).ok_or_else(|| self.nobody())?,
            None => UserName::new(address),
        };
        if asker.is_some() {
            self.fact("user", user.to_string(), None);
        }
        let whose = directory.whose_address(Some(address), &user, findings, self.now);
        match whose {
            Whose::Forbidden if asker.is_some() => {
                let why = "directory.access, or the mailbox' own, is `listed`, and this user is not on the list";
                Err(self.refuse("mailbox", &Refusal::MailboxForbidden, why))
            }
            whose if self.world.book.is_some() => self.in_service(address, whose, findings),
            Whose::Mailbox(_, database) => {
                let home = directory.mailbox_of(address);
                match home.or_else(|| directory.mailbox(address)) {
                    Some(home) => self.found(&home),
                    None => Ok(self.by_default(database)),
                }
            }
            _ => Err(self.unknown(address)),
        }
    }

    fn route_below(
        &mut self,
        vdir: Vdir,
        served: &VdirSettings,
        database: &DatabaseName,
    ) -> Result<(), End> {
        let world = self.world;
        let wards = world.wards.of(vdir);
        let server = match routing::home(database, &world.placement, &world.health, wards, &[]) {
            Ok(server) => server,
            Err(refusal) => return Err(self.refuse("route", &refusal, REPAIR)),
        };
        let why = match (&served.page, self.health) {
            (None, _) => {
                "nobody looks whether it serves this directory (`health_page: off`)".to_owned()
            }
            (Some(page), Health::Unknown) => {
                format!("whether its {} answers is unknown", page.path)
            }
            (Some(page), Health::Watched) if wards.is_up(server) => {
                format!("its {} answers, or it has none", page.path)
            }
            (Some(page), Health::Watched) => {
                format!(
                    "its {} does not answer, as on too many to be believed",
                    page.path
                )
            }
        };
        self.fact("route", format!("goes to {server}"), Some(why));
        Ok(())
    }

    fn patience(&mut self, served: &VdirSettings, server: &Server) {
        let words = format!(
            "{} of silence of the server; {} requests of a user at once, {} at {}",
            humantime::format_duration(served.silence),
            self.world.settings.limits.requests_per_user,
            server.requests_max,
            server.name,
        );
        let why = "virtual_directories.paths[].timeout, limits, servers.*.requests_max";
        self.fact("limits", words, Some(why.to_owned()));
    }

    /// What stands behind a page that a load balancer asks for.
    pub(super) fn page(&mut self, told: Result<(), &'static str>) -> End {
        match told {
            Ok(()) => {
                let why = "a mailbox server that is up serves it";
                self.fact("answer", "HTTP 200", Some(why.to_owned()));
                End::Served
            }
            Err(why) => {
                self.fact("answer", "HTTP 503", Some(why.to_owned()));
                End::Refused
            }
        }
    }

    /// Why a path is none that the gate opens to.
    pub(super) fn shut(&self, target: &str, refusal: &Refusal) -> String {
        let path = target.split('?').next().unwrap_or_default();
        let first = path.split('/').nth(1).unwrap_or_default();
        let is_vdir = Vdir::of_path(&format!("/{first}")).is_some();
        match refusal {
            Refusal::UnknownPath if is_vdir && self.world.settings.vdirs.is_empty() => {
                "there is no `virtual_directories`: nothing but MAPI, Outlook Anywhere and Autodiscover is served".to_owned()
            }
            Refusal::Malformed(_) if is_vdir => {
                "what two readers could read in two ways, or only a front end may say, goes no further".to_owned()
            }
            _ => format!("the gate opens to no such path as {path}"),
        }
    }
}

/// What a directory is.
pub(super) const fn in_words(vdir: Vdir) -> &'static str {
    match vdir {
        Vdir::Ews => "Exchange Web Services",
        Vdir::Owa => "Outlook on the web",
        Vdir::Ecp => "the settings pages of users and administrators",
        Vdir::Oab => "offline address books",
        Vdir::ActiveSync => "Exchange ActiveSync",
        Vdir::PowerShell => "remote PowerShell",
        Vdir::Api => "the REST interface",
    }
}

const NETWORKS: &str = "autodiscover.internal_networks, and `from` under virtual_directories.paths";
const REPAIR: &str = "repair the server, or activate another copy and reload";
