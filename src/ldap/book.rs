//! What is remembered of the directory service, and how it is asked for the rest.
//!
//! Bounded. What several ask for at once is asked once. An entry is one thing however many names led to
//! it, so that a change of it is seen under all of them.

use super::client::Client;
use super::filter::Asked;
use super::mark::{Mark, Marker, Of};
use super::person::{Person, Reader};
use super::shelf::Shelf;
use super::{Trouble, client};
use crate::config::settings::LdapSettings;
use crate::ids::UserName;
use crate::metrics::DirectoryLook;
use arc_swap::ArcSwap;
use ldap3::SearchEntry;
use parking_lot::Mutex;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// People of a directory service, remembered. Outlives a reload that leaves its settings alone.
pub struct Book {
    settings: Arc<LdapSettings>,
    login: String,
    client: Arc<Client>,
    marker: Marker,
    reader: Reader,
    attributes: Arc<[String]>,
    slots: Shelf<Slot>,
    objects: Mutex<Objects>,
    flights: Mutex<HashMap<Course, watch::Sender<Option<Answer>>>>,
    /// What was found out in an earlier age is asked for anew.
    age: AtomicU64,
    /// Counts changes: an answer that was under way meanwhile may be older than they are.
    changes: AtomicU64,
    departed: Mutex<Departed>,
    departure: Notify,
}

/// What a question under way is about, and whether an older answer will do for those who wait for it.
type Course = (Mark, bool);

type Answer = Result<Option<Arc<Person>>, Trouble>;

