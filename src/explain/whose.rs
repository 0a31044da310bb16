//! Whose mailbox a question is about, by the mailbox file or the directory service.

use super::question::Subject;
use super::trail::{End, Found, Trail};
use crate::auth::{NAME_BYTES_MAX, canonical};
use crate::config::settings::Access;
use crate::directory::Whose;
use crate::ids::{DatabaseName, UserName};
use crate::ldap::{Asked, Findings, Look, guid_of};
use crate::refusal::Refusal;

impl<'a> Trail<'a> {
    pub(super) fn mailbox(
        &mut self,
        id: Option<&'a str>,
        findings: &Findings,
    ) -> Result<Found, End> {
        let question = self.question;
        match (&question.subject, id) {
            (Subject::Mailbox(id), _) => self.mailbox_of_id(id, findings),
            (Subject::Url { .. }, Some(id)) => self.mailbox_of_id(id, findings),
            (Subject::Url { .. }, None) => match &question.user {
                Some(user) => self.person(user, findings),
                None => {
                    let why = "the URL has no MailboxId; say who: --user NAME";
                    self.fact("mailbox", "the user's own", Some(why.to_owned()));
                    Err(End::Served)
                }
            },
            (Subject::Person(name), _) => self.person(name, findings),
        }
    }

    pub(super) fn mailbox_of_id(&mut self, id: &str, findings: &Findings) -> Result<Found, End> {
        let directory = &self.world.directory;
        if self.world.book.is_some() {
            let whose = directory.whose(Some(id), None, findings, self.now);
            return self.in_service(id, whose, findings);
        }
        let Some(home) = directory.mailbox(id) else {
            return Err(self.unknown(id));
        };
        self.found(&home)
    }

    pub(super) fn found(&mut self, home: &crate::directory::Home<'_>) -> Result<Found, End> {
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

    pub(super) fn in_service(
        &mut self,
        asked: &str,
        whose: Whose,
        findings: &Findings,
    ) -> Result<Found, End> {
        match whose {
            Whose::Ask(lookups) => Err(End::Ask(lookups)),
            Whose::Mailbox(id, database) => {
                let who = self.called(asked, findings);
                let why =
                    "the directory service (directory.ldap), or its domain's default database";
                self.fact("mailbox", format!("{id}{who}"), Some(why.to_owned()));
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

    pub(super) fn person(&mut self, name: &str, findings: &Findings) -> Result<Found, End> {
        let settings = &self.world.settings;
        let basic = settings.auth.basic.as_ref();
        let domain = basic.and_then(|basic| basic.default_domain.as_deref());
        let Some(user) = canonical(name, domain) else {
            return Err(self.nobody());
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
            return self.in_service(user.as_str(), whose, findings);
        }
        self.person_in_file(&user)
    }

    /// What whoever was asked for is called, where the directory service has just said it.
    fn called(&self, asked: &str, findings: &Findings) -> String {
        let guid = asked.split_once('@').and_then(|(guid, _)| guid_of(guid));
        let asked = guid.map_or(Asked::User(asked), Asked::Mailbox);
        let book = self.world.book.as_ref();
        match book.map(|book| book.look(asked, findings, self.now)) {
            Some(Look::Person(person)) => {
                let who = person.display_name().or(person.address());
                who.map_or_else(String::new, |who| format!(", {who}"))
            }
            _ => String::new(),
        }
    }

    fn person_in_file(&mut self, user: &UserName) -> Result<Found, End> {
        let world = self.world;
        if let Some(home) = world.directory.own_mailbox(user) {
            return self.found(&home);
        }
        let Some(database) = world.directory.default_database(user.as_str()) else {
            return Err(self.unknown(user.as_str()));
        };
        Ok(self.by_default(database.clone()))
    }

    /// A mailbox of which only its domain's default database is known.
    pub(super) fn by_default(&mut self, database: DatabaseName) -> Found {
        self.fact("mailbox", "not known beforehand: the mailbox server tells its id", Some("the name is in no file; its domain has a default database (directory.default_databases)".to_owned()));
        self.access(None);
        Found {
            database,
            mapi_http: None,
        }
    }

    /// Nobody can be called what was asked for.
    pub(super) fn nobody(&mut self) -> End {
        let why = "write `user`, `user@domain` or `DOMAIN\\user`";
        self.fact("user", "nobody can be called so", Some(why.to_owned()));
        End::Refused
    }

    /// Whoever is in no directory; the administrator is told who was perhaps meant.
    pub(super) fn unknown(&mut self, asked: &str) -> End {
        let asked = asked.to_ascii_lowercase();
        let hint = match self.world.book {
            Some(_) => "no entry of the directory service has this name, or it has no mailbox of ours: see directory.ldap.attributes and recipient_types".to_owned(),
            None => meant(&asked, self.world.directory.names())
                .unwrap_or_else(|| "add it to the mailbox file, or its domain to directory.default_databases".to_owned()),
        };
        self.refuse("mailbox", &Refusal::UnknownMailbox, hint)
    }
}

/// Who was perhaps meant: the nearest names, the nearest first. Nobody where the asked name is longer than a name
/// can be: the cost grows with its length, for every name there is.
pub(super) fn meant<'n>(asked: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    const SHOWN: usize = 3;
    const NEAR: f64 = 0.75;
    if asked.len() > NAME_BYTES_MAX {
        return None;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_looked_for_by_what_is_longer_than_a_name() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        let longer = "a".repeat(NAME_BYTES_MAX + 1);

        let hint = |asked: &str| meant(asked, [asked].into_iter());

        assert_eq!(hint(&longest), Some(format!("did you mean {longest}?")));
        assert_eq!(hint(&longer), None);
    }
}
