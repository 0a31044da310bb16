//! Who lives where: mailboxes, the names of their owners, the databases they are in.
//!
//! A directory service knows, or a file; [`Directory::whose`] asks whichever it is. The file names every mailbox by the `MailboxId` of its MAPI URL. A mailbox that is in neither lives
//! in the default database of its domain, where the settings name one.
//!
//! Immutable: a reload reads a new one.

mod file;
mod holders;
mod names;
mod people;

pub use holders::Register;
pub use people::Whose;

use crate::auth::append_canonical;
use crate::config::settings::{Access, Database, DirectorySettings};
use crate::ids::{DatabaseName, MailboxId, UserName, disturbs};
use crate::ldap::{Book, Findings, Person};
use file::{Entry, Place, Problems, Word};
use names::{Index, Names, lowered};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Every mailbox of the site. A few hundred bytes a mailbox; lookups do not allocate.
#[derive(Debug)]
pub struct Directory {
    records: Vec<Record>,
    /// Owners' and listed users' names; each record has two ranges of it.
    names: Names,
    by_id: Index<u32>,
    by_owner: Index<Owner>,
    databases: Vec<DatabaseName>,
    default_databases: BTreeMap<String, DatabaseName>,
    access: Access,
    /// The directory service, where there is one.
    book: Option<Arc<Book>>,
}

impl Directory {
    /// Reads the mailbox file, if there is one. Blocks on the disk; 100,000 mailboxes take less than
    /// a second.
    ///
    /// `known` are the databases a mailbox may be in. `default_domain` is the one authentication adds
    /// to bare login names (`auth.basic.default_domain`), so that both spell a user alike.
    pub fn load(
        settings: &DirectorySettings,
        known: &BTreeMap<DatabaseName, Database>,
        default_domain: Option<&str>,
    ) -> Result<Self, Vec<DirectoryProblem>> {
        let Some(file) = &settings.file else {
            return Ok(Builder::new(settings, known, default_domain).directory);
        };
        let whole_file = |what: String, cure: &str| {
            vec![DirectoryProblem {
                file: file.clone(),
                line: 0,
                column: 0,
                what,
                cure: cure.to_owned(),
            }]
        };
        let size = std::fs::metadata(file).map_or(0, |facts| facts.len());
        if size > FILE_BYTES_MAX {
            let what = format!("the file has {size} bytes, more than {FILE_BYTES_MAX}");
            return Err(whole_file(what, "name the mailbox file, or split the site"));
        }
        let bytes = std::fs::read(file).map_err(|cause| {
            whole_file(
                format!("the file cannot be read: {cause}"),
                "name an existing file and let this service read it",
            )
        })?;
        Self::parse(&bytes, file, settings, known, default_domain)
    }

    /// With a directory service, which is asked instead of a file.
    pub fn of_service(
        settings: &DirectorySettings,
        known: &BTreeMap<DatabaseName, Database>,
        book: Arc<Book>,
    ) -> Self {
        let empty = Builder::new(settings, known, None).directory;
        Self {
            book: Some(book),
            ..empty
        }
    }

    /// Reads the text of a mailbox file; `file` is for the problems. See [`Self::load`].
    pub fn parse(
        text: &[u8],
        file: &Path,
        settings: &DirectorySettings,
        known: &BTreeMap<DatabaseName, Database>,
        default_domain: Option<&str>,
    ) -> Result<Self, Vec<DirectoryProblem>> {
        let mut problems = Problems::of(file);
        let mut builder = Builder::new(settings, known, default_domain);
        match std::str::from_utf8(text) {
            Ok(text) => file::read(text, &mut problems, |entry, problems| {
                builder.add(entry, problems);
            }),
            Err(cause) => {
                let before = text.get(..cause.valid_up_to()).unwrap_or_default();
                let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
                let place = Place {
                    line: memchr::memchr_iter(b'\n', before).count() + 1,
                    column: before.len() - line_start + 1,
                };
                let what = "the file is not UTF-8 here".to_owned();
                problems.add(place, what, "save the file as UTF-8");
            }
        }
        problems.settle()?;
        Ok(builder.finish())
    }