impl Book {
    /// Prepares; nothing is asked yet. `login` is what people log on with: text with `{upn}`, `{dn}`,
    /// `{mail}` or `{account}` in it. `tls` is for servers that speak it.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(
        settings: &Arc<LdapSettings>,
        login: &str,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Arc<Self>, NoRandomness> {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).map_err(|_unspecified| NoRandomness)?;
        let marker = Marker::new(key);
        Ok(Arc::new(Self {
            client: Arc::new(Client::new(settings, tls)),
            reader: Reader::new(marker.clone(), login.to_owned()),
            marker,
            attributes: wanted(settings).into(),
            slots: Shelf::new(settings.capacity),
            objects: Mutex::default(),
            flights: Mutex::default(),
            age: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            departed: Mutex::default(),
            departure: Notify::new(),
            login: login.to_owned(),
            settings: Arc::clone(settings),
        }))
    }

    /// Made of these settings and this `login`: it may go on after a reload.
    pub fn is_of(&self, settings: &LdapSettings, login: &str) -> bool {
        *self.settings == *settings && self.login == login
    }

    /// Who carries the questions.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &Arc<LdapSettings> {
        &self.settings
    }

    /// Names and mailboxes remembered.
    pub fn len(&self) -> u64 {
        self.slots.len()
    }

    /// True where nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who it is, as far as that is in `findings` or remembered and not too old at `now`. Takes a fraction
    /// of a microsecond.
    pub fn look(self: &Arc<Self>, asked: Asked<'_>, findings: &Findings, now: Instant) -> Look {
        self.look_as(asked, findings, now, true)
    }

    /// The same for a name that a client has chosen: that there is nobody is not remembered, as in
    /// [`Self::ask`].
    pub fn look_in_passing(
        self: &Arc<Self>,
        asked: Asked<'_>,
        findings: &Findings,
        now: Instant,
    ) -> Look {
        self.look_as(asked, findings, now, false)
    }

    fn look_as(
        self: &Arc<Self>,
        asked: Asked<'_>,
        findings: &Findings,
        now: Instant,
        keeps_absence: bool,
    ) -> Look {
        let mark = asked.mark(&self.marker);
        if let Some((_, found)) = findings.0.iter().find(|(known, _)| *known == mark) {
            return Look::of(found.clone());
        }
        let age = self.age.load(Ordering::Acquire);
        let known = self.slots.read(&mark, |slot| slot.found(age, now));
        match known.flatten() {
            Some(None) => {
                self.count(DirectoryLook::Absent);
                Look::Nobody
            }
            Some(Some(person)) => {
                self.count(DirectoryLook::Remembered);
                Look::Person(person)
            }
            None => self
                .question(asked, mark, keeps_absence, now)
                .map_or(Look::Nobody, Look::Ask),
        }
    }

    /// The same whatever is remembered, so that the time does not tell of whom it was: only `findings` count. That
    /// there is nobody is not remembered.
    ///
    /// `may_be_old`: while the directory does not answer, what was known before is told. Without it that is trouble
    /// for every name alike, so that neither does the outage tell of whom something was known.
    pub fn look_anew(
        self: &Arc<Self>,
        asked: Asked<'_>,
        may_be_old: bool,
        findings: &Findings,
        now: Instant,
    ) -> Look {
        let mark = asked.mark(&self.marker);
        if let Some((_, found)) = findings.0.iter().find(|(known, _)| *known == mark) {
            return Look::of(found.clone());
        }
        let question = self.question(asked, mark, false, now);
        question.map_or(Look::Nobody, |lookup| {
            Look::Ask(Lookup {
                may_be_old,
                ..lookup
            })
        })
    }

    /// The question itself, whatever is remembered; `None` for what nobody can be called. That there is
    /// nobody is not remembered: who may ask for any name must not fill the memory with them.
    pub fn ask(self: &Arc<Self>, asked: Asked<'_>, now: Instant) -> Option<Lookup> {
        self.question(asked, asked.mark(&self.marker), false, now)
    }

    fn question(
        self: &Arc<Self>,
        asked: Asked<'_>,
        mark: Mark,
        keeps_absence: bool,
        asked_at: Instant,
    ) -> Option<Lookup> {
        Some(Lookup {
            filter: asked.filter(&self.settings)?,
            asked: Name::of(asked),
            book: Arc::clone(self),
            mark,
            keeps_absence,
            may_be_old: true,
            asked_at,
        })
    }

    /// Takes these entries for the directory's answer to a question of `now`: for tests and measurements,
    /// which have no directory. False where nobody is meant.
    pub fn told(self: &Arc<Self>, asked: Asked<'_>, entries: &[SearchEntry], now: Instant) -> bool {
        let Some(lookup) = self.question(asked, asked.mark(&self.marker), true, now) else {
            return false;
        };
        let before = self.slot(&lookup.mark);
        self.found(&lookup, entries, before, true).is_some()
    }

    /// Waits until what was verified of somebody proves nothing any more: another password, a disabled
    /// account, other names, an entry that is gone.
    pub async fn departures(&self) -> Departed {
        loop {
            let departed = std::mem::take(&mut *self.departed.lock());
            if !departed.is_empty() {
                return departed;
            }
            self.departure.notified().await;
        }
    }

    fn slot(&self, mark: &Mark) -> Option<Slot> {
        self.slots.read(mark, Slot::clone)
    }

    fn count(&self, look: DirectoryLook) {
        if let Some(meters) = self.client.meters() {
            meters.looked(look);
        }
    }

    // what the directory says

    pub(super) fn attributes(&self) -> &Arc<[String]> {
        &self.attributes
    }

    pub(super) fn person(&self, entry: &SearchEntry) -> Person {
        self.reader.person(entry, &self.settings)
    }

    /// An entry has changed, whoever asked for it before.
    pub(super) fn changed(&self, entry: &SearchEntry) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let person = self.person(entry);
        let is_known = self.objects.lock().find(person.object).is_some();
        if !is_known {
            // It may be that something is believed of a user who is not remembered here any more.
            self.forget(&person);
            self.depart(&person);
            return;
        }
        self.entered(person);
    }

    /// Everything is asked for anew.
    pub(super) fn age(&self) {
        self.age.fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody can tell of whom what was verified still counts.
    pub(super) fn all_depart(&self) {
        self.departed.lock().everybody = true;
        self.departure.notify_one();
    }

    /// The entry of this person, which is the one known before where nothing leads to it elsewise.
    fn entered(&self, person: Person) -> Arc<Entry> {
        let mut objects = self.objects.lock();
        let known = objects.find(person.object).filter(|entry| entry.stands());
        let Some(entry) = known else {
            return objects.enter(person);
        };
        let before = entry.person.load_full();
        if *before == person {
            return entry;
        }
        if person.ends_proof_of(&before) {
            self.depart(&before);
            self.depart(&person);
        }
        if !person.is_named_unlike(&before) {
            entry.person.store(Arc::new(person));
            return entry;
        }
        // Whatever led to it is asked for anew, and what was nobody's may be this one's now.
        entry.is_gone.store(true, Ordering::Release);
        self.forget(&person);
        objects.enter(person)
    }

    /// The names of this person are asked for anew.
    fn forget(&self, person: &Person) {
        for name in person.names() {
            self.slots
                .remove(&self.marker.mark(Of::User, name.as_bytes()));
        }
        for guid in person.guids() {
            self.slots.remove(&self.marker.mark(Of::Mailbox, &guid));
        }
    }

    fn depart(&self, person: &Person) {
        let mut departed = self.departed.lock();
        if departed.users.len() >= DEPARTED_MAX {
            departed.everybody = true;
            departed.users.clear();
        }
        if !departed.everybody {
            let names = person.names().map(UserName::new);
            departed.users.extend(names.chain([person.user().clone()]));
        }
        drop(departed);
        self.departure.notify_one();
    }

    // questions

    /// Joins the question that is under way, or begins one.
    fn board(
        self: &Arc<Self>,
        lookup: &Lookup,
    ) -> Result<watch::Receiver<Option<Answer>>, Trouble> {
        let home = self.client.home()?;
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&lookup.course()) {
            self.count(DirectoryLook::Joined);
            return Ok(flight.subscribe());
        }
        if flights.len() >= FLIGHTS_MAX {
            return Err(Trouble::Busy);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(lookup.course(), sender.clone());
        drop(flights);
        let flight = Flight {
            lookup: lookup.clone(),
            answer: sender,
        };
        home.spawn(flight.fly());
        Ok(receiver)
    }

    async fn answer(&self, lookup: &Lookup) -> Answer {
        let before = self.slot(&lookup.mark);
        let changes = self.changes.load(Ordering::Acquire);
        let found = self.client.search(lookup.filter.clone(), &self.attributes);
        match found.await {
            Ok(entries) => {
                self.count(DirectoryLook::Asked);
                let is_newest = changes == self.changes.load(Ordering::Acquire);
                Ok(self.found(lookup, &entries, before, is_newest))
            }
            Err(trouble) => {
                let before = before.filter(|_| lookup.may_be_old);
                self.stale(lookup, before).ok_or(trouble)
            }
        }
    }

    fn found(
        &self,
        lookup: &Lookup,
        entries: &[SearchEntry],
        before: Option<Slot>,
        is_newest: bool,
    ) -> Option<Arc<Person>> {
        let settings = &self.settings;
        let meant = self
            .reader
            .meant(lookup.asked.borrowed(), entries, settings);
        let person = meant.unwrap_or_else(|_ambiguous| {
            tracing::warn!(
                asked = %lookup.asked,
                "several entries of the directory answer to this, and so none does"
            );
            None
        });
        if !is_newest {
            // Good for whoever asked, and too old to be remembered.
            return person.map(Arc::new);
        }
        let Some(person) = person else {
            let gone = before.and_then(|slot| slot.entry);
            if let Some(entry) = gone.filter(|entry| entry.stands()) {
                entry.is_gone.store(true, Ordering::Release);
                self.depart(&entry.person.load());
            }
            match lookup.keeps_absence {
                true => self.keep(lookup, None, settings.negative_ttl),
                false => self.slots.remove(&lookup.mark),
            }
            return None;
        };
        let entry = self.entered(person);
        let person = entry.person.load_full();
        self.keep(lookup, Some(entry), settings.ttl);
        Some(person)
    }

    /// What was known before, where nobody can say anything newer.
    fn stale(&self, lookup: &Lookup, before: Option<Slot>) -> Option<Option<Arc<Person>>> {
        let slot = before.filter(|slot| lookup.asked_at < slot.usable_until);
        let entry = slot.as_ref().and_then(|slot| slot.entry.clone());
        let Some((slot, entry)) = slot.zip(entry.filter(|entry| entry.stands())) else {
            self.count(DirectoryLook::Failed);
            return None;
        };
        self.count(DirectoryLook::Stale);
        let person = entry.person.load_full();
        let again = Slot {
            fresh_until: after(lookup.asked_at, STALE_FOR),
            age: self.age.load(Ordering::Acquire),
            ..slot
        };
        self.slots.insert(lookup.mark, again);
        Some(Some(person))
    }

    fn keep(&self, lookup: &Lookup, entry: Option<Arc<Entry>>, fresh: Duration) {
        let fresh_until = after(lookup.asked_at, fresh);
        let slot = Slot {
            entry,
            fresh_until,
            usable_until: after(fresh_until, self.settings.stale_on_error),
            age: self.age.load(Ordering::Acquire),
        };
        self.slots.insert(lookup.mark, slot);
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book")
            .field("remembered", &self.len())
            .finish_non_exhaustive()
    }
}

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// What came of a look.
#[derive(Debug)]
pub enum Look {
    /// This one.
    Person(Arc<Person>),
    /// There is nobody.
    Nobody,
    /// Only the directory knows.
    Ask(Lookup),
}

