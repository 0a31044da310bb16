//! The directory service: where it is, who we are to it, what its attributes are called.

use super::Secret;
use std::time::Duration;

/// A directory service, as Active Directory or OpenLDAP.
#[derive(Clone, Debug, PartialEq)]
pub struct LdapSettings {
    /// Its servers, the one to prefer first; at least one.
    pub servers: Vec<LdapServer>,
    /// Switch to TLS on the plain port (StartTLS, RFC 4511 4.14).
    pub starttls: bool,
    /// DER of the authorities to trust; `None`: the system's.
    pub ca: Option<Vec<Vec<u8>>>,
    /// The account that looks people up.
    pub bind_name: String,
    /// Its password.
    pub bind_password: Secret,
    /// The DN below which people are.
    pub base: String,
    /// Which entries are people, as a filter of RFC 4515.
    pub people: String,
    /// The domain of `DOMAIN\user`, lower case; without one such names are unknown.
    pub netbios_domain: Option<String>,
    /// What the attributes are called.
    pub attributes: Attributes,
    /// Where copies of databases are, and what their attributes are called.
    pub copies: CopyNames,
    /// Kinds of recipients whose mailboxes are ours.
    pub recipient_types: Vec<u64>,
    /// An entry is asked for again after this.
    pub ttl: Duration,
    /// What was not there is asked for again after this.
    pub negative_ttl: Duration,
    /// While the directory does not answer, what is known of somebody is believed this long.
    pub stale_on_error: Duration,
    /// Names and mailboxes remembered at once.
    pub capacity: usize,
    /// Time between two looks for changes.
    pub refresh: Duration,
    /// Connections for searches.
    pub search_connections: usize,
    /// Connections on which passwords are tried, one at a time each.
    pub bind_connections: usize,
    /// A connection that takes longer has failed, TLS included.
    pub connect_timeout: Duration,
    /// An answer that takes longer has failed.
    pub operation_timeout: Duration,
}

/// A server of the directory service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapServer {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS from the first byte.
    pub tls: bool,
}

impl std::fmt::Display for LdapServer {
    /// As a URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, tls } = self;
        let scheme = if *tls { "ldaps" } else { "ldap" };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

/// Names of attributes; `None`: not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The login name with its domain.
    pub upn: Option<String>,
    /// The login name without a domain.
    pub account: Option<String>,
    /// Addresses, with or without `smtp:` before them.
    pub addresses: Option<String>,
    /// The address.
    pub mail: Option<String>,
    /// The security identifier.
    pub sid: Option<String>,
    /// What an entry keeps when it is renamed.
    pub object: Option<String>,
    /// The mailbox, as its MAPI URL names it.
    pub mailbox_guid: Option<String>,
    /// How GUIDs are written.
    pub guid_form: GuidForm,
    /// The archive mailbox.
    pub archive_guid: Option<String>,
    /// The database of the mailbox.
    pub database: Option<String>,
    /// How databases are written.
    pub database_form: DatabaseForm,
    /// The database of the archive mailbox; where an entry has none, that of the mailbox.
    pub archive_database: Option<String>,
    /// What kind of recipient it is.
    pub recipient_type: Option<String>,
    /// Bits about the account.
    pub control: Option<String>,
    /// The bit of `control` that says the account is disabled.
    pub disabled_bit: u64,
    /// Changes with the password.
    pub password_changed: Option<String>,
    /// What somebody is called, to be read by people.
    pub display_name: Option<String>,
    /// The distinguished name in the address book.
    pub legacy_dn: Option<String>,
    /// DNs of those who may open the mailbox too.
    pub delegates: Option<String>,
    /// Grows with every change of an entry, on each server by itself.
    pub changed: Option<String>,
}

/// Copies of databases in the directory: each is an entry below that of its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyNames {
    /// The DN below which databases and servers are; `None`: the configuration partition of Active Directory.
    pub base: Option<String>,
    /// The class of a copy.
    pub class: String,
    /// The DN of the server that holds it.
    pub server: String,
    /// Its place in the order of activation, from 1; `None`: by the names of the servers.
    pub preference: Option<String>,
    /// The class of servers; `None`: they are known by name only.
    pub server_class: Option<String>,
    /// Host names of a server, with or without `ncacn_ip_tcp:` before them.
    pub server_address: Option<String>,
}

/// How GUIDs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuidForm {
    /// 16 bytes, the first three groups with their low byte first, as Active Directory does.
    Bytes,
    /// Text, as in a MAPI URL.
    Text,
}

/// How databases are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseForm {
    /// The DN of an entry that is called like the database: `CN=DB07,CN=Databases,…`.
    Dn,
    /// Its name.
    Text,
}
