//! Every key of the configuration: its kind, its default, its sentence.
//!
//! The one place that knows the keys. What is refused as unknown, what the defaults are,
//! `mapigate schema`, `conf/reference.yaml` and the ranges in messages all follow from [`KEYS`].
//! A new key is one entry here and one line that reads it.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A key: where it stands, what it holds, what it means.
#[derive(Debug)]
pub struct Key {
    /// Its path: `servers.*.tls.ca`. `*` stands for a name the administrator chooses, `[]` for an
    /// item of a list.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What is true where it is not written.
    pub given: Given,
    /// What it means, in a sentence or two.
    pub doc: &'static str,
}

impl Key {
    /// The last word of the path, as it is written in the file.
    pub fn leaf(&self) -> &'static str {
        split(self.path).1
    }

    /// The path of the section it stands in; empty at the top.
    pub fn parent(&self) -> &'static str {
        split(self.path).0
    }
}

/// What is true where a key is not written.
#[derive(Clone, Copy, Debug)]
pub enum Given {
    /// This value, in the words of the file. Sections have defaults of their own inside.
    Default(&'static str),
    /// The key must be written.
    Required {
        /// A value to show.
        example: &'static str,
        /// Why there is no default.
        why: &'static str,
    },
    /// The key may be left out, and mostly is.
    Optional {
        /// A value to show.
        example: &'static str,
        /// What happens without it.
        without: &'static str,
    },
    /// The key may be left out, and mostly is not.
    Usual {
        /// A value to show.
        example: &'static str,
        /// What happens without it.
        without: &'static str,
    },
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Keys of its own.
    Section,
    /// Keys of its own, or the word `off`.
    SectionOrOff,
    /// Values by a name the administrator chooses; an example name.
    Named(&'static Self, &'static str),
    /// The same, or `file: PATH` with the same in a file of its own.
    NamedOrFile(&'static Self, &'static str),
    /// A list.
    List(&'static Self),
    /// Any line of text.
    Text,
    /// A password: text, `${ENV}` or `file:PATH`.
    Secret,
    /// The name of a server or database.
    Name,
    /// A host name.
    Host,
    /// `HOST:PORT`.
    HostPort,
    /// `IP:PORT`.
    Address,
    /// `IP:PORT`, or the word `off`.
    AddressOrOff,
    /// `ADDRESS/PREFIX`.
    Network,
    /// `https://HOST/mapi`.
    MapiUrl,
    /// A URL with `https`; with `http` on the loopback only.
    Url,
    /// A URL with `https`.
    HttpsUrl,
    /// A build of a mailbox server: `15.1.2507.6`.
    Build,
    /// A path of a page, or the word `off`.
    PageOrOff,
    /// The path of a file that exists.
    File,
    /// The path of a folder that may be made.
    Folder,
    /// The path of a file that may be made, or one of the words.
    FileOr(&'static [&'static str]),
    /// The name of a header or cookie.
    Token,
    /// A filter of the operator's log.
    LogFilter,
    /// `true` or `false`.
    Switch,
    /// A whole number between two bounds.
    Count(u64, u64),
    /// The same, or the word `auto`.
    CountOrAuto(u64, u64),
    /// A duration between two bounds in milliseconds.
    Duration(u64, u64),
    /// A size between two bounds in bytes.
    Size(u64, u64),
    /// One of the words.
    Choice(&'static [&'static str]),
}

/// The keys that stand directly in the section of this path (`servers.*`), in the order of the file.
pub fn children(path: &str) -> &'static [&'static Key] {
    static BY_PARENT: LazyLock<HashMap<&'static str, Vec<&'static Key>>> = LazyLock::new(|| {
        let mut by_parent: HashMap<_, Vec<_>> = HashMap::new();
        for key in KEYS {
            by_parent.entry(key.parent()).or_default().push(key);
        }
        by_parent
    });
    BY_PARENT.get(path).map_or(&[], Vec::as_slice)
}

/// The key of this name in the section of this path.
pub fn find(parent: &str, leaf: &str) -> Option<&'static Key> {
    children(parent)
        .iter()
        .copied()
        .find(|key| key.leaf() == leaf)
}

fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

const fn default(value: &'static str) -> Given {
    Given::Default(value)
}

const fn section() -> Given {
    Given::Default("")
}

const fn required(example: &'static str, why: &'static str) -> Given {
    Given::Required { example, why }
}

const fn optional(example: &'static str, without: &'static str) -> Given {
    Given::Optional { example, without }
}

const fn usual(example: &'static str, without: &'static str) -> Given {
    Given::Usual { example, without }
}

/// What `names[].authentication` may hold.
const SCHEMES: &[&str] = &["basic", "bearer", "certificate", "negotiate", "ntlm"];
/// What a virtual directory may hold instead.
const VDIR_SCHEMES: &[&str] = &[
    "basic",
    "bearer",
    "certificate",
    "negotiate",
    "ntlm",
    "server",
];
/// Signatures that anybody can check and only the issuer can make. RFC 7518 3.1
const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];
/// Milliseconds.
const MS: u64 = 1;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// As durations are written: 365.25 days.
const YEAR: u64 = 8766 * HOUR;
/// Bytes.
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

macro_rules! keys {
    ($($path:literal $kind:expr, $given:expr, $doc:literal;)*) => {
        &[$(Key { path: $path, kind: $kind, given: $given, doc: $doc }),*]
    };
}

use Kind::*;