    /// Where the mailbox of a `MailboxId` lives, in whatever case it is written: by the file, or else
    /// by the default database of its domain. `None` for what is neither, and for what is no
    /// `MailboxId`.
    pub fn mailbox<'a>(&'a self, id: &'a str) -> Option<Home<'a>> {
        let known = lowered(id, |id| self.by_id.find(id, |n| self.id_of(n)))?;
        if let Some(record) = known {
            return self.home(record);
        }
        let (_, domain) = parts_of_id(id)?;
        let database = lowered(domain, |domain| self.default_databases.get(domain))??;
        Some(Home {
            id: Id::Asked(id),
            database,
            record: None,
        })
    }

    /// The mailbox a user owns, by any of the user's names.
    pub fn own_mailbox(&self, user: &UserName) -> Option<Home<'_>> {
        self.home(self.owner(user.as_str())?.record)
    }

    /// The mailbox that this address, or any other name of its owner, stands for. Lower case.
    pub fn mailbox_of(&self, address: &str) -> Option<Home<'_>> {
        self.home(self.owner(address)?.record)
    }

    /// The default database of an address' domain. Lower case.
    pub fn default_database(&self, address: &str) -> Option<&DatabaseName> {
        let (_, domain) = address.rsplit_once('@')?;
        self.default_databases.get(domain)
    }

    /// What the file says of a mailbox beside where it lives; `None` where it is not in the file.
    pub fn profile(&self, home: &Home<'_>) -> Option<Profile<'_>> {
        let record = home.record?;
        let text = |name: u32| Some(self.names.get(name)).filter(|text| !text.is_empty());
        let mut names = record.owners.clone().map(|name| self.names.get(name));
        Some(Profile {
            address: names.find(|name| name.contains('@')),
            display_name: text(record.display_name),
            legacy_dn: text(record.legacy_dn),
            mapi_http: record.mapi_http,
            access: record.access,
        })
    }

    /// What the directory service says of somebody's mailbox beside where it lives.
    pub fn profile_of<'p>(&self, person: &'p Person) -> Profile<'p> {
        Profile {
            address: person.address(),
            display_name: person.display_name(),
            legacy_dn: person.legacy_dn(),
            mapi_http: None,
            access: self.access,
        }
    }

    /// Whether we let a user reach this mailbox. With `access: backend` everybody, since the mailbox
    /// server decides. With `access: listed` the owner and those who are listed, under any name by
    /// which the directory knows them.
    pub fn may_open(&self, home: &Home<'_>, user: &UserName) -> bool {
        self.is_open(home) || self.is_named_by(home, user)
    }

    /// Whether the mailbox server alone decides who opens a mailbox.
    fn is_open(&self, home: &Home<'_>) -> bool {
        let access = home.record.map_or(self.access, |record| record.access);
        access == Access::Backend
    }

    /// Whether a mailbox is this user's own or lists the user, whoever else may open it.
    pub fn is_named_by(&self, home: &Home<'_>, user: &UserName) -> bool {
        home.record.is_some_and(|record| self.admits(record, user))
    }

    fn admits(&self, record: &Record, user: &UserName) -> bool {
        let user = user.as_str();
        let mut admitted = record.owners.clone().chain(record.listed.clone());
        if admitted.any(|name| self.names.get(name) == user) {
            return true;
        }
        // Listed by an address, logged in by another name.
        let Some(own) = self.owner(user).and_then(|owner| self.record(owner.record)) else {
            return false;
        };
        own.owners.clone().any(|alias| {
            let alias = self.names.get(alias);
            let mut listed = record.listed.clone();
            listed.any(|name| self.names.get(name) == alias)
        })
    }

    /// Every name of every owner, and every `MailboxId` of the file, in no order that matters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.records.iter().flat_map(|record| {
            let owners = record.owners.clone().map(|name| self.names.get(name));
            owners.chain([record.id.as_str()])
        })
    }

    /// Whether anybody may ask a mailbox server for a mailbox that is in no file.
    pub fn admits_strangers(&self) -> bool {
        self.access == Access::Backend
    }

    /// Whose names in client certificates are. `findings` is what the directory service has said for this request.
    pub fn register<'a>(&'a self, findings: &'a Findings, now: Instant) -> Register<'a> {
        Register {
            directory: self,
            findings,
            now,
        }
    }

    /// Mailboxes in the file.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True where no mailbox is in the file.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn home(&self, record: u32) -> Option<Home<'_>> {
        let record = self.record(record)?;
        Some(Home {
            id: Id::Known(&record.id),
            database: self.databases.get(usize::from(record.database))?,
            record: Some(record),
        })
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)
    }

    fn id_of(&self, record: u32) -> &str {
        self.record(record).map_or("", |record| record.id.as_str())
    }

    fn owner(&self, name: &str) -> Option<Owner> {
        self.by_owner.find(name, |owner| self.names.get(owner.name))
    }
}