impl Look {
    fn of(found: Option<Arc<Person>>) -> Self {
        found.map_or(Self::Nobody, Self::Person)
    }
}

/// What the directory said for one request.
#[derive(Debug, Default)]
pub struct Findings(Vec<(Mark, Option<Arc<Person>>)>);

/// A question to the directory.
#[derive(Clone)]
#[must_use = "nothing is asked until it runs"]
pub struct Lookup {
    book: Arc<Book>,
    mark: Mark,
    asked: Name,
    filter: String,
    keeps_absence: bool,
    may_be_old: bool,
    asked_at: Instant,
}

impl Lookup {
    fn course(&self) -> Course {
        (self.mark, self.may_be_old)
    }

    /// Asks, or waits for whoever asks the same. Ends by itself, and goes on for others when dropped.
    ///
    /// # Errors
    /// Why nothing is known, not even from before.
    pub async fn run(self) -> Result<Option<Arc<Person>>, Trouble> {
        for _ in 0..ATTEMPTS {
            let mut answer = self.book.board(&self)?;
            // An error means that the runtime that carried the question stopped.
            if let Ok(answer) = answer.wait_for(Option::is_some).await
                && let Some(answer) = &*answer
            {
                return answer.clone();
            }
        }
        Err(Trouble::Broken)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookup({})", self.asked)
    }
}

