//! Whose mailbox a request asks for, whichever of the two knows: the mailbox file or a directory service.

use super::{Directory, Home, parts_of_id};
use crate::config::settings::Access;
use crate::ids::{DatabaseName, MailboxId, UserName};
use crate::ldap::{Asked, Book, Findings, Look, Lookup, Lookups, Person, guid_of, guid_text};
use std::sync::Arc;
use std::time::Instant;

/// Whose mailbox a request asks for.
#[derive(Debug)]
pub enum Whose {
    /// This one, which lives there, and this user may be let through to it.
    Mailbox(MailboxId, DatabaseName),
    /// There is none.
    Unknown,
    /// Not one that this user may open.
    Forbidden,
    /// The directory says that this user may not log on.
    Disabled,
    /// Only the directory service knows.
    Ask(Box<Lookups>),
}

impl Directory {
    /// Whose mailbox is asked for by `id`, the text of a `MailboxId`, or the user's own where there is
    /// none; and whether we let this user through to it. See [`Self::may_open`]: with `access: listed`
    /// and a directory service the owner and the delegates that it lists.
    ///
    /// `user` is `None` where only the mailbox server knows who asks: then nobody is let through whom we
    /// would have to know. `findings` is what the directory service has said for this request. A look at
    /// what is known takes less than a microsecond.
    pub fn whose(
        &self,
        id: Option<&str>,
        user: Option<&UserName>,
        findings: &Findings,
        now: Instant,
    ) -> Whose {
        match &self.book {
            Some(book) => self.in_book(book, id, user, findings, now),
            None => self.in_file(id, user),
        }
    }

    /// Whose mailbox is asked for by `address`, a mail address, a login name or a `MailboxId`; `None`: the
    /// user's own. As [`Self::whose`]; besides, an own mailbox may live in the default database of its
    /// domain.
    pub fn whose_address(
        &self,
        address: Option<&str>,
        user: &UserName,
        findings: &Findings,
        now: Instant,
    ) -> Whose {
        let own = || self.whose(None, Some(user), findings, now);
        match (&self.book, address) {
            (Some(_), None) => own(),
            (None, None) => match own() {
                Whose::Unknown => self.by_domain(user.as_str(), true),
                known => known,
            },
            (None, Some(address)) => {
                let home = self.mailbox_of(address).or_else(|| self.mailbox(address));
                match home {
                    Some(home) if !self.may_open(&home, user) => Whose::Forbidden,
                    Some(home) => Whose::Mailbox(home.id(), home.database().clone()),
                    None => self.by_domain(address, self.admits_strangers()),
                }
            }
            (Some(book), Some(address)) => {
                let is_id = parts_of_id(address).and_then(|(guid, _)| guid_of(guid));
                match is_id {
                    Some(_) => self.whose(Some(address), Some(user), findings, now),
                    None => self.in_book_by_address(book, address, user, findings, now),
                }
            }
        }
    }

    /// A mailbox of which only its domain's default database is known: its address is all its name.
    fn by_domain(&self, address: &str, may_open: bool) -> Whose {
        match self.default_database(address) {
            None => Whose::Unknown,
            Some(_) if !may_open => Whose::Forbidden,
            Some(database) => Whose::Mailbox(MailboxId::new(address), database.clone()),
        }
    }

    fn in_book_by_address(
        &self,
        book: &Arc<Book>,
        address: &str,
        user: &UserName,
        findings: &Findings,
        now: Instant,
    ) -> Whose {
        let asker = book.look(Asked::User(user.as_str()), findings, now);
        let owner = book.look_in_passing(Asked::User(address), findings, now);
        let (asker, owner) = match (asker, owner) {
            (Look::Ask(first), Look::Ask(second)) => return ask(first, Some(second)),
            (Look::Ask(first), _) | (_, Look::Ask(first)) => return ask(first, None),
            (asker, owner) => (known(asker), known(owner)),
        };
        if asker.as_ref().is_some_and(|asker| asker.is_disabled()) {
            return Whose::Disabled;
        }
        let Some(owner) = owner else {
            return Whose::Unknown;
        };
        let is_listed = |asker: &Arc<Person>| asker.is(&owner) || owner.has_delegate(asker);
        let may_open = self.access == Access::Backend || asker.as_ref().is_some_and(is_listed);
        match may_open {
            true => self.own(&owner, &UserName::new(address)),
            false => Whose::Forbidden,
        }
    }