/// Where a mailbox lives.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    id: Id<'a>,
    database: &'a DatabaseName,
    record: Option<&'a Record>,
}

impl<'a> Home<'a> {
    /// The mailbox, in lower case. Shared with the directory where the mailbox is in the file.
    pub fn id(&self) -> MailboxId {
        match self.id {
            Id::Known(id) => id.clone(),
            Id::Asked(id) => MailboxId::new(id.to_ascii_lowercase()),
        }
    }

    /// The same as text, as the file has it in lower case or the client wrote it.
    pub fn id_text(&self) -> &'a str {
        match self.id {
            Id::Known(id) => id.as_str(),
            Id::Asked(id) => id,
        }
    }

    /// The database it is in.
    pub fn database(&self) -> &'a DatabaseName {
        self.database
    }

    /// False where only the default database of the domain is known of it.
    pub fn is_in_file(&self) -> bool {
        self.record.is_some()
    }
}

/// What the mailbox file, or the directory service, says of a mailbox beside where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile<'a> {
    /// Its first address.
    pub address: Option<&'a str>,
    /// What its owner is called.
    pub display_name: Option<&'a str>,
    /// Its distinguished name in the address book.
    pub legacy_dn: Option<&'a str>,
    /// Its own switch for MAPI over HTTP; `None`: the organisation's counts.
    pub mapi_http: Option<bool>,
    /// Who decides whether a user may open it.
    pub access: Access,
}

#[derive(Clone, Copy, Debug)]
enum Id<'a> {
    Known(&'a MailboxId),
    Asked(&'a str),
}

#[derive(Debug)]
struct Record {
    id: MailboxId,
    owners: Range<u32>,
    listed: Range<u32>,
    /// Two names, or [`NAMELESS`].
    display_name: u32,
    legacy_dn: u32,
    database: u16,
    access: Access,
    mapi_http: Option<bool>,
}

/// The position of a name that is not written.
const NAMELESS: u32 = u32::MAX;

/// A name of an owner, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Owner {
    name: u32,
    record: u32,
}

/// Something wrong with a mailbox file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryProblem {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The column, in characters, counted from 1; 0 where the whole file is meant.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl std::fmt::Display for DirectoryProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}; {}", self.what, self.cure)
    }
}

/// Checks entries and files them.
struct Builder<'s> {
    directory: Directory,
    database_numbers: HashMap<&'s str, u16>,
    default_domain: Option<&'s str>,
    /// The line of each record, to say where the first of two is.
    lines: Vec<usize>,
}

impl<'s> Builder<'s> {
    fn new(
        settings: &DirectorySettings,
        known: &'s BTreeMap<DatabaseName, Database>,
        default_domain: Option<&'s str>,
    ) -> Self {
        let numbered = known.keys().zip(0..=u16::MAX);
        Self {
            directory: Directory {
                records: Vec::new(),
                names: Names::default(),
                by_id: Index::new(),
                by_owner: Index::new(),
                databases: numbered.clone().map(|(name, _)| name.clone()).collect(),
                default_databases: settings.default_databases.clone(),
                access: settings.access,
                book: None,
            },
            database_numbers: numbered.map(|(name, n)| (name.as_str(), n)).collect(),
            default_domain,
            lines: Vec::new(),
        }
    }