/// One or two questions, asked at the same time.
#[derive(Debug)]
pub struct Lookups {
    /// The one.
    pub first: Lookup,
    /// The other.
    pub second: Option<Lookup>,
}

impl Lookups {
    /// Asks, and adds what is found.
    ///
    /// # Errors
    /// As [`Lookup::run`], for either.
    pub async fn run(self, findings: &mut Findings) -> Result<(), Trouble> {
        let marks = (
            self.first.mark,
            self.second.as_ref().map(|second| second.mark),
        );
        let second = async {
            match self.second {
                Some(second) => second.run().await,
                None => Ok(None),
            }
        };
        let (first, second) = tokio::join!(self.first.run(), second);
        findings.0.push((marks.0, first?));
        if let Some(mark) = marks.1 {
            findings.0.push((mark, second?));
        }
        Ok(())
    }
}

/// Who was asked for.
#[derive(Clone)]
enum Name {
    User(Box<str>),
    Sid(Box<str>),
    Mailbox([u8; 16]),
}

impl Name {
    fn of(asked: Asked<'_>) -> Self {
        match asked {
            Asked::User(name) => Self::User(name.into()),
            Asked::Sid(sid) => Self::Sid(sid.into()),
            Asked::Mailbox(guid) => Self::Mailbox(guid),
        }
    }