/// All keys, in the order of the file.
pub const KEYS: &[Key] = keys! {
    "version" Choice(&["1"]), required("1", "it says which rules the rest of the file follows"),
        "The version of these rules.";
    "workers" CountOrAuto(1, 1024), default("auto"),
        "Threads that carry connections; auto: one per core.";

    "listeners" List(&Section), required("", "without one nobody can connect"),
        "Where clients reach us.";
    "listeners[].address" Address, required("0.0.0.0:443", "a port that opens by itself would be a surprise"),
        "Address and port. `[::]:443` serves IPv6 and IPv4.";
    "listeners[].certificates" List(&Section), usual("", "the listener must say `plain_http: true`"),
        "Certificates of this listener; the client's SNI chooses among them, the first answers the rest.";
    "listeners[].certificates[].chain" File, required("mail.pem", "nobody else can know where it is"),
        "PEM file with the certificate and its intermediates, the server's own first.";
    "listeners[].certificates[].key" File, required("mail.key", "nobody else can know where it is"),
        "PEM file with the private key.";
    "listeners[].plain_http" Switch, default("false"),
        "Speak HTTP without TLS. Passwords travel in clear: only behind a TLS terminator on the same host.";
    "listeners[].proxy_protocol_from" List(&Network), default("[]"),
        "Load balancers whose PROXY protocol v2 head is required and believed; everybody else's is refused.";

    "listeners[].client_certificates" Section, optional("", "clients are asked for none"),
        "Certificates of clients, for `authentication: [certificate]` and for sites that let nobody in without.";
    "listeners[].client_certificates.mode" Choice(&["off", "request", "require"]), default("request"),
        "request: who has one may show it. require: nobody is served without. off: as if this section were not here.";
    "listeners[].client_certificates.ca" File, required("clients-ca.pem", "nobody else can know whom the site trusts"),
        "PEM file with the authorities that may sign them. The system's authorities are not trusted here.";
    "listeners[].client_certificates.crl" List(&File), default("[]"),
        "Files with revocation lists, PEM or DER. With any, the authority of each client's certificate must have one, and none may be too old. Read again with the configuration.";

    "tls" Section, section(),
        "What all TLS listeners share.";
    "tls.versions" List(&Choice(&["1.2", "1.3"])), default("[\"1.2\", \"1.3\"]"),
        "Versions we speak. Outlook on Windows before 11 needs 1.2.";
    "tls.handshake_timeout" Duration(100 * MS, 5 * MINUTE), default("10s"),
        "A handshake that takes longer is cut.";
    "tls.handshakes_max" Count(1, 1_000_000), default("1024"),
        "Handshakes under way at once, each from the client's first byte on; more wait, connected, until `handshake_timeout` cuts them. Who connects and says nothing takes no place.";
    "tls.handshakes_per_address" Count(1, 1_000_000), optional("128", "an eighth of `handshakes_max`"),
        "So many of one address (of IPv6, 64 bits of it; behind a load balancer, of the client that its PROXY head names); more of it wait. Where a balancer without the PROXY protocol is everybody's address, write as many as `handshakes_max`.";
    "tls.ticket_rotation" Duration(SECOND, 7 * DAY), default("6h"),
        "A session ticket key is replaced this often, and honoured for as long again.";

    "names" List(&Section), required("", "clients are answered only by a name"),
        "What Outlook calls us.";
    "names[].host" Host, required("mail.contoso.com", "it is the name in the certificate and in Autodiscover"),
        "The host name.";
    "names[].internal_url" MapiUrl, optional("https://mail.contoso.com/mapi", "it is `https://HOST/mapi`"),
        "Base URL for clients inside.";
    "names[].external_url" MapiUrl, optional("https://mail.contoso.com/mapi", "clients outside are told none"),
        "Base URL for clients outside.";
    "names[].authentication" List(&Choice(SCHEMES)), default("[basic]"),
        "Schemes that are accepted here, and the order of their challenges in a 401. Outlook with modern authentication wants bearer first, members of a domain want negotiate before basic. A certificate has no challenge; credentials in a request count before it.";
    "names[].autodiscover" Choice(&["proxy", "answer", "off"]), optional("answer", "it is what `autodiscover.mode` says"),
        "Who answers Autodiscover under this name; see `autodiscover.mode`.";
    "names[].http2" Switch, default("false"),
        "Offer HTTP/2 to clients that ask for this name by TLS. It carries the other virtual directories and Autodiscover where nothing of negotiate and ntlm is offered; whatever else is asked for by it is told to come again by HTTP/1.1.";

    "names[].paths" List(&Section), optional("", "all paths of the name accept the same"),
        "Paths that accept other schemes than the rest of the name.";
    "names[].paths[].path" Choice(&["/mapi/emsmdb", "/mapi/nspi", "/rpc"]), required("/mapi/nspi", "it is what differs"),
        "The path: mailboxes (`/mapi/emsmdb`), the address book (`/mapi/nspi`) or Outlook Anywhere (`/rpc`, and `/rpcwithcert` with it).";
    "names[].paths[].authentication" List(&Choice(SCHEMES)), required("[basic]", "it is what differs"),
        "Schemes that are accepted there instead, and the order of their challenges.";

    "servers" Named(&Section, "MBX1"), required("", "mail must live somewhere"),
        "Mailbox servers, by the names that `databases` uses.";
    "servers.*.address" HostPort, required("mbx1.contoso.com:443", "only the site knows it"),
        "Host and port.";
    "servers.*.tls" SectionOrOff, section(),
        "TLS to the server, on unless this says `tls: off`.";
    "servers.*.tls.ca" File, optional("site-ca.pem", "the system's authorities are trusted"),
        "PEM file with the authorities that may sign the server's certificate.";
    "servers.*.tls.name" Host, optional("mbx1.contoso.com", "it is the host of `address`"),
        "The name the server's certificate must carry.";
    "servers.*.tls.client_certificate" Section, optional("", "none is shown"),
        "Our certificate, for servers that ask for one.";
    "servers.*.tls.client_certificate.chain" File, required("proxy.pem", "nobody else can know where it is"),
        "PEM file with our certificate and its intermediates.";
    "servers.*.tls.client_certificate.key" File, required("proxy.key", "nobody else can know where it is"),
        "PEM file with its private key.";
    "servers.*.flavour" Choice(&["exchange", "gromox"]), default("exchange"),
        "Which family the server belongs to: cookie names, code numbers and habits differ.";
    "servers.*.version" Build, optional("15.1.2507.6", "it is taken to be one that speaks MAPI over HTTP"),
        "Its build of Exchange. Before 15.0.847 (2013 SP1) it does not speak MAPI over HTTP, before 15.0 (2013) its clients inside use RPC; Autodiscover offers what the server of the active copy speaks.";
    "servers.*.capability" List(&Choice(&["mapi_http", "outlook_anywhere"])), default("[mapi_http, outlook_anywhere]"),
        "What the server speaks; where this is not written, its `version` decides about mapi_http. Without mapi_http it gets no MAPI over HTTP requests, and Autodiscover does not offer it for mailboxes that are active there.";
    "servers.*.url_name" Host, optional("mail.eu.contoso.com", "clients reach it by any name"),
        "The one of `names` by which clients are to reach the mailboxes that are active there, where a site has several. Autodiscover tells its URLs, and a device that comes with ActiveSync to another name is sent there (451).";
    "servers.*.authenticates" Choice(&["requests", "connections"]), optional("connections", "connections for exchange, requests for gromox"),
        "What a login proves there: one request, or the whole connection. A connection that has carried one user never carries another where it says connections.";
    "servers.*.health_weight" Count(0, 100), default("1"),
        "How much it counts when `health.panic_threshold` is reckoned.";
    "servers.*.idle_connections" Count(0, 65_536), default("256"),
        "Unused connections kept, per worker.";
    "servers.*.idle_timeout" Duration(100 * MS, HOUR), default("60s"),
        "An unused connection is closed after this; must be shorter than the server's own keep-alive (gromox: 180 s).";
    "servers.*.requests_max" Count(1, 1_000_000), default("10000"),
        "Requests under way at once, held polls included.";
    "servers.*.normalize" Switch, default("true"),
        "Rewrite its response codes into the specification's numbers and restore missing echo headers.";

    "databases" NamedOrFile(&Section, "DB07"), required("", "mailboxes live in databases"),
        "Mailbox databases.";
    "databases.file" File, optional("databases.yaml", "the databases stand here"),
        "A file with the key `databases` and nothing else, so that a failover script rewrites one small file. Instead of names, not beside them.";
    "databases.copies_from" Choice(&["configuration", "directory"]), default("configuration"),
        "configuration: every database is listed with its copies. directory: `directory.ldap` knows them, and the order of their activation; what is listed here goes before.";
    "databases.*.copies" List(&Name), usual("[MBX1]", "the directory knows them (`copies_from: directory`); else it must be written"),
        "Servers that hold a copy, in activation order.";
    "databases.*.active" Name, optional("MBX1", "it is the first of `copies`"),
        "The server that holds the active copy; it alone gets the requests.";

    "directory" Section, required("", "without it no mailbox is found; name a `file`, `ldap`, or `default_databases`"),
        "Which mailbox lives in which database.";
    "directory.file" File, usual("mailboxes.yaml", "every mailbox lives in its domain's default database"),
        "The mailbox file.";
    "directory.default_databases" Named(&Name, "contoso.com"), optional("DB07", "a mailbox that is in neither is not found"),
        "Databases of mailboxes that are in neither the file nor the directory service, by domain.";
    "directory.access" Choice(&["backend", "listed"]), default("backend"),
        "Who decides whether a user may open another's mailbox: the mailbox server, under the user's own identity, or the list: `users` in the mailbox file, `ldap.attributes.delegates` in the directory service.";
    "directory.ldap" Section, optional("", "mailboxes come from the file"),
        "Active Directory or another LDAP service, instead of a mailbox file. It says who lives in which database, and with `databases.copies_from` which servers have copies; where a database is active, `databases` says.";
    "directory.ldap.urls" List(&Text), required("[\"ldaps://dc1.contoso.com\", \"ldaps://dc2.contoso.com\"]", "only the site knows it"),
        "Its servers, the one to prefer first: `ldaps://HOST`, or `ldap://HOST` with `starttls: true`. Port 3269 is the global catalog of a forest.";
    "directory.ldap.starttls" Switch, default("false"),
        "Switch to TLS on the plain port of `ldap://`.";
    "directory.ldap.allow_plain" Switch, default("false"),
        "Speak `ldap://` without TLS beyond this machine. Everybody's password travels in clear.";
    "directory.ldap.ca" File, optional("site-ca.pem", "the system's authorities are trusted"),
        "PEM file with the authorities that may sign the certificates of its servers.";
    "directory.ldap.bind_name" Text, required("svc-mapigate@contoso.com", "a directory does not show people to just anybody"),
        "The account that looks people up, as DN or user principal name. It needs no rights beyond reading.";
    "directory.ldap.bind_password" Secret, required("file:ldap.password", "it is a secret of the site"),
        "Its password, as `${ENV}` or `file:PATH`.";
    "directory.ldap.base" Text, required("DC=contoso,DC=com", "only the site knows it"),
        "The DN below which people are.";
    "directory.ldap.people" Text, default("(objectCategory=person)"),
        "Which entries are people, as an LDAP filter (RFC 4515); `(objectClass=inetOrgPerson)` elsewhere than in Active Directory.";
    "directory.ldap.netbios_domain" Text, optional("CONTOSO", "names written `DOMAIN\\user` are unknown"),
        "The domain of names written `DOMAIN\\user`.";
    "directory.ldap.attributes" Section, section(),
        "What attributes are called; `off`: not used. The defaults are those of Active Directory with Exchange.";
    "directory.ldap.attributes.upn" Text, default("userPrincipalName"),
        "The login name with its domain.";
    "directory.ldap.attributes.account" Text, default("sAMAccountName"),
        "The login name without a domain.";
    "directory.ldap.attributes.addresses" Text, default("proxyAddresses"),
        "Addresses, with or without `smtp:` before them.";
    "directory.ldap.attributes.mail" Text, default("mail"),
        "The address. Counts only where no login name and none of `addresses` is the name that is asked for.";
    "directory.ldap.attributes.sid" Text, default("objectSid"),
        "The security identifier.";
    "directory.ldap.attributes.object" Text, default("objectGUID"),
        "What an entry keeps when it is renamed; `entryUUID` elsewhere. With `off` its DN.";
    "directory.ldap.attributes.mailbox_guid" Text, default("msExchMailboxGuid"),
        "The GUID of the mailbox, which stands before the `@` of the `MailboxId` in MAPI URLs.";
    "directory.ldap.attributes.guid_form" Choice(&["bytes", "text"]), default("bytes"),
        "How GUIDs are written: 16 bytes as in Active Directory, or text as in URLs.";
    "directory.ldap.attributes.archive_guid" Text, default("msExchArchiveGUID"),
        "The GUID of the archive mailbox.";
    "directory.ldap.attributes.database" Text, default("homeMDB"),
        "The database of the mailbox.";
    "directory.ldap.attributes.database_form" Choice(&["dn", "text"]), default("dn"),
        "How databases are written: the DN of an entry that is called like the database, or its name.";
    "directory.ldap.attributes.archive_database" Text, default("msExchArchiveDatabaseLink"),
        "The database of the archive mailbox; where a user has none, that of the mailbox.";
    "directory.ldap.attributes.recipient_type" Text, default("msExchRecipientTypeDetails"),
        "What kind of recipient it is. With `off` every entry with a database has a mailbox here.";
    "directory.ldap.attributes.control" Text, default("userAccountControl"),
        "Bits about the account.";
    "directory.ldap.attributes.disabled_bit" Count(0, 0x8000_0000), default("2"),
        "The bit of `control` that says the account is disabled, as a number; 0: none does.";
    "directory.ldap.attributes.password_changed" Text, default("pwdLastSet"),
        "Changes with the password. When it does, what was verified of the user is forgotten.";
    "directory.ldap.attributes.display_name" Text, default("displayName"),
        "What somebody is called, for Autodiscover in answers of our own. With `off` the address stands there.";
    "directory.ldap.attributes.legacy_dn" Text, default("legacyExchangeDN"),
        "The distinguished name in the address book, for Autodiscover in answers of our own. Outlook may ask by it for its own mailbox.";
    "directory.ldap.attributes.delegates" Text, default("msExchDelegateListLink"),
        "DNs of those who may open the mailbox too, for `access: listed`. Exchange writes it with full access.";
    "directory.ldap.attributes.changed" Text, default("uSNChanged"),
        "Grows with every change. With `off` changes are seen when `ttl` is over.";
    "directory.ldap.copies" Section, section(),
        "Copies of databases, for `databases.copies_from` and for `mapigate check --directory`: each is an entry below that of its database. The defaults are Exchange's.";
    "directory.ldap.copies.base" Text, optional("CN=Microsoft Exchange,CN=Services,CN=Configuration,DC=contoso,DC=com", "it is the configuration partition of the server that is asked"),
        "The DN below which databases and servers are.";
    "directory.ldap.copies.class" Text, default("msExchMDBCopy"),
        "The class of a copy.";
    "directory.ldap.copies.server" Text, default("msExchHostServerLink"),
        "The DN of the server that holds the copy.";
    "directory.ldap.copies.preference" Text, default("msExchActivationPreference"),
        "The copy's place in the order of activation, from 1. off: the order is that of the servers' names.";
    "directory.ldap.copies.server_class" Text, default("msExchExchangeServer"),
        "The class of servers. off: a server is one of `servers` by its name alone.";
    "directory.ldap.copies.server_address" Text, default("networkAddress"),
        "Host names of a server, as `ncacn_ip_tcp:mbx1.contoso.com`: the one of `servers` with this address, or with this name in its certificate, is meant where none has its name. off: they do not count.";
    "directory.ldap.recipient_types" List(&Count(0, 0x8000_0000_0000)), default("[1, 2, 4, 16, 32]"),
        "Kinds of recipients whose mailboxes are here: user 1, linked 2, shared 4, room 16, equipment 32. Mailboxes in Exchange Online are 2147483648.";
    "directory.ldap.cache" Section, section(),
        "What is remembered of the directory.";
    "directory.ldap.cache.ttl" Duration(SECOND, DAY), default("15m"),
        "An entry is asked for again after this. Changes are seen earlier; this is for those that do not show, as removed users.";
    "directory.ldap.cache.negative_ttl" Duration(SECOND, HOUR), default("30s"),
        "What was not there is asked for again after this.";
    "directory.ldap.cache.stale_on_error" Duration(0, 7 * DAY), default("1d"),
        "While no server of the directory answers, what is known of somebody is believed this long.";
    "directory.ldap.cache.capacity" Count(100, 10_000_000), default("200000"),
        "Names and mailboxes remembered at once, two for a user; about 600 bytes each.";
    "directory.ldap.refresh" Duration(SECOND, HOUR), default("30s"),
        "Time between two looks for changes: moved mailboxes, new addresses, disabled accounts, changed passwords.";
    "directory.ldap.search_connections" Count(1, 64), default("2"),
        "Connections for searches; each carries many at once.";
    "directory.ldap.bind_connections" Count(1, 256), default("4"),
        "Connections on which passwords are tried, one at a time each. They carry nothing else.";
    "directory.ldap.connect_timeout" Duration(50 * MS, MINUTE), default("3s"),
        "A connection that takes longer has failed, and the next server is tried.";
    "directory.ldap.operation_timeout" Duration(50 * MS, MINUTE), default("5s"),
        "An answer that takes longer has failed, and the next server is tried.";

    "autodiscover" Section, section(),
        "What clients that look for their mailbox are told.";
    "autodiscover.mode" Choice(&["proxy", "answer", "off"]), default("proxy"),
        "proxy: the mailbox server's answer, with what must not be offered taken out and the public names put in. answer: our own, from the mailbox file or the directory service. off: 404.";
    "autodiscover.mapi_http" Switch, default("true"),
        "The organisation's switch: offer MAPI over HTTP to clients that say they speak it. A mailbox' own switch in the mailbox file goes before.";
    "autodiscover.block_external" Switch, default("false"),
        "Tell internal URLs only, and clients outside the internal networks, where some are named, nothing to connect to.";
    "autodiscover.internal_networks" List(&Network), default("[]"),
        "Where clients inside are; []: nobody is told apart.";
    "autodiscover.outlook_anywhere" Switch, default("true"),
        "Outlook Anywhere (RPC over HTTP): offered where MAPI over HTTP is not, and served under `/rpc` and `/rpcwithcert`. false: neither.";
    "autodiscover.other_mailboxes" Choice(&["allowed", "own"]), default("allowed"),
        "Whose settings a user may ask for. allowed: those of every mailbox that `directory.access` lets the user open. own: the user's own, and those of mailboxes that list the user. For all others the answer is that of an address that does not exist.";
    "autodiscover.ews_url" HttpsUrl, optional("https://mail.contoso.com/ews/exchange.asmx", "our own answers name none"),
        "Exchange Web Services, in our own answers: free and busy times, absence.";
    "autodiscover.oab_url" HttpsUrl, optional("https://mail.contoso.com/oab/", "our own answers name none"),
        "Offline address books, in our own answers.";
    "autodiscover.activesync_url" HttpsUrl, optional("https://mail.contoso.com/Microsoft-Server-ActiveSync", "phones are told none"),
        "Exchange ActiveSync, in answers to V2 JSON.";
    "autodiscover.redirects" Named(&HttpsUrl, "fabrikam.com"), optional("https://autodiscover.fabrikam.com/autodiscover/autodiscover.xml", "all mailboxes live here"),
        "Autodiscover of others, by the domain of the addresses they answer for.";

    "virtual_directories" Section, optional("", "nothing but MAPI and Autodiscover is served"),
        "The other services of the mailbox servers, passed on below their paths.";
    "virtual_directories.preset" Choice(&["exchange2013", "exchange2016", "exchange2019", "gromox"]), required("exchange2019", "it says what the mailbox servers serve and how"),
        "Which directories are served, to whom, and all that is not written under `paths`. /ecp and /powershell are for clients inside, gromox serves /ews, /oab and /Microsoft-Server-ActiveSync.";
    "virtual_directories.requests_per_address" Count(1, 1_000_000), default("1000"),
        "Requests under way at once from one address (of IPv6, 64 bits of it), below directories where only the mailbox server finds out who asks. Many people may share an address.";
    "virtual_directories.paths" List(&Section), optional("", "all are as the preset has them"),
        "Directories that differ from the preset.";
    "virtual_directories.paths[].path" Choice(&["/ews", "/owa", "/ecp", "/oab", "/Microsoft-Server-ActiveSync", "/powershell", "/api"]), required("/ews", "it is what differs"),
        "The directory.";
    "virtual_directories.paths[].from" Choice(&["everywhere", "inside", "off"]), optional("everywhere", "the preset says it"),
        "Who is served: clients everywhere, those inside `autodiscover.internal_networks`, or nobody.";
    "virtual_directories.paths[].authentication" List(&Choice(VDIR_SCHEMES)), optional("[basic]", "it is what the name accepts"),
        "Schemes that are accepted there instead, and the order of their challenges. `[server]`, for /owa and /ecp: the mailbox server shows a form and judges it; then requests of strangers reach the mailbox servers.";
    "virtual_directories.paths[].anchor" List(&Choice(&["path", "header"])), optional("[path]", "[path] for Exchange's /ews, /owa and /ecp, [] for the rest"),
        "What may name another mailbox than the user's own, for the choice of the server and nothing else: the address in the path (explicit logon), the header X-AnchorMailbox.";
    "virtual_directories.paths[].timeout" Duration(SECOND, 2 * HOUR), optional("31m", "31m for /ews, 61m for ActiveSync, 5m for /owa, /ecp and /powershell, 2m for the rest"),
        "A server that gives no sign of life for so long has failed. Held requests need more than the server holds them.";
    "virtual_directories.paths[].body" Size(0, 4 * GIB), optional("64MiB", "64MiB for /ews and /powershell, 0B for /oab, 35MiB for the rest"),
        "A request body.";
    "virtual_directories.paths[].methods" List(&Choice(&["GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"])), optional("[GET, HEAD, POST, OPTIONS]", "the preset has those that clients use"),
        "Methods that are passed on.";
    "virtual_directories.paths[].websocket" Switch, optional("true", "true for /owa of Exchange 2016 and later, else false"),
        "A connection may become a WebSocket.";
    "virtual_directories.paths[].health_page" PageOrOff, optional("/ews/healthcheck.htm", "`healthcheck.htm` below the path on Exchange servers, none on gromox"),
        "A page of the mailbox servers that must answer 200, looked at with every check; a server on which it does not gets no requests for this directory. off: nobody looks.";

    "auth" Section, section(),
        "How clients prove who they are.";
    "auth.basic" Section, usual("", "Basic is not offered"),
        "User name and password (RFC 7617).";
    "auth.basic.realm" Text, default("mail"),
        "What the client shows with its password prompt.";
    "auth.basic.verify" Choice(&["password_file", "ldap_bind", "backend"]), default("password_file"),
        "What a password is held against: a file; the directory service of `directory.ldap`, by logging on there; or the server of the user's mailbox, by a PING of our own that shows it the password (servers must take Basic).";
    "auth.basic.password_file" File, usual("users.htpasswd", "`verify` must say something else"),
        "Lines `user:hash` as `htpasswd -B` writes them: bcrypt, or argon2id.";
    "auth.basic.bind_name" Text, default("\"{upn}\""),
        "The name that is logged on with for `verify: ldap_bind`: `{upn}`, `{dn}`, `{mail}` or `{account}` of the entry that the login name belongs to. An entry without it logs on with its DN.";
    "auth.basic.default_domain" Host, optional("contoso.com", "login names are taken as they come"),
        "Added to a login name without a domain: `user1` becomes `user1@contoso.com`.";
    "auth.bearer" Section, optional("", "tokens are not accepted"),
        "Tokens of identity providers (RFC 6750), as OpenID Connect, Entra ID and AD FS give them.";
    "auth.bearer.challenge" Section, section(),
        "What clients are told about tokens, in the manner of Exchange.";
    "auth.bearer.challenge.client_id" Text, default("00000002-0000-0ff1-ce00-000000000000"),
        "What the mail service is called at the identity provider; the default is Exchange's own name.";
    "auth.bearer.challenge.trusted_issuers" Text, optional("00000001-0000-0000-c000-000000000000@TENANT", "the challenge names none"),
        "Whose tokens are good; for Entra ID, the name above with your tenant's GUID.";
    "auth.bearer.challenge.token_types" Text, default("app_asserted_user_v1 service_asserted_app_v1"),
        "Kinds of tokens.";
    "auth.bearer.challenge.authorization_uri" Text, optional("https://login.microsoftonline.com/common/oauth2/authorize", "clients must know by themselves where to sign on"),
        "Where Outlook gets its tokens.";
    "auth.bearer.leeway" Duration(0, 10 * MINUTE), default("60s"),
        "How far the provider's clock and ours may differ.";
    "auth.bearer.issuers" List(&Section), required("", "without one no token is good"),
        "Identity providers whose tokens open mail.";
    "auth.bearer.issuers[].issuer" Text, required("https://id.contoso.com", "only the site knows whose tokens are good"),
        "The claim `iss` of its tokens, letter by letter, a slash at the end included.";
    "auth.bearer.issuers[].discovery" Url, optional("https://id.contoso.com/.well-known/openid-configuration", "it is the issuer with `/.well-known/openid-configuration` behind it"),
        "Where its discovery document is, which says where its keys are.";
    "auth.bearer.issuers[].jwks_uri" Url, optional("https://id.contoso.com/keys", "the discovery document says it"),
        "Where its keys are, instead of `discovery`.";
    "auth.bearer.issuers[].keys_file" File, optional("id.jwks.json", "the keys are fetched"),
        "A file with its keys (JSON Web Key Set), instead of `discovery`, where this machine must not reach the provider.";
    "auth.bearer.issuers[].ca" File, optional("site-ca.pem", "the system's authorities are trusted"),
        "PEM file with the authorities that may sign the provider's certificate.";
    "auth.bearer.issuers[].refresh" Duration(10 * SECOND, DAY), default("1h"),
        "Keys are fetched again after this; besides, when a token comes with a key that is not known, once in 30 s at most. Keys that are known stay good while the provider cannot be reached.";
    "auth.bearer.issuers[].audiences" List(&Text), required("[\"https://mail.contoso.com/\"]", "a token for another service must not open mail"),
        "One of these must be in the claim `aud`, letter by letter.";
    "auth.bearer.issuers[].algorithms" List(&Choice(ALGORITHMS)), default("[RS256]"),
        "Signatures that are accepted. There are asymmetric ones only: a secret that both know would let either make tokens.";
    "auth.bearer.issuers[].identity_claims" List(&Text), default("[upn, preferred_username]"),
        "The claim that names the user: the first of these that the token has. `email` counts only with `email_verified`.";
    "auth.bearer.issuers[].default_domain" Host, optional("contoso.com", "names are taken as they come"),
        "Added to a name without a domain.";
    "auth.bearer.issuers[].domains" List(&Host), default("[]"),
        "Domains of the users it speaks for; []: all. Wanted where there are several issuers, so that none can name another's users.";
    "auth.bearer.issuers[].required_claims" List(&Section), optional("", "none is asked for beyond these"),
        "Claims that a token must have as well.";
    "auth.bearer.issuers[].required_claims[].claim" Text, required("scp", "only the site knows"),
        "The claim's name.";
    "auth.bearer.issuers[].required_claims[].any_of" List(&Text), required("[MAPI.AccessAsUser.All, full_access_as_user]", "only the site knows"),
        "One of these must be among its words, or the items of its list.";
    "auth.bearer.issuers[].clients" List(&Text), default("[]"),
        "Applications whose tokens are accepted (the claim `appid`, else `azp`, else `client_id`); []: all.";
    "auth.certificate" Section, section(),
        "How names are read from client certificates. The subject is never looked at.";
    "auth.certificate.map" List(&Choice(&["sid_extension", "san_upn", "san_email"])), default("[sid_extension, san_upn, san_email]"),
        "Where to look for a name that the directory knows, in this order. An identifier (SID) is known where it is among the `logins` of a mailbox.";
    "auth.certificate.issuers" File, optional("users-ca.pem", "every authority of the listener names users"),
        "PEM file with the authorities whose certificates name users, where the listener trusts others too.";
    "auth.certificate.domains" List(&Host), default("[]"),
        "Domains of the users they may name; []: all.";
    "auth.negotiate" Section, optional("", "Kerberos is not offered"),
        "Kerberos, as members of a Windows domain speak it (RFC 4559). On TLS listeners only; `krb5.conf` of the system applies, and no domain controller is asked.";
    "auth.negotiate.keytab" File, required("http.keytab", "only the site's domain has the keys"),
        "The keys of our names: a keytab with `HTTP/NAME@REALM` for every name that offers negotiate, as ktpass and msktutil write it. Any key in it is good.";
    "auth.negotiate.replay_cache" Text, optional("file2:/run/mapigate/krb5.rcache2", "the Kerberos library keeps one in /var/tmp"),
        "Where used tickets are remembered until they expire, so that none is good twice: `file2:` and a path that mapigate may write.";
    "auth.negotiate.realm_map" Named(&Host, "CONTOSO.COM"), optional("contoso.com", "a realm is the mail domain of its users; a Windows domain stays in front of the name, as in `contoso\\user1`"),
        "Mail domains of users, by Kerberos realm (`CONTOSO.COM`) and by Windows domain name (`CONTOSO`).";
    "auth.negotiate.channel_binding" Choice(&["off", "accept", "require"]), default("accept"),
        "Whether a client's proof must be bound to the certificate it was shown, so that nobody in the middle can pass it on. accept: where it is bound, to the right one.";
    "auth.negotiate.extra_channel_binding_certs" List(&File), default("[]"),
        "PEM files with certificates that clients may see instead of ours, where a device in front ends TLS and speaks TLS to us. For Kerberos only.";
    "auth.negotiate.allow_ntlm_in_spnego" Switch, default("false"),
        "Clients without a ticket may prove themselves by NTLM inside of Negotiate. Needs the package gss-ntlmssp, and winbind on a machine that is joined to the domain.";
    "auth.negotiate.persist" Switch, default("true"),
        "What follows on a proven connection without a header is the same user's, as Exchange has it. false: every request needs a ticket, for sites where a device in front shares connections among users.";
    "auth.negotiate.threads" Count(1, 256), default("4"),
        "Tickets judged at once, and passwords of NTLM inside of Negotiate beside them; more wait.";
    "auth.negotiate.handshake_timeout" Duration(100 * MS, 10 * MINUTE), default("10s"),
        "Time for a client to go on with a handshake of several words.";
    "auth.ntlm" Section, optional("", "NTLM is not offered"),
        "NTLM by itself, for clients that know nothing better. Off unless a name offers it; it can be relayed, so that channel bindings cannot be required beside it.";
    "auth.ntlm.helper" List(&Text), default("[ntlm_auth, --helper-protocol=squid-2.5-ntlmssp]"),
        "The program that judges it, and its arguments: Samba's, with winbind on a machine that is joined to the domain. Another one must, as Samba's, begin anew with each YR.";
    "auth.ntlm.pool" Count(1, 1024), default("8"),
        "Helpers at most. Each hears one client at a time; more clients wait.";
    "auth.ntlm.handshake_timeout" Duration(100 * MS, 10 * MINUTE), default("10s"),
        "Time for a client to go on with a handshake, and for a helper to answer.";
    "auth.ntlm.realm_map" Named(&Host, "CONTOSO"), optional("contoso.com", "a Windows domain stays in front of the name, as in `contoso\\user1`"),
        "Mail domains of users, by Windows domain name.";
    "auth.handshakes" Section, section(),
        "How many handshakes of negotiate and ntlm may wait for the client's next word. More are answered 503: nobody holds up the others by beginning and not going on.";
    "auth.handshakes.open_max" Count(1, 1_000_000), default("1024"),
        "So many in all.";
    "auth.handshakes.per_source" Count(1, 1_000_000), default("64"),
        "So many from one address (of IPv6, 64 bits of it). Of NTLM's helpers one address may hold half.";
    "auth.handshakes.left_per_minute" Count(1, 1_000_000), default("600"),
        "So many of one address may be begun and left, or gone on with in words that nobody understands, in a minute; whoever leaves more is answered 503 until some are forgiven.";
    "auth.handshakes.exempt" List(&Network), default("[127.0.0.0/8, \"::1\"]"),
        "Addresses that many people share, as those of a load balancer without the PROXY protocol: only open_max holds for them.";
    "auth.connection_ttl" Duration(SECOND, 7 * DAY), default("1h"),
        "A connection that negotiate or ntlm has proven is believed this long, and never beyond the end of the ticket.";
    "auth.cache_ttl" Duration(100 * MS, DAY), default("10m"),
        "A verified password or token is believed this long; a token never beyond its own end.";
    "auth.negative_ttl" Duration(0, HOUR), default("60s"),
        "A wrong password or token is refused without another look this long.";
    "auth.cache_capacity" Count(1, 100_000_000), default("100000"),
        "Verified passwords and tokens remembered at once; beyond it the least used are verified again.";
    "auth.verifications" CountOrAuto(1, 1024), default("auto"),
        "Verifications of each scheme running at once; auto: one per core. More wait.";
    "auth.lockout_guard" SectionOrOff, section(),
        "Refuses passwords unasked before the domain locks an account, on unless this says `lockout_guard: off`. What is believed goes on being believed.";
    "auth.lockout_guard.per_user" Section, section(),
        "Wrong passwords of one user.";
    "auth.lockout_guard.per_user.failures" Count(1, 100), default("3"),
        "So many different ones are too many; of NTLM each counts, because its proofs never come twice. Stay below the domain's lockout threshold; every front end counts for itself.";
    "auth.lockout_guard.per_user.window" Duration(SECOND, 7 * DAY), default("10m"),
        "They are forgotten so long after the last, or when a right one comes. Not shorter than the time after which the domain resets its own counter.";
    "auth.lockout_guard.per_source" SectionOrOff, section(),
        "Wrong passwords from one address, whoever's: who tries one password with many names is refused too.";
    "auth.lockout_guard.per_source.failures" Count(1, 1000), default("30"),
        "So many different ones are too many.";
    "auth.lockout_guard.per_source.window" Duration(SECOND, 7 * DAY), default("10m"),
        "Each is forgotten after this.";
    "auth.lockout_guard.per_source.v4_prefix" Count(8, 32), default("32"),
        "Leading bits of an IPv4 address that count as one source.";
    "auth.lockout_guard.per_source.v6_prefix" Count(16, 128), default("64"),
        "Leading bits of an IPv6 address that count as one source.";
    "auth.lockout_guard.per_source.exempt" List(&Network), default("[127.0.0.0/8, \"::1\"]"),
        "Addresses that many people share, as those of a load balancer without the PROXY protocol, and that are not counted. This host is one: TLS terminators and tests speak from it.";
    "auth.lockout_guard.delay" Duration(0, MINUTE), default("3s"),
        "Answers to whom the guard refuses are held back this long; 0s: not at all.";
    "auth.lockout_guard.delays_max" Count(0, 1_000_000), default("1000"),
        "So many answers are held back at once; further ones go out at once.";
    "auth.passthrough" Section, optional("", "no scheme is left to the servers"),
        "Schemes that prove a connection and that only the mailbox server can judge. A client's connection gets a connection to one server for itself alone; both end together. mapigate does not learn who the user is: it routes by the MailboxId in the URL, and the server decides who may open it. Not for clients behind a balancer that puts several clients' requests on one connection.";
    "auth.passthrough.schemes" List(&Choice(&["negotiate", "ntlm"])), required("[negotiate, ntlm]", "what is not verified here must be named"),
        "These schemes, where a name offers them.";
    "auth.passthrough.connections" Count(1, 10_000_000), default("10000"),
        "Connections that may be bound to a server's at once; more are answered 503.";
    "auth.passthrough.handshake_timeout" Duration(100 * MS, 10 * MINUTE), default("10s"),
        "A connection whose logon is half done for this long is closed.";

    "backend_identity" Section, section(),
        "Whose credentials the mailbox server sees.";
    "backend_identity.mode" Choice(&["passthrough", "kerberos", "assertion", "basic_service", "trusted_header"]), default("passthrough"),
        "passthrough: the client's own. kerberos: a ticket in the user's name. assertion: a short-lived token of ours that names the user. basic_service: a service account's, with the user's name in a header. trusted_header: the name in a header, on connections that show our certificate.";
    "backend_identity.user" Text, optional("svc-mail@contoso.com", "only `basic_service` needs it"),
        "The service account.";
    "backend_identity.password" Secret, optional("${MAPIGATE_SERVICE_PASSWORD}", "only `basic_service` needs it"),
        "Its password: `${ENV}`, `file:PATH`, or the text itself.";
    "backend_identity.user_header" Token, default("X-Remote-User"),
        "The header that carries the user's name with `basic_service` and `trusted_header`. Clients cannot send it.";
    "backend_identity.kerberos" Section, optional("", "only `kerberos` needs it"),
        "Tickets in users' names (constrained delegation). The realm and its KDCs stand in the system's krb5.conf.";
    "backend_identity.kerberos.client_keytab" File, required("mapigate.keytab", "nobody else can know where it is"),
        "Key table of an account that the directory trusts to delegate to the servers. Trusted with Kerberos only, it hands on clients that come by negotiate with a ticket to this account; with any authentication protocol, everybody: guard it then like the mailboxes, for it opens them all.";
    "backend_identity.kerberos.account" Text, optional("svc-mail@CONTOSO.COM", "it is the first name in the key table"),
        "That account.";
    "backend_identity.kerberos.service" Text, default("HTTP/{server_fqdn}"),
        "The principal of a server: `{server_fqdn}` is its `tls.name` or the host of its address, `{server}` its name here in small letters.";
    "backend_identity.kerberos.realms" Named(&Text, "contoso.com"), optional("CONTOSO.LOCAL", "a realm is the mail domain in capitals"),
        "Realms of users by mail domain. The KDC is asked for a login name's first part in its realm.";
    "backend_identity.kerberos.token_per" Choice(&["connection", "request"]), default("connection"),
        "What carries a ticket: the first request of a connection, which is then that user's alone; or every request, for servers that authenticate each (IIS with authPersistNonNTLM off), at 0.1 ms of processor time.";
    "backend_identity.kerberos.ticket_ttl" Duration(MINUTE, DAY), default("1h"),
        "A user's ticket is asked for anew after this, or the client for a new one if it signed on with its own; a user who is locked out there goes on until then.";
    "backend_identity.kerberos.users" Count(1, 10_000_000), default("20000"),
        "Users whose tickets are kept; of more, the one unused longest goes. As many users' own tickets are kept beside, for as long as they are connected.";
    "backend_identity.kerberos.timeout" Duration(100 * MS, MINUTE), default("5s"),
        "Who waits longer for the KDC is answered 503.";
    "backend_identity.assertion" Section, optional("", "only `assertion` needs it"),
        "Tokens of our own (JSON Web Tokens, ES256) that name the user, for one server and a short time.";
    "backend_identity.assertion.keys" File, required("assertion.key", "nobody else can know where it is"),
        "PEM file with private keys (P-256, PKCS#8). The first signs; the others may stay until nobody goes by them.";
    "backend_identity.assertion.header" Token, default("Authorization"),
        "The header that carries the token. Clients cannot send it.";
    "backend_identity.assertion.scheme" Choice(&["bearer", "negotiate"]), default("bearer"),
        "The scheme before the token in Authorization; negotiate is for gromox, with `mapigate assertion-helper` as its gss_program.";
    "backend_identity.assertion.lifetime" Duration(5 * SECOND, 10 * MINUTE), default("60s"),
        "How long a token is good; the servers' clocks must differ by less.";
    "backend_identity.assertion.issuer" Text, default("mapigate"),
        "Whom a token says it is from.";

    "sessions" Section, section(),
        "Session memory.";
    "sessions.capacity" Count(1, 100_000_000), default("1000000"),
        "Sessions remembered at once (200 bytes each); more are routed without memory.";
    "sessions.grace" Duration(0, DAY), default("5m"),
        "Kept this long beyond what the server's `X-ExpirationInfo` says.";
    "sessions.default_expiration" Duration(SECOND, DAY), default("15m"),
        "What to assume where a server says nothing.";
    "sessions.route_cookie" Section, section(),
        "A sealed cookie that lets another node, or this one after a restart, go on with a session.";
    "sessions.route_cookie.enabled" Switch, default("true"),
        "Send it.";
    "sessions.route_cookie.name" Token, default("MapigateRoute"),
        "Its name.";
    "sessions.route_cookie.keys_file" File, usual("cookie.keys", "a random key is made at every start, and cookies do not survive a restart"),
        "Lines `ID BASE64` with a number from 0 to 255 and 32 random bytes, the newest first: it seals, all open. The same on all nodes.";

    "limits" Section, section(),
        "Sizes, counts and deadlines.";
    "limits.head" Size(KIB, MIB), default("128KiB"),
        "A request head. A Kerberos ticket of a user in a thousand groups takes 60KB of a header, and at most 88KiB.";
    "limits.body" Size(KIB, 2 * GIB), default("4MiB"),
        "A request body; beyond it the answer is 413 with code 9.";
    "limits.chunked_body" Size(KIB, 64 * MIB), default("1MiB"),
        "A request body of unannounced length is measured first, in memory, up to this; servers want Content-Length.";
    "limits.head_timeout" Duration(100 * MS, 10 * MINUTE), default("10s"),
        "Time for a whole request head.";
    "limits.body_timeout" Duration(100 * MS, HOUR), default("60s"),
        "Time without a byte of a request body.";
    "limits.idle_timeout" Duration(100 * MS, DAY), default("10m"),
        "A client connection without a request is kept this long.";
    "limits.connect_timeout" Duration(10 * MS, MINUTE), default("1s"),
        "Time to reach a mailbox server, TLS included.";
    "limits.first_byte_timeout" Duration(100 * MS, HOUR), default("60s"),
        "Time until a mailbox server's answer begins.";
    "limits.pending_missed" Count(1, 100), default("3"),
        "Periods without a PENDING after which a mailbox server counts as dead.";
    "limits.pending_period" Duration(100 * MS, 10 * MINUTE), default("30s"),
        "That period, where the server's X-PendingPeriod does not say.";
    "limits.notification_wait" Duration(100 * MS, DAY), default("330s"),
        "A NotificationWait is ended after this; Outlook waits five minutes.";
    "limits.connections" Count(1, 10_000_000), default("50000"),
        "Client connections at once; more wait in the kernel's queue.";
    "limits.virtual_connections" Count(1, 10_000_000), default("50000"),
        "Virtual connections of Outlook Anywhere at once, two client connections each; further ones are refused.";
    "limits.requests_per_user" Count(1, 1_000_000), default("64"),
        "Requests of one user under way at once, held polls and channels of Outlook Anywhere included.";
    "limits.move_jitter" Duration(0, 10 * MINUTE), default("800ms"),
        "Held polls of a database that moved end within this, not all at once.";
    "limits.drain" Duration(0, DAY), default("330s"),
        "Time to finish what is under way when we stop.";

    "health" Section, section(),
        "How mailbox servers are watched.";
    "health.interval" Duration(10 * MS, HOUR), default("2s"),
        "Time between checks of a server.";
    "health.timeout" Duration(MS, 10 * MINUTE), default("1s"),
        "A check that takes longer has failed.";
    "health.fall" Count(1, 1000), default("2"),
        "Failures in a row that mark a server down.";
    "health.rise" Count(1, 1000), default("2"),
        "Successes in a row that mark it up again.";
    "health.panic_threshold" Count(0, 100), default("30"),
        "Percent of weight. When less is healthy, health is disbelieved and everybody counts as up; 0: never.";
    "health.page" PageOrOff, default("off"),
        "A page that must answer 200, on Exchange /mapi/healthcheck.htm; off: a connection must succeed, TLS included.";
    "health.rpc_page" PageOrOff, default("off"),
        "A page that must answer 200 for Outlook Anywhere, on Exchange /rpc/healthcheck.htm; a server on which it does not gets no channels. off: nobody looks.";
    "health.probe" Section, optional("", "no login is tried"),
        "A login that is tried with every check: a PING that must be answered.";
    "health.probe.user" Text, required("probe@contoso.com", "only the site knows its users"),
        "Login name of a mailbox without rights.";
    "health.probe.password" Secret, required("file:probe.password", "only the site knows it"),
        "Its password: `${ENV}`, `file:PATH`, or the text itself.";

    "logging" Section, section(),
        "What is written where.";
    "logging.level" LogFilter, default("info"),
        "The operator's log: error, warn, info, debug or trace; by room as in `info,mapigate::relay=debug`.";
    "logging.format" Choice(&["text", "json"]), default("text"),
        "The operator's log as text for people or JSON lines.";
    "logging.access" FileOr(&["stdout", "off"]), default("stdout"),
        "The access log, one JSON line per request: stdout, off, or a file, which is opened anew on SIGHUP and SIGUSR1.";
    "logging.access_buffer" Size(4 * KIB, GIB), default("1MiB"),
        "Lines of either log that may wait for the disk; more are dropped and counted.";
    "logging.http_proxy" SectionOrOff, optional("", "no such files are written"),
        "The same requests in files as Exchange's front end writes them, for Log Parser: `Mapi/HttpProxy_20261121-1.LOG`, a new one every day (UTC).";
    "logging.http_proxy.folder" Folder, required("/var/log/mapigate/HttpProxy", "only the site knows where there is room"),
        "The folder; made where it is missing, with a folder for each protocol in it.";
    "logging.http_proxy.file_size" Size(64 * KIB, 64 * GIB), default("10MiB"),
        "A file that has grown to this is followed by the next of its day.";
    "logging.http_proxy.keep" Duration(DAY, 10 * YEAR), default("30days"),
        "Files older than this are removed; whole days.";
    "logging.http_proxy.total_size" Size(MIB, 1024 * GIB), default("1GiB"),
        "The oldest files are removed where all together, files that still grow counted as full, would be larger.";

    "accounting" Section, section(),
        "What is told of the cost of requests.";
    "accounting.cpu" Choice(&["off", "on"]), default("on"),
        "Measure the processor time of requests.";
    "accounting.cpu_every" Count(1, 1024), default("32"),
        "Of so many requests one is measured, drawn by lot; metrics and usage are scaled to all. 1 measures each, which costs up to a tenth of a small request.";
    "accounting.cpu_closely_every" Count(1, 1_000_000), default("256"),
        "Of so many requests one is looked at closely, among those that are measured: where its processor time went, phase by phase. The metrics are scaled.";
    "accounting.usage_entries" Count(0, 10_000), default("1000"),
        "Users, mailboxes, client versions and databases that `/usage.json` lists with what they used: so many of each (1000: about 3 MB, and up to 2 MB for each worker); 0: nobody is listed.";
    "accounting.device_info" Choice(&["off", "on"]), default("off"),
        "Stamp the mailbox servers' answers with X-DeviceInfo: our name, the server, milliseconds until it had the request, microseconds of processor time. Clients see it.";
    "accounting.device_id" Name, optional("front1", "it is what the machine calls itself"),
        "Our name in that stamp, up to 24 characters.";

    "probes" List(&Section), optional("", "none is run"),
        "What Outlook does, tried from time to time from here, step by step: from the name to the address book. Each probe tells its steps in metrics; `mapigate probe --config FILE` runs them now.";
    "probes[].name" Name, required("front", "metrics need a name for it"),
        "What metrics call it.";
    "probes[].url" HttpsUrl, required("https://mail.contoso.com", "it is what is tried"),
        "The name that is tried, or a device in front of it.";
    "probes[].connect_to" Address, optional("127.0.0.1:443", "DNS says where the name is"),
        "Connect there instead of where DNS says.";
    "probes[].ca" File, optional("site-ca.pem", "the system's authorities are trusted"),
        "PEM file with the authorities that may sign the certificate shown there.";
    "probes[].user" Text, required("probe@contoso.com", "only the site knows its users"),
        "Login name of a mailbox that nobody else uses. It is opened and closed; nothing in it is read or changed.";
    "probes[].address" Text, optional("probe@contoso.com", "it is the login name"),
        "Its mail address.";
    "probes[].password" Secret, required("file:probe.password", "only the site knows it"),
        "Its password: `${ENV}`, `file:PATH`, or the text itself.";
    "probes[].every" Duration(SECOND, DAY), default("5m"),
        "Time between two runs. They never overlap.";
    "probes[].timeout" Duration(100 * MS, 5 * MINUTE), default("10s"),
        "A step that takes longer has failed.";
    "probes[].held_wait" Duration(0, 5 * MINUTE), default("2s"),
        "How long a NotificationWait is held; 0s: none is.";

    "admin" Section, section(),
        "The administrator's door: metrics, status, reload.";
    "admin.address" AddressOrOff, default("127.0.0.1:9080"),
        "Its address, or off. It asks for no password: keep it on the loopback.";

    "reload" Section, section(),
        "When the configuration is read again, besides SIGHUP and POST /reload.";
    "reload.watch" Switch, default("false"),
        "Read it again when one of its files changes.";
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_a_section_that_exists() {
        for key in KEYS {
            let parent = key.parent();
            if parent.is_empty() {
                continue;
            }
            let section = parent.trim_end_matches(".*").trim_end_matches("[]");
            let owner = KEYS.iter().find(|key| key.path == section);
            let holds = owner.is_some_and(|owner| match owner.kind {
                Section | SectionOrOff => parent == section,
                List(Section) => parent.ends_with("[]"),
                Named(Section, _) => parent.ends_with(".*"),
                NamedOrFile(..) => parent.ends_with(".*") || parent == section,
                _ => false,
            });
            assert!(holds, "{} has no section", key.path);
        }
    }

    #[test]
    fn keys_are_unique_and_say_what_they_mean() {
        for (position, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..position].iter().all(|other| other.path != key.path));
            assert!(key.doc.ends_with('.'), "{}: {}", key.path, key.doc);
        }
    }
}