    fn in_file(&self, id: Option<&str>, user: Option<&UserName>) -> Whose {
        let home = match id {
            Some(id) => self.mailbox(id),
            None => user.and_then(|user| self.own_mailbox(user)),
        };
        let may_open = |home: &Home<'_>| match user {
            Some(user) => self.may_open(home, user),
            None => self.is_open(home),
        };
        match home {
            None => Whose::Unknown,
            Some(home) if !may_open(&home) => Whose::Forbidden,
            Some(home) => Whose::Mailbox(home.id(), home.database().clone()),
        }
    }

    fn in_book(
        &self,
        book: &Arc<Book>,
        id: Option<&str>,
        user: Option<&UserName>,
        findings: &Findings,
        now: Instant,
    ) -> Whose {
        // Who asks is looked up whatever is asked for: an account that was disabled opens nothing.
        let asker = user.map_or(Look::Nobody, |user| {
            book.look(Asked::User(user.as_str()), findings, now)
        });
        let Some(id) = id else {
            return match (asker, user) {
                (Look::Ask(first), _) => ask(first, None),
                (Look::Person(asker), _) if asker.is_disabled() => Whose::Disabled,
                (Look::Person(asker), Some(user)) => self.own(&asker, user),
                _ => Whose::Unknown,
            };
        };
        let Some((guid, domain)) = parts_of_id(id) else {
            return Whose::Unknown;
        };
        let Some(guid) = guid_of(guid) else {
            return Whose::Unknown;
        };
        let owner = book.look(Asked::Mailbox(guid), findings, now);
        let (asker, owner) = match (asker, owner) {
            (Look::Ask(first), Look::Ask(second)) => return ask(first, Some(second)),
            (Look::Ask(first), _) | (_, Look::Ask(first)) => return ask(first, None),
            (asker, owner) => (known(asker), known(owner)),
        };
        if asker.as_ref().is_some_and(|asker| asker.is_disabled()) {
            return Whose::Disabled;
        }
        let is_listed = |owner: &Person| {
            asker
                .as_ref()
                .is_some_and(|asker| asker.is(owner) || owner.has_delegate(asker))
        };
        let (database, may_open) = match &owner {
            Some(owner) => {
                let database = owner.database_of(guid).map(|name| self.spelled(name));
                let may_open = self.access == Access::Backend || is_listed(owner);
                (database, may_open)
            }
            None => {
                let domain = domain.to_ascii_lowercase();
                let database = self.default_databases.get(&domain).cloned();
                (database, self.access == Access::Backend)
            }
        };
        match database {
            None => Whose::Unknown,
            Some(_) if !may_open => Whose::Forbidden,
            Some(database) => Whose::Mailbox(lower(id), database),
        }
    }

    /// The mailbox of a person whom the directory service knows, and who asks as `user`.
    pub fn own(&self, asker: &Person, user: &UserName) -> Whose {
        let Some((guid, database)) = asker.mailbox() else {
            return Whose::Unknown;
        };
        let names = [user.as_str(), asker.user().as_str()];
        let domain = names.iter().find_map(|name| Some(name.split_once('@')?.1));
        let id = format!("{}@{}", guid_text(guid), domain.unwrap_or_default());
        Whose::Mailbox(MailboxId::new(id), self.spelled(database))
    }

    /// The database as it is written under `databases`: directories do not mind the case of names.
    fn spelled(&self, name: &DatabaseName) -> DatabaseName {
        let is_it = |known: &&DatabaseName| known.as_str().eq_ignore_ascii_case(name.as_str());
        match self.databases.binary_search(name) {
            Ok(_) => name.clone(),
            Err(_) => self.databases.iter().find(is_it).unwrap_or(name).clone(),
        }
    }
}

fn ask(first: Lookup, second: Option<Lookup>) -> Whose {
    Whose::Ask(Box::new(Lookups { first, second }))
}

/// Mostly written in lower case already, and then copied once.
fn lower(id: &str) -> MailboxId {
    match id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => MailboxId::new(id.to_ascii_lowercase()),
        false => MailboxId::new(id),
    }
}

fn known(look: Look) -> Option<Arc<Person>> {
    match look {
        Look::Person(person) => Some(person),
        Look::Nobody | Look::Ask(_) => None,
    }
}
