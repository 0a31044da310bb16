//! What an administrator wants to know of a directory service before relying on it.

use super::book::Book;
use super::client::Query;
use super::person::{name_in, texts};
use super::{Person, Trouble};
use ldap3::Scope;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a directory service says of itself.
#[derive(Debug)]
pub struct Survey {
    /// Somebody it knows, where it knows anybody.
    pub somebody: Option<Person>,
    /// Databases and the servers that hold their copies, in activation order. Empty where the directory
    /// does not know, as without Exchange.
    pub databases: BTreeMap<String, Vec<String>>,
}

impl Book {
    /// Asks the directory whether it answers, whom it knows, and which databases there are.
    ///
    /// # Errors
    /// It cannot be asked; [`super::Client::states`] says more.
    pub async fn survey(self: &Arc<Self>) -> Result<Survey, Trouble> {
        let root = self
            .client()
            .root(&["configurationNamingContext".to_owned()])
            .await?;
        let anybody = self
            .client()
            .search(self.settings().people.clone(), self.attributes());
        let somebody = anybody.await?.into_iter().next();
        let base = root.as_ref().and_then(|root| {
            let mut values = texts(root, "configurationNamingContext");
            values.next().map(str::to_owned)
        });
        Ok(Survey {
            somebody: somebody.map(|entry| self.person(&entry)),
            databases: match base {
                Some(base) => self.databases(&base).await?,
                None => BTreeMap::new(),
            },
        })
    }

    /// Copies are entries below that of their database, with a number for their place in the order of
    /// activation. Which one is active is nowhere in the directory.
    async fn databases(
        self: &Arc<Self>,
        base: &str,
    ) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
        let attributes = [SERVER, PREFERENCE].map(str::to_owned);
        let query = Query {
            base,
            scope: Scope::Subtree,
            filter: "(objectClass=msExchMDBCopy)",
            attributes: &attributes,
        };
        let mut copies: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
        for entry in self.client().found(&query).await? {
            let database = entry
                .dn
                .split_once(',')
                .and_then(|(_, parent)| name_in(parent));
            let server = texts(&entry, SERVER).next().and_then(name_in);
            let preference = texts(&entry, PREFERENCE).next();
            let preference = preference.and_then(|number| number.parse().ok());
            if let Some((database, server)) = database.zip(server) {
                let copies = copies.entry(database).or_default();
                copies.push((preference.unwrap_or(u32::MAX), server));
            }
        }
        let in_order = |mut copies: Vec<(u32, String)>| {
            copies.sort_unstable();
            copies.into_iter().map(|(_, server)| server).collect()
        };
        let databases = copies.into_iter();
        Ok(databases
            .map(|(name, copies)| (name, in_order(copies)))
            .collect())
    }
}

const SERVER: &str = "msExchHostServerLink";
const PREFERENCE: &str = "msExchActivationPreference";
