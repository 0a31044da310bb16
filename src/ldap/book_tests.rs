//! What the book promises, told without a directory: entries are put into its mouth.
#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::super::person::tests::{entry, settings};
use super::*;
use std::time::SystemTime;

const SECOND: Duration = Duration::from_secs(1);
const GUID: [u8; 16] = *b"3210547689abcdef";

/// A book whose directory is nobody.
fn book() -> Arc<Book> {
    Book::new(&Arc::new(settings()), "{upn}", None).unwrap()
}

fn alice() -> SearchEntry {
    entry(&[
        ("userPrincipalName", "alice@contoso.test"),
        ("sAMAccountName", "alice"),
        ("proxyAddresses", "SMTP:alice@contoso.test"),
        ("objectGUID", "object-of-alice!"),
        ("msExchMailboxGuid", "0123456789abcdef"),
        ("homeMDB", "CN=DB01,CN=Databases"),
        ("msExchRecipientTypeDetails", "1"),
        ("userAccountControl", "512"),
        ("pwdLastSet", "7"),
    ])
}

fn with(mut entry: SearchEntry, name: &str, value: &str) -> SearchEntry {
    entry.attrs.insert(name.to_owned(), vec![value.to_owned()]);
    entry
}

fn question(book: &Arc<Book>, asked: Asked<'_>, now: Instant) -> Lookup {
    book.question(asked, asked.mark(&book.marker), true, now)
        .unwrap()
}

/// The directory answers the question with these entries.
fn answered(
    book: &Arc<Book>,
    asked: Asked<'_>,
    entries: &[SearchEntry],
    now: Instant,
) -> Option<Arc<Person>> {
    book.told(asked, entries, now);
    match look(book, asked, now) {
        Look::Person(person) => Some(person),
        Look::Nobody | Look::Ask(_) => None,
    }
}

fn look(book: &Arc<Book>, asked: Asked<'_>, now: Instant) -> Look {
    book.look(asked, &Findings::default(), now)
}

fn departed(book: &Book) -> Departed {
    std::mem::take(&mut *book.departed.lock())
}

const BY_NAME: Asked<'static> = Asked::User("alice@contoso.test");
const BY_MAILBOX: Asked<'static> = Asked::Mailbox(GUID);

#[test]
fn what_was_answered_is_remembered_for_its_time() {
    let (book, start) = (book(), Instant::now());
    assert!(matches!(look(&book, BY_NAME, start), Look::Ask(_)));

    answered(&book, BY_NAME, &[alice()], start).unwrap();
    answered(&book, Asked::User("nobody"), &[], start);

    let before = start + settings().ttl - SECOND;
    assert!(matches!(look(&book, BY_NAME, before), Look::Person(_)));
    assert!(matches!(
        look(&book, BY_NAME, before + SECOND),
        Look::Ask(_)
    ));
    let negative = start + settings().negative_ttl;
    assert!(matches!(
        look(&book, Asked::User("nobody"), negative - SECOND),
        Look::Nobody
    ));
    assert!(matches!(
        look(&book, Asked::User("nobody"), negative),
        Look::Ask(_)
    ));
}

#[test]
fn one_name_says_nothing_about_another() {
    let (book, now) = (book(), Instant::now());

    // The address is in the answer, and yet somebody else may have a better claim to it.
    answered(&book, BY_MAILBOX, &[alice()], now).unwrap();

    assert!(matches!(look(&book, BY_NAME, now), Look::Ask(_)));
}

#[test]
fn a_moved_mailbox_is_seen_under_every_name_at_once() {
    let (book, now) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], now).unwrap();
    answered(&book, BY_MAILBOX, &[alice()], now).unwrap();

    book.changed(&with(alice(), "homeMDB", "CN=DB02,CN=Databases"));

    for asked in [BY_NAME, BY_MAILBOX] {
        let Look::Person(person) = look(&book, asked, now) else {
            panic!("{asked:?} was forgotten");
        };
        assert_eq!(person.database_of(GUID).unwrap().as_str(), "DB02");
    }
    assert_eq!(departed(&book), Departed::default());
}

