use super::*;
use proptest::prelude::*;

/// One element with its length in as few bytes as it takes.
pub(in crate::ldap) fn element_of(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(short @ ..=0x7f) => bytes.push(short),
        _ => {
            bytes.push(0x84);
            bytes.extend(u32::try_from(contents.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend(contents);
    bytes
}

fn message(id: u8, operation: &[u8], controls: &[u8]) -> Vec<u8> {
    let id = element_of(INTEGER, &[id]);
    element_of(SEQUENCE, &[&id, operation, controls].concat())
}

const WELL: &[u8] = b"\x0a\x01\x00\x04\x00\x04\x00";

fn bind_response() -> Vec<u8> {
    message(1, &element_of(BIND_RESPONSE, WELL), &[])
}

fn attribute(name: &[u8], value: &[u8]) -> Vec<u8> {
    let values = element_of(SET, &element_of(OCTETS, value));
    element_of(SEQUENCE, &[element_of(OCTETS, name), values].concat())
}

fn search_entry(name: &[u8], attributes: &[u8]) -> Vec<u8> {
    let inside = [element_of(OCTETS, name), element_of(SEQUENCE, attributes)].concat();
    message(2, &element_of(SEARCH_ENTRY, &inside), &[])
}

fn paged(value: &[u8]) -> Vec<u8> {
    let parts = [element_of(OCTETS, PAGED_RESULTS), element_of(OCTETS, value)].concat();
    element_of(CONTROLS, &element_of(SEQUENCE, &parts))
}

fn search_done(controls: &[u8]) -> Vec<u8> {
    message(2, &element_of(SEARCH_DONE, WELL), controls)
}

fn last_page() -> Vec<u8> {
    paged(&element_of(SEQUENCE, b"\x02\x01\x00\x04\x00"))
}

/// What a server says to a logon (message 1) and a search (message 2), each message for itself.
pub(in crate::ldap) fn conversation() -> [Vec<u8>; 4] {
    let referral = element_of(OCTETS, b"ldap://elsewhere/");
    [
        bind_response(),
        search_entry(
            b"CN=alice",
            &[
                attribute(b"mail", b"alice@contoso.test"),
                attribute(b"objectGUID", &[0xff; 16]),
            ]
            .concat(),
        ),
        message(2, &element_of(SEARCH_REFERENCE, &referral), &[]),
        search_done(&last_page()),
    ]
}

/// After a logon and a search were asked.
fn asked() -> Questions {
    let mut questions = Questions::default();
    for (id, request) in [(1, BIND_REQUEST), (2, SEARCH_REQUEST)] {
        questions
            .ask(&message(id, &element_of(request, b""), &[]))
            .unwrap();
    }
    questions
}

fn look(message: &[u8]) -> Result<Sight, Nonsense> {
    assert_eq!(length(message), Ok(Some(message.len())));
    asked().look(message)
}

#[test]
fn answers_to_open_questions_pass() {
    let mut questions = asked();
    for message in conversation() {
        assert_eq!(questions.look(&message), Ok(Sight::Pass));
    }
    // Each is answered once.
    for message in conversation() {
        assert_eq!(questions.look(&message), Ok(Sight::Drop));
    }
}

#[test]
fn lengths_of_four_bytes_are_those_of_active_directory() {
    let long = search_entry(b"CN=alice", &attribute(b"description", &[b'x'; 300]));

    assert_eq!(long[1], 0x84);
    assert_eq!(look(&long), Ok(Sight::Pass));
}

#[test]
fn what_nobody_asked_for_is_dropped() {
    let notice = element_of(EXTENDED_RESPONSE, b"\x0a\x01\x34\x04\x00\x04\x00");
    let name = element_of(NOTICE_NAME, b"1.3.6.1.4.1.1466.20036");

    assert_eq!(look(&message(0, &notice, &[])), Ok(Sight::Drop));
    assert_eq!(look(&message(0, &notice, &name)), Ok(Sight::Drop));
    assert_eq!(
        look(&message(9, &element_of(SEARCH_DONE, WELL), &[])),
        Ok(Sight::Drop)
    );
    assert_eq!(
        look(&message(2, &element_of(INTERMEDIATE, b""), &[])),
        Ok(Sight::Drop)
    );
}

#[test]
fn an_answer_that_does_not_end_is_refused_by_its_entries_or_its_bytes() {
    let endless = |entry: &[u8]| {
        let mut questions = asked();
        (1..).find(|_| questions.look(entry).is_err()).unwrap()
    };

    assert_eq!(endless(&search_entry(b"CN=a", &[])), ENTRIES_MAX + 1);
    let large = search_entry(b"CN=a", &attribute(b"jpegPhoto", &vec![0; 1 << 19]));
    assert_eq!(endless(&large), ANSWER_MAX.div_ceil(large.len()));
    let intermediate = message(2, &element_of(INTERMEDIATE, b""), &[]);
    assert_eq!(endless(&intermediate), ENTRIES_MAX + 1);
}

#[test]
fn nonsense_is_refused() {
    let done = |inside: &[u8]| message(2, &element_of(SEARCH_DONE, inside), &[]);
    let nested = (0..1000).fold(vec![], |inside, _| element_of(SEQUENCE, &inside));
    for (what, message) in [
        ("nothing in it", b"\x30\x00".to_vec()),
        ("no operation", b"\x30\x03\x02\x01\x02".to_vec()),
        (
            "no number",
            message(2, b"", &[])[..2]
                .iter()
                .copied()
                .chain(*b"\x05\x00\x00")
                .collect(),
        ),
        (
            "a number of nine bytes",
            element_of(SEQUENCE, b"\x02\x09123456789\x65\x00"),
        ),
        (
            "an entry for a logon",
            message(1, &element_of(SEARCH_ENTRY, b"\x04\x00\x30\x00"), &[]),
        ),
        (
            "a logon for a search",
            message(2, &element_of(BIND_RESPONSE, WELL), &[]),
        ),
        (
            "an operation LDAP has not",
            message(2, &element_of(0x7e, WELL), &[]),
        ),
        ("an empty result", done(b"")),
        ("a result without words", done(b"\x0a\x01\x00\x04\x00")),
        (
            "a result whose code is text",
            done(b"\x04\x01\x00\x04\x00\x04\x00"),
        ),
        (
            "a result with a deep part",
            done(&[WELL, &element_of(0xa5, &nested)].concat()),
        ),
        (
            "a referral that is no list",
            done(&[WELL, b"\x83\x01x"].concat()),
        ),
        (
            "an entry without attributes",
            message(2, &element_of(SEARCH_ENTRY, b"\x04\x00"), &[]),
        ),
        (
            "an entry of deep attributes",
            search_entry(b"CN=a", &nested),
        ),
        ("a name that is not UTF-8", search_entry(b"CN=\xff", &[])),
        ("a control without its page", search_done(&paged(b""))),
        (
            "a control with half a page",
            search_done(&paged(b"\x30\x03\x02\x01\x00")),
        ),
        (
            "controls that are none",
            search_done(&element_of(CONTROLS, b"\x05\x00")),
        ),
        (
            "more after the controls",
            search_done(&[last_page(), last_page()].concat()),
        ),
    ] {
        assert!(look(&message).is_err(), "{what}");
    }
}

#[test]
fn endless_and_foreign_messages_are_refused_at_their_first_bytes() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"\x16\x03\x01",
        b"\x30\x84\x7f\xff\xff\xff",
        b"\x30\x88\x00\x00\x00\x00\x00\x00\x00\x05",
        // A length that is known at the end only.
        b"\x30\x80",
    ] {
        assert!(length(bytes).is_err(), "{bytes:x?}");
    }
    assert_eq!(length(b""), Ok(None));
    assert_eq!(length(b"\x30\x84\x00"), Ok(None));
    assert_eq!(length(b"\x30\x84\x00\x00\x00\x05\x02"), Ok(Some(11)));
}

#[test]
fn only_a_clear_yes_begins_tls() {
    let answer = |id, inside: &[u8]| message(id, &element_of(EXTENDED_RESPONSE, inside), &[]);

    assert_eq!(agrees_to_tls(&answer(1, WELL)), Ok(true));
    assert_eq!(
        agrees_to_tls(&answer(1, b"\x0a\x01\x02\x04\x00\x04\x00")),
        Ok(false)
    );
    assert!(agrees_to_tls(&answer(2, WELL)).is_err());
    assert!(agrees_to_tls(&bind_response()).is_err());
    assert_eq!(length(START_TLS), Ok(Some(START_TLS.len())));
}

#[test]
fn questions_without_answers_are_bounded() {
    let mut questions = Questions::default();
    let search = |id: u32| {
        let id = element_of(INTEGER, &id.to_be_bytes());
        element_of(SEQUENCE, &[id, element_of(SEARCH_REQUEST, b"")].concat())
    };
    for id in 1..=u32::try_from(OPEN_MAX).unwrap() {
        questions.ask(&search(id)).unwrap();
    }

    assert!(questions.ask(&search(u32::MAX)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_can_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _any = length(&bytes);
        let _any = asked().look(&bytes);
        let _any = agrees_to_tls(&bytes);
    }
}
