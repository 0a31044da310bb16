//! Whose a name in a client certificate is: by the mailbox file, or by the directory service.

use super::Directory;
use crate::auth::{Claim, Holder, Holders, Whose, canonical};
use crate::config::settings::CertificateName;
use crate::ids::{MailboxId, UserName};
use crate::ldap::{Asked, Book, Findings, Look, Person, guid_text};
use std::sync::Arc;
use std::time::Instant;

/// The directory as one request knows it.
#[derive(Clone, Copy, Debug)]
pub struct Register<'a> {
    pub(super) directory: &'a Directory,
    pub(super) findings: &'a Findings,
    pub(super) now: Instant,
}

impl Holders for Register<'_> {
    /// In a file an identifier is known where a mailbox has it among its logins; the name is then the first
    /// address of that mailbox. Other names are known where they are an owner's, or where their domain has a
    /// default database. A directory service knows its people, by whatever name.
    fn holder(&self, claim: &Claim) -> Whose {
        match &self.directory.book {
            Some(book) => self.in_book(book, claim),
            None => match self.in_file(claim) {
                Some(holder) => Whose::Known(holder),
                None => Whose::Nobody,
            },
        }
    }

    /// A file lists identifiers or not, as its writer likes.
    fn knows_sids(&self) -> bool {
        let book = self.directory.book.as_ref();
        book.is_some_and(|book| book.settings().attributes.sid.is_some())
    }
}

impl Register<'_> {
    fn in_book(&self, book: &Arc<Book>, claim: &Claim) -> Whose {
        let name = claim.name.as_str();
        let upper;
        let asked = match claim.kind {
            CertificateName::Sid => {
                // As directories write it.
                upper = name.to_ascii_uppercase();
                Asked::Sid(&upper)
            }
            CertificateName::Upn | CertificateName::Email => Asked::User(name),
        };
        match book.look(asked, self.findings, self.now) {
            Look::Ask(lookup) => Whose::Ask(lookup),
            Look::Nobody => Whose::Nobody,
            Look::Person(person) if person.is_disabled() => Whose::Disabled,
            Look::Person(person) => match canonical(person.user().as_str(), None) {
                Some(user) => Whose::Known(Holder {
                    mailbox: mailbox(&person),
                    user,
                }),
                None => Whose::Nobody,
            },
        }
    }

    fn in_file(&self, claim: &Claim) -> Option<Holder> {
        let (directory, name) = (self.directory, &claim.name);
        let owner = directory.owner(name.as_str());
        let record = owner.and_then(|owner| directory.record(owner.record));
        if claim.kind == CertificateName::Sid {
            let first = directory.names.get(record?.owners.start);
            return Some(Holder {
                user: UserName::new(first),
                mailbox: record.map(|record| record.id.clone()),
            });
        }
        let domain = name.as_str().rsplit_once('@').map(|(_, domain)| domain);
        let is_known = record.is_some()
            || domain.is_some_and(|domain| directory.default_databases.contains_key(domain));
        is_known.then(|| Holder {
            user: name.clone(),
            mailbox: record.map(|record| record.id.clone()),
        })
    }
}

fn mailbox(person: &Person) -> Option<MailboxId> {
    let (guid, _) = person.mailbox()?;
    Some(MailboxId::new(guid_text(guid)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]
mod tests {
    use super::*;
    use crate::config::settings::{Access, DirectorySettings};
    use crate::ldap::people_of_tests::{entry, settings};
    use ldap3::SearchEntry;
    use std::collections::BTreeMap;

    const SID: &str = "S-1-5-21-1-2-3-1104";

    fn directory(book: &Arc<Book>) -> Directory {
        let settings = DirectorySettings {
            file: None,
            ldap: None,
            default_databases: BTreeMap::new(),
            access: Access::Backend,
        };
        Directory::of_service(&settings, &BTreeMap::new(), Arc::clone(book))
    }

    fn alice(control: &str) -> SearchEntry {
        entry(&[
            ("userPrincipalName", "Alice@Contoso.test"),
            ("proxyAddresses", "SMTP:alice.test@contoso.test"),
            ("objectGUID", "object-of-alice!"),
            ("objectSid", SID),
            ("userAccountControl", control),
        ])
    }

    fn claim(kind: CertificateName, name: &str) -> Claim {
        Claim {
            kind,
            name: UserName::new(name),
        }
    }

    fn whose(book: &Arc<Book>, claim: &Claim, now: Instant) -> Whose {
        let (directory, findings) = (directory(book), Findings::default());
        directory.register(&findings, now).holder(claim)
    }

    #[test]
    fn a_service_is_asked_for_every_kind_of_name_and_remembers_whose_it_is() {
        let book = Book::new(&Arc::new(settings()), "{upn}", None).unwrap();
        let now = Instant::now();
        for (claim, asked) in [
            (
                claim(CertificateName::Sid, "s-1-5-21-1-2-3-1104"),
                Asked::Sid(SID),
            ),
            (
                claim(CertificateName::Upn, "alice@contoso.test"),
                Asked::User("alice@contoso.test"),
            ),
            (
                claim(CertificateName::Email, "alice.test@contoso.test"),
                Asked::User("alice.test@contoso.test"),
            ),
        ] {
            assert!(matches!(whose(&book, &claim, now), Whose::Ask(_)));
            assert!(book.told(asked, &[alice("512")], now));

            let Whose::Known(holder) = whose(&book, &claim, now) else {
                panic!("{claim:?}");
            };
            assert_eq!(holder.user.as_str(), "alice@contoso.test");
        }
    }

    #[test]
    fn nobodys_name_is_nobodys_and_a_disabled_account_is_said_to_be_one() {
        let book = Book::new(&Arc::new(settings()), "{upn}", None).unwrap();
        let now = Instant::now();
        let (known, unknown) = (
            claim(CertificateName::Sid, "s-1-5-21-1-2-3-1104"),
            claim(CertificateName::Sid, "s-1-5-21-9-9-9-9"),
        );
        book.told(Asked::Sid(SID), &[alice("514")], now);
        book.told(Asked::Sid("S-1-5-21-9-9-9-9"), &[], now);

        assert!(matches!(whose(&book, &known, now), Whose::Disabled));
        assert!(matches!(whose(&book, &unknown, now), Whose::Nobody));
        let findings = Findings::default();
        assert!(directory(&book).register(&findings, now).knows_sids());
    }
}