#[test]
fn another_password_and_a_disabled_account_end_what_was_verified() {
    for (attribute, value) in [("pwdLastSet", "8"), ("userAccountControl", "514")] {
        let (book, now) = (book(), Instant::now());
        answered(&book, BY_NAME, &[alice()], now).unwrap();
        assert_eq!(departed(&book), Departed::default());

        book.changed(&with(alice(), attribute, value));

        let departed = departed(&book);
        let is_named = |name: &str| departed.users.iter().any(|user| user.as_str() == name);
        assert!(is_named("alice@contoso.test"), "{departed:?}");
        assert!(is_named(r"contoso\alice"), "{departed:?}");
    }
}

#[test]
fn a_change_that_a_question_brings_to_light_counts_as_well() {
    let (book, now) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], now).unwrap();

    answered(&book, BY_MAILBOX, &[with(alice(), "pwdLastSet", "8")], now).unwrap();

    assert!(!departed(&book).users.is_empty());
}

#[test]
fn a_renamed_entry_is_asked_for_anew_under_old_and_new_names() {
    let (book, now) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], now).unwrap();
    answered(&book, Asked::User("a.new@contoso.test"), &[], now);

    book.changed(&with(alice(), "userPrincipalName", "a.new@contoso.test"));

    assert!(matches!(look(&book, BY_NAME, now), Look::Ask(_)));
    assert!(matches!(
        look(&book, Asked::User("a.new@contoso.test"), now),
        Look::Ask(_)
    ));
    assert!(!departed(&book).users.is_empty());
}

#[test]
fn an_entry_that_is_gone_ends_what_was_verified() {
    let (book, start) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], start).unwrap();
    answered(&book, BY_MAILBOX, &[alice()], start).unwrap();

    assert_eq!(answered(&book, BY_NAME, &[], start), None);

    assert!(matches!(look(&book, BY_NAME, start), Look::Nobody));
    assert!(matches!(look(&book, BY_MAILBOX, start), Look::Ask(_)));
    assert!(!departed(&book).users.is_empty());
}

#[test]
fn two_entries_of_one_name_are_nobody() {
    let (book, now) = (book(), Instant::now());
    let other = with(alice(), "objectGUID", "another-object!!");

    assert_eq!(answered(&book, BY_MAILBOX, &[alice(), other], now), None);

    assert!(matches!(look(&book, BY_MAILBOX, now), Look::Nobody));
}

#[test]
fn a_changed_entry_that_nobody_remembers_ends_what_was_verified_all_the_same() {
    let book = book();

    book.changed(&alice());

    assert!(!departed(&book).users.is_empty());
}

#[test]
fn while_the_directory_is_silent_the_known_are_believed_and_the_unknown_are_not() {
    let (book, start) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], start).unwrap();
    answered(&book, Asked::User("nobody"), &[], start);
    let later = start + settings().ttl;
    let stale = |asked: Asked<'_>, now: Instant| {
        let lookup = question(&book, asked, now);
        book.stale(&lookup, book.slot(&lookup.mark))
    };

    assert!(matches!(stale(BY_NAME, later), Some(Some(_))));
    assert!(stale(Asked::User("nobody"), later).is_none());
    assert!(stale(BY_MAILBOX, later).is_none());
    // For a moment nobody asks again, and not for ever.
    assert!(matches!(look(&book, BY_NAME, later), Look::Person(_)));
    assert!(matches!(
        look(&book, BY_NAME, later + STALE_FOR),
        Look::Ask(_)
    ));
    assert!(stale(BY_NAME, later + settings().stale_on_error).is_none());
}

#[test]
fn an_answer_older_than_a_change_is_not_remembered() {
    let (book, now) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], now).unwrap();
    book.changed(&with(alice(), "homeMDB", "CN=DB02,CN=Databases"));

    let lookup = question(&book, BY_MAILBOX, now);
    let old = book.found(&lookup, &[alice()], None, false).unwrap();

    assert_eq!(old.database_of(GUID).unwrap().as_str(), "DB01");
    assert!(matches!(look(&book, BY_MAILBOX, now), Look::Ask(_)));
    let Look::Person(person) = look(&book, BY_NAME, now) else {
        panic!("forgotten");
    };
    assert_eq!(person.database_of(GUID).unwrap().as_str(), "DB02");
}