    fn add(&mut self, entry: &Entry<'_>, problems: &mut Problems<'_>) {
        let id = self.id(entry, problems);
        let database = self.database(entry, problems);
        let access = self.access(entry, problems);
        // The record gets its number whatever is wrong with it, so that later entries are compared
        // with it too; with a problem on the list, the directory is never used.
        let Ok(record) = u32::try_from(self.directory.records.len()) else {
            return problems.add(entry.place, "too many mailboxes".to_owned(), SPLIT_CURE);
        };
        let start = self.directory.names.len();
        for word in &entry.addresses {
            self.add_owner(word, record, start..u32::MAX, problems);
        }
        let logins = self.directory.names.len();
        for word in &entry.logins {
            self.add_owner(word, record, logins..u32::MAX, problems);
        }
        let users = self.directory.names.len();
        for word in &entry.users {
            self.push_name(word, problems);
        }
        let end = self.directory.names.len();
        let display_name = self.push_line(entry.display_name.as_ref(), problems);
        let legacy_dn = self.push_line(entry.legacy_dn.as_ref(), problems);
        let mapi_http = switch(entry.mapi_http.as_ref(), problems);
        self.directory.records.push(Record {
            id: id.unwrap_or_else(|| MailboxId::new("")),
            owners: start..users,
            listed: users..end,
            display_name,
            legacy_dn,
            database: database.unwrap_or(u16::MAX),
            access,
            mapi_http,
        });
        self.lines.push(entry.place.line);
        let Directory { records, by_id, .. } = &mut self.directory;
        let id_of = |n: u32| records.get(n as usize).map_or("", |r| r.id.as_str());
        let id = id_of(record);
        if id.is_empty() {
            return;
        }
        match by_id.find(id, id_of) {
            None => by_id.insert(id, record, id_of),
            Some(first) => {
                let line = self.lines.get(first as usize).copied().unwrap_or(0);
                let place = entry.id.as_ref().map_or(entry.place, |word| word.place);
                let what = format!("mailbox {id} is already described on line {line}");
                problems.add(place, what, "keep one of the two entries");
            }
        }
    }

    fn id(&self, entry: &Entry<'_>, problems: &mut Problems<'_>) -> Option<MailboxId> {
        let Some(word) = &entry.id else {
            let what = "the mailbox has no `id`".to_owned();
            problems.add(entry.place, what, ID_CURE);
            return None;
        };
        if parts_of_id(&word.text).is_none() {
            let what = format!("`{}` is not a MailboxId", word.text);
            problems.add(word.place, what, ID_CURE);
            return None;
        }
        lowered(&word.text, |id| MailboxId::new(id))
    }

    fn database(&self, entry: &Entry<'_>, problems: &mut Problems<'_>) -> Option<u16> {
        let Some(word) = &entry.database else {
            let what = "the mailbox has no `database`".to_owned();
            problems.add(entry.place, what, "add `database: …`");
            return None;
        };
        let number = self.database_numbers.get(&*word.text).copied();
        if number.is_none() {
            let known = self.directory.databases.iter().map(DatabaseName::as_str);
            let what = format!("unknown database `{}`", word.text);
            problems.add(word.place, what, file::did_you_mean(&word.text, known));
        }
        number
    }

    fn access(&self, entry: &Entry<'_>, problems: &mut Problems<'_>) -> Access {
        let access = match entry.access.as_ref().map(|word| (&*word.text, word.place)) {
            None => self.directory.access,
            Some(("backend", _)) => Access::Backend,
            Some(("listed", _)) => Access::Listed,
            Some((other, place)) => {
                let what = format!("`{other}` is not a kind of access");
                let cure = "write `backend` (the mailbox server decides) or `listed`";
                problems.add(place, what, cure);
                Access::Listed
            }
        };
        // Who wrote the list believes that it keeps others out.
        if let (Access::Backend, Some(first)) = (access, entry.users.first()) {
            let what =
                "`users` has no effect here: with `access: backend` the mailbox server decides";
            let cure = "add `access: listed`, or remove `users`";
            problems.add(first.place, what.to_owned(), cure);
        }
        access
    }

