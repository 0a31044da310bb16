//! Which servers hold the copies of databases, as the directory tells.
//!
//! A copy is an entry below that of its database, with a link to its server and a number for its place in the order
//! of activation. Which one is active is nowhere in the directory.

use super::Trouble;
use super::book::Book;
use super::client::Query;
use super::dn::{name_in, parent_in};
use super::person::texts;
use crate::config::settings::CopyNames;
use crate::ids::DatabaseName;
use crate::placement::{Copies, Held, Holder};
use ldap3::{Scope, SearchEntry, ldap_escape};
use std::collections::{BTreeMap, HashMap};
use tokio::time::timeout;

impl Book {
    /// Asks for all copies of all databases; empty where the directory knows none, as without Exchange. Two searches,
    /// in pages; ends by itself in a few times the time allowed for an answer.
    ///
    /// # Errors
    /// It cannot be asked, or tells a part only.
    pub async fn copies(&self) -> Result<Copies, Trouble> {
        let patience = self.settings().operation_timeout * PATIENCE;
        let told = timeout(patience, self.told_copies()).await;
        told.unwrap_or(Err(Trouble::Late))
    }

    async fn told_copies(&self) -> Result<Copies, Trouble> {
        let (client, names) = (self.client(), &self.settings().copies);
        let base = match &names.base {
            Some(base) => base.clone(),
            None => {
                let root = client.root(&[PARTITION.to_owned()]).await?;
                let partition = root.as_ref().and_then(|root| texts(root, PARTITION).next());
                match partition {
                    Some(partition) => partition.to_owned(),
                    None => return Ok(Copies::default()),
                }
            }
        };
        let found = async |class: &str, attributes: Vec<String>| {
            let query = Query {
                base: &base,
                scope: Scope::Subtree,
                filter: &format!("(objectClass={})", ldap_escape(class)),
                attributes: &attributes,
            };
            client.whole(&query).await
        };
        let servers = match (&names.server_class, &names.server_address) {
            (Some(class), Some(address)) => found(class, vec![address.clone()]).await?,
            _ => Vec::new(),
        };
        let link = [names.server.clone()];
        let attributes = link.into_iter().chain(names.preference.clone());
        let copies = found(&names.class, attributes.collect()).await?;
        Ok(read(&copies, &servers, names))
    }
}

/// What entries of copies and of servers mean together.
fn read(copies: &[SearchEntry], servers: &[SearchEntry], names: &CopyNames) -> Copies {
    let hosts = hosts(servers, names);
    let mut databases: HashMap<String, Found> = HashMap::new();
    for copy in copies {
        let parent = parent_in(&copy.dn);
        let Some((parent, name)) = parent.and_then(|parent| Some((parent, name_in(parent)?)))
        else {
            continue;
        };
        let parent = parent.to_ascii_lowercase();
        // Names that differ in case alone are one to the directory.
        let database = databases.entry(name.to_ascii_lowercase());
        let database = database.or_insert_with(|| Found {
            name,
            parent: parent.clone(),
            is_alone: true,
            holders: Vec::new(),
        });
        database.is_alone &= database.parent == parent;
        // A link to a server that was removed leads to no name.
        let server = texts(copy, &names.server).next();
        if let Some((dn, name)) = server.and_then(|dn| Some((dn, name_in(dn)?))) {
            let host = hosts.get(&dn.to_ascii_lowercase()).cloned();
            let holder = Holder { name, host };
            database.holders.push((place(copy, names), holder));
        }
    }
    let held = |found: Found| (DatabaseName::new(found.name.as_str()), found.held());
    let databases: BTreeMap<_, _> = databases.into_values().map(held).collect();
    Copies(databases)
}

/// A database of which there are copies.
struct Found {
    name: String,
    /// The DN of its entry.
    parent: String,
    is_alone: bool,
    holders: Vec<(u32, Holder)>,
}

impl Found {
    fn held(mut self) -> Held {
        if !self.is_alone {
            return Held::Ambiguously;
        }
        self.holders.sort_unstable();
        let holders = self.holders.into_iter();
        Held::By(holders.map(|(_, holder)| holder).collect())
    }
}

/// A copy's place in the order of activation. What is no such number comes last: it must not make a copy the first.
fn place(copy: &SearchEntry, names: &CopyNames) -> u32 {
    let text = names
        .preference
        .as_ref()
        .and_then(|name| texts(copy, name).next());
    let place = text.and_then(|text| text.parse().ok());
    place.filter(|place| *place > 0).unwrap_or(u32::MAX)
}

/// Host names of servers by their DN in lower case.
fn hosts(servers: &[SearchEntry], names: &CopyNames) -> HashMap<String, String> {
    let Some(address) = &names.server_address else {
        return HashMap::new();
    };
    let host = |server: &SearchEntry| {
        let host = texts(server, address).find_map(|text| match text.split_once(':') {
            Some((kind, host)) => kind.eq_ignore_ascii_case(TCP).then_some(host),
            None => Some(text),
        });
        Some((server.dn.to_ascii_lowercase(), host?.to_owned()))
    };
    servers.iter().filter_map(host).collect()
}

/// Where Active Directory keeps what is no domain's alone. `[MS-ADTS] 3.1.1.3.2.5`
const PARTITION: &str = "configurationNamingContext";
/// Of the addresses of a server that for TCP; others are of NetBIOS and older networks.
const TCP: &str = "ncacn_ip_tcp";
/// So many answers may take as long as they are allowed to.
const PATIENCE: u32 = 6;

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