#[test]
fn a_new_age_asks_for_everything_anew_and_forgets_nothing() {
    let (book, now) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], now).unwrap();

    book.age();

    assert!(matches!(look(&book, BY_NAME, now), Look::Ask(_)));
    let lookup = question(&book, BY_NAME, now);
    assert!(book.stale(&lookup, book.slot(&lookup.mark)).is_some());
}

#[test]
fn what_was_found_for_a_request_counts_for_it_whatever_is_remembered() {
    let (book, now) = (book(), Instant::now());
    let person = answered(&book, BY_NAME, &[alice()], now);
    book.slots.remove(&BY_NAME.mark(&book.marker));

    let found = Findings(vec![(BY_NAME.mark(&book.marker), person)]);

    assert!(matches!(book.look(BY_NAME, &found, now), Look::Person(_)));
    assert!(matches!(book.look(BY_MAILBOX, &found, now), Look::Ask(_)));
}

#[test]
fn more_departures_than_can_be_told_apart_are_those_of_everybody() {
    let book = book();
    book.departed.lock().users = vec![UserName::new("x"); DEPARTED_MAX];

    book.changed(&alice());

    let departed = departed(&book);
    assert!(departed.everybody);
    assert!(departed.users.is_empty());
}

#[test]
fn a_name_that_may_be_made_up_leaves_no_trace() {
    let (book, now) = (book(), Instant::now());
    let lookup = book.ask(Asked::User("made.up@contoso.test"), now).unwrap();

    book.found(&lookup, &[], None, true);

    assert_eq!(book.slot(&lookup.mark).map(|_| ()), None);
}

#[test]
fn a_book_is_of_its_settings_and_its_way_to_log_on() {
    let book = book();
    let other = LdapSettings {
        ttl: 2 * SECOND,
        ..settings()
    };

    assert!(book.is_of(&settings(), "{upn}"));
    assert!(!book.is_of(&settings(), "{dn}"));
    assert!(!book.is_of(&other, "{upn}"));
}

#[tokio::test]
async fn an_outage_does_not_tell_of_whom_something_was_known_where_that_is_nobodys_business() {
    let (book, start) = (book(), Instant::now());
    answered(&book, BY_NAME, &[alice()], start).unwrap();
    let ask = async |name: &str, may_be_old: bool| {
        let asked = Asked::User(name);
        match book.look_anew(asked, may_be_old, &Findings::default(), start) {
            Look::Ask(lookup) => lookup.run().await,
            other => panic!("{other:?}"),
        }
    };
    let (known, unknown) = ("alice@contoso.test", "nobody@contoso.test");

    assert_eq!(ask(known, false).await, ask(unknown, false).await);
    assert_eq!(ask(unknown, true).await, Err(Trouble::Unreachable));
    assert!(matches!(ask(known, true).await, Ok(Some(_))));
}

#[tokio::test]
async fn who_asks_the_same_at_the_same_time_asks_once() {
    let book = book();
    let now = Instant::now();
    let began = SystemTime::now();

    let first = question(&book, BY_NAME, now);
    let waiting = [book.board(&first).unwrap(), book.board(&first).unwrap()];

    assert_eq!(book.flights.lock().len(), 1);
    for mut waiting in waiting {
        let answer = waiting.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(answer, Some(Err(Trouble::Unreachable)));
    }
    assert!(book.flights.lock().is_empty());
    assert!(began.elapsed().unwrap() < Duration::from_secs(5));
}

#[test]
fn whoever_is_asked_for_anew_is_asked_for_remembered_or_not() {
    let (book, now) = (book(), Instant::now());
    let asked = Asked::User("alice@contoso.test");
    assert!(answered(&book, asked, &[alice()], now).is_some());

    let anew = book.look_anew(asked, true, &Findings::default(), now);
    assert!(matches!(anew, Look::Ask(_)));

    let person = match look(&book, asked, now) {
        Look::Person(person) => person,
        other => panic!("{other:?}"),
    };
    let told = Findings(vec![(asked.mark(&book.marker), Some(person))]);
    assert!(matches!(
        book.look_anew(asked, true, &told, now),
        Look::Person(_)
    ));
}