    fn borrowed(&self) -> Asked<'_> {
        match self {
            Self::User(name) => Asked::User(name),
            Self::Sid(sid) => Asked::Sid(sid),
            Self::Mailbox(guid) => Asked::Mailbox(*guid),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) | Self::Sid(name) => f.write_str(name),
            Self::Mailbox(guid) => f.write_str(&super::filter::guid_text(*guid)),
        }
    }
}

/// A question under way, for everybody who asks the same meanwhile.
struct Flight {
    lookup: Lookup,
    answer: watch::Sender<Option<Answer>>,
}

impl Flight {
    async fn fly(self) {
        let answer = self.lookup.book.answer(&self.lookup).await;
        self.answer.send_replace(Some(answer));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.lookup
            .book
            .flights
            .lock()
            .remove(&self.lookup.course());
    }
}

/// What a name or a GUID leads to.
#[derive(Clone)]
struct Slot {
    /// `None`: nobody.
    entry: Option<Arc<Entry>>,
    fresh_until: Instant,
    usable_until: Instant,
    age: u64,
}

impl Slot {
    /// What is known in this age at `now`; `None` where it has to be asked for.
    fn found(&self, age: u64, now: Instant) -> Option<Option<Arc<Person>>> {
        if now >= self.fresh_until || self.age != age {
            return None;
        }
        match &self.entry {
            None => Some(None),
            Some(entry) if entry.stands() => Some(Some(entry.person.load_full())),
            Some(_) => None,
        }
    }
}

/// Somebody as the directory had it last.
struct Entry {
    person: ArcSwap<Person>,
    /// What led to it may lead elsewhere by now.
    is_gone: AtomicBool,
}

impl Entry {
    fn stands(&self) -> bool {
        !self.is_gone.load(Ordering::Acquire)
    }
}

/// Entries by what they keep when they are renamed; those that nothing leads to are swept out.
#[derive(Default)]
struct Objects {
    known: HashMap<Mark, Weak<Entry>>,
    sweep_at: usize,
}

impl Objects {
    fn find(&self, object: Mark) -> Option<Arc<Entry>> {
        self.known.get(&object).and_then(Weak::upgrade)
    }

    fn enter(&mut self, person: Person) -> Arc<Entry> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, entry| entry.strong_count() > 0);
            self.sweep_at = (2 * self.known.len()).max(SWEEP_AT_LEAST);
        }
        let object = person.object;
        let entry = Arc::new(Entry {
            person: ArcSwap::from_pointee(person),
            is_gone: AtomicBool::new(false),
        });
        self.known.insert(object, Arc::downgrade(&entry));
        entry
    }
}

/// Of whom nothing that was verified before counts any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// Under each of their names.
    pub users: Vec<UserName>,
    /// Of nobody at all.
    pub everybody: bool,
}

impl Departed {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && !self.everybody
    }
}

/// The attributes that are asked for.
fn wanted(settings: &LdapSettings) -> Vec<String> {
    let a = &settings.attributes;
    let all = [
        &a.upn,
        &a.account,
        &a.addresses,
        &a.mail,
        &a.sid,
        &a.object,
        &a.mailbox_guid,
        &a.archive_guid,
        &a.database,
        &a.archive_database,
        &a.recipient_type,
        &a.control,
        &a.password_changed,
        &a.display_name,
        &a.legacy_dn,
        &a.delegates,
    ];
    let mut wanted: Vec<String> = all.into_iter().flatten().cloned().collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait).unwrap_or(start)
}

/// Until the directory is asked again whether it answers.
const STALE_FOR: Duration = Duration::from_secs(5);
/// Questions under way at once.
const FLIGHTS_MAX: usize = 1024;
/// More departures at once than these are those of everybody.
const DEPARTED_MAX: usize = 100_000;
const ATTEMPTS: usize = 3;
/// Sweeping fewer would cost more than it frees.
const SWEEP_AT_LEAST: usize = 1024;

pub(super) use client::CHANGES_MAX;

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