    /// Files a name of the owner. `list` are the names that come from the same list of the entry: a
    /// login that spells one of the entry's addresses is no mistake, an address written twice is.
    fn add_owner(
        &mut self,
        word: &Word<'_>,
        record: u32,
        list: Range<u32>,
        problems: &mut Problems<'_>,
    ) {
        let Some(position) = self.push_name(word, problems) else {
            return;
        };
        let Directory {
            names, by_owner, ..
        } = &mut self.directory;
        let name = names.get(position);
        let Some(first) = by_owner.find(name, |owner: Owner| names.get(owner.name)) else {
            let owner = Owner {
                name: position,
                record,
            };
            by_owner.insert(name, owner, |owner| names.get(owner.name));
            return;
        };
        if first.record != record {
            let line = self.lines.get(first.record as usize).copied().unwrap_or(0);
            let what = format!("{name} already belongs to the mailbox on line {line}");
            problems.add(word.place, what, "let each name belong to one mailbox");
        } else if list.contains(&first.name) {
            let what = format!("{name} is written twice");
            problems.add(word.place, what, "remove one of the two");
        }
        names.pop();
    }

    fn push_name(&mut self, word: &Word<'_>, problems: &mut Problems<'_>) -> Option<u32> {
        let write = |text: &mut String| append_canonical(&word.text, self.default_domain, text);
        let position = self.directory.names.push_with(write);
        if position.is_none() {
            let what = format!("`{}` is not a name", word.text.escape_debug());
            let cure =
                "write `user1`, `user1@contoso.test` or `CONTOSO\\user1`, no spaces around it";
            problems.add(word.place, what, cure);
        }
        position
    }

    /// A line of text that is no name to be found by.
    fn push_line(&mut self, word: Option<&Word<'_>>, problems: &mut Problems<'_>) -> u32 {
        let Some(word) = word else {
            return NAMELESS;
        };
        let is_line = word.text.len() <= LINE_BYTES_MAX && !word.text.contains(disturbs);
        let write = |text: &mut String| {
            text.push_str(&word.text);
            is_line.then_some(())
        };
        self.directory.names.push_with(write).unwrap_or_else(|| {
            let what = format!("`{}` is not a line of text", word.text.escape_debug());
            problems.add(word.place, what, "write up to 512 letters");
            NAMELESS
        })
    }

    fn finish(mut self) -> Directory {
        self.directory.records.shrink_to_fit();
        self.directory.names.shrink();
        self.directory
    }
}

/// A mailbox' own switch.
fn switch(word: Option<&Word<'_>>, problems: &mut Problems<'_>) -> Option<bool> {
    let word = word?;
    match &*word.text {
        "true" => Some(true),
        "false" => Some(false),
        other => {
            let what = format!("`{}` is neither true nor false", other.escape_debug());
            problems.add(word.place, what, "write `true` or `false`, or leave it out");
            None
        }
    }
}

/// The GUID and the domain of a `MailboxId`, as Autodiscover writes it into the MAPI URL.
/// `[MS-OXCMAPIHTTP] 3.2.5.1`
fn parts_of_id(id: &str) -> Option<(&str, &str)> {
    let (guid, domain) = id.split_once('@')?;
    let is_guid = guid.len() == 36
        && guid
            .bytes()
            .enumerate()
            .all(|(position, byte)| match position {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
    let is_domain = (1..=DOMAIN_BYTES_MAX).contains(&domain.len())
        && domain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_guid && is_domain).then_some((guid, domain))
}

const LINE_BYTES_MAX: usize = 512;

const DOMAIN_BYTES_MAX: usize = 253;

const FILE_BYTES_MAX: u64 = 1 << 30;

const SPLIT_CURE: &str = "split the site";

const ID_CURE: &str = "write the MailboxId of the mailbox's MAPI URL, as in `416c6368-656d-794a-6f45-57615272456e@contoso.test`";

#[cfg(test)]
#[path = "directory/tests.rs"]
mod tests;
