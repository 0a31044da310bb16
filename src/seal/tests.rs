use super::*;
use crate::config::settings::SealKey;
use proptest::prelude::*;
use zeroize::Zeroizing;

fn sealer(keys: &[(u8, u8)]) -> Sealer {
    let key = |&(id, byte): &(u8, u8)| SealKey {
        id,
        key: Zeroizing::new([byte; 32]),
    };
    Sealer::new(&RouteCookie {
        name: "mapigate".to_owned(),
        keys: keys.iter().map(key).collect(),
    })
}

fn ticket() -> Ticket {
    Ticket {
        database: DatabaseName::new("DB07"),
        server: ServerName::new("MBX1"),
        mailbox: MailboxId::new("01234567-89ab-cdef-0123-456789abcdef@contoso.test"),
        issued: 1_800_000_000,
    }
}

fn alice() -> UserName {
    UserName::new("alice@contoso.test")
}

const HERE: Endpoint = Endpoint::Emsmdb;

#[test]
fn what_was_sealed_opens_for_its_user_and_endpoint() {
    let sealer = sealer(&[(1, 1)]);

    let value = sealer.seal(&ticket(), HERE, &alice()).unwrap();

    assert_eq!(
        sealer.open(value.as_bytes(), HERE, &alice()),
        Some(ticket())
    );
    assert_eq!(sealer.name(), "mapigate");
}

#[test]
fn another_user_opens_nothing() {
    let sealer = sealer(&[(1, 1)]);
    let value = sealer.seal(&ticket(), HERE, &alice()).unwrap();

    for name in [
        "bob@contoso.test",
        "",
        "alice@contoso.tes",
        "alice@contoso.test ",
    ] {
        assert_eq!(
            sealer.open(value.as_bytes(), HERE, &UserName::new(name)),
            None
        );
    }
}

#[test]
fn another_endpoint_opens_nothing() {
    let sealer = sealer(&[(1, 1)]);
    let value = sealer.seal(&ticket(), HERE, &alice()).unwrap();

    assert_eq!(
        sealer.open(value.as_bytes(), Endpoint::Nspi, &alice()),
        None
    );
}

#[test]
fn a_ticket_of_a_directory_opens_there_and_nowhere_else() {
    let sealer = sealer(&[(1, 1)]);
    let scopes = || {
        let endpoints = Endpoint::ALL.map(Scope::from);
        endpoints.into_iter().chain(Vdir::ALL.map(Scope::from))
    };

    for own in scopes() {
        let value = sealer.seal(&ticket(), own, &alice()).unwrap();
        for other in scopes() {
            let opened = sealer.open(value.as_bytes(), other, &alice());
            assert_eq!(opened.is_some(), own == other, "{own:?} {other:?}");
        }
    }
}

#[test]
fn another_key_opens_nothing_under_any_name() {
    let value = sealer(&[(1, 1)]).seal(&ticket(), HERE, &alice()).unwrap();

    for keys in [&[(1, 2)][..], &[(2, 1)], &[(2, 2), (3, 3)], &[]] {
        assert_eq!(
            sealer(keys).open(value.as_bytes(), HERE, &alice()),
            None,
            "{keys:?}"
        );
    }
}

#[test]
fn after_a_rotation_the_new_key_seals_and_both_open() {
    let (old, new) = (sealer(&[(1, 1)]), sealer(&[(2, 2), (1, 1)]));
    let before = old.seal(&ticket(), HERE, &alice()).unwrap();

    let after = new.seal(&ticket(), HERE, &alice()).unwrap();

    assert_eq!(new.open(before.as_bytes(), HERE, &alice()), Some(ticket()));
    assert_eq!(new.open(after.as_bytes(), HERE, &alice()), Some(ticket()));
    assert_eq!(old.open(after.as_bytes(), HERE, &alice()), None);
    assert_eq!(
        sealer(&[(2, 2)]).open(after.as_bytes(), HERE, &alice()),
        Some(ticket())
    );
}

#[test]
fn a_flip_of_any_bit_opens_nothing() {
    let sealer = sealer(&[(1, 1), (0, 2)]);
    let value = sealer.seal(&ticket(), HERE, &alice()).unwrap();

    let sealed = URL_SAFE_NO_PAD.decode(&value).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut tampered = sealed.clone();
        tampered[bit / 8] ^= 1 << (bit % 8);
        let tampered = URL_SAFE_NO_PAD.encode(tampered);
        assert_eq!(sealer.open(tampered.as_bytes(), HERE, &alice()), None);
    }
    for bit in 0..value.len() * 8 {
        let mut tampered = value.clone().into_bytes();
        tampered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(sealer.open(&tampered, HERE, &alice()), None, "bit {bit}");
    }
}

#[test]
fn a_ticket_cut_short_or_made_longer_opens_nothing() {
    let sealer = sealer(&[(1, 1)]);
    let value = sealer.seal(&ticket(), HERE, &alice()).unwrap();

    for length in 0..value.len() {
        assert_eq!(
            sealer.open(&value.as_bytes()[..length], HERE, &alice()),
            None
        );
    }
    for more in ["=", "A", "AA", " ", "AAAA"] {
        let longer = format!("{value}{more}");
        assert_eq!(sealer.open(longer.as_bytes(), HERE, &alice()), None);
    }
}

#[test]
fn the_value_is_made_of_cookie_letters_and_short() {
    let value = sealer(&[(1, 1)]).seal(&ticket(), HERE, &alice()).unwrap();

    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!(value.bytes().all(is_letter));
    assert!(value.len() <= 136, "{}", value.len());
}

#[test]
fn the_same_ticket_never_looks_the_same() {
    let sealer = sealer(&[(1, 1)]);

    let first = sealer.seal(&ticket(), HERE, &alice());

    assert_ne!(first, sealer.seal(&ticket(), HERE, &alice()));
}

#[test]
fn names_too_long_for_a_cookie_get_none() {
    let sealer = sealer(&[(1, 1)]);
    for length in [0, 1, 200, 255, 256, 300, 70_000] {
        let ticket = Ticket {
            mailbox: MailboxId::new("m".repeat(length)),
            ..ticket()
        };
        match sealer.seal(&ticket, HERE, &alice()) {
            Some(value) => {
                assert!(value.len() <= LENGTH_MAX && length < 256);
                let opened = sealer.open(value.as_bytes(), HERE, &alice());
                assert_eq!(opened, Some(ticket));
            }
            None => assert!(length >= 256, "{length}"),
        }
    }
}

#[test]
fn without_keys_nothing_is_sealed() {
    assert_eq!(sealer(&[]).seal(&ticket(), HERE, &alice()), None);
}

#[test]
fn a_ticket_is_fresh_for_its_lifetime_and_a_little_skew() {
    let (ticket, lifetime) = (ticket(), Duration::from_secs(1200));
    let issued = ticket.issued;

    assert!(ticket.is_fresh(issued, lifetime));
    assert!(ticket.is_fresh(issued - 300, lifetime));
    assert!(!ticket.is_fresh(issued - 301, lifetime));
    assert!(ticket.is_fresh(issued + 1499, lifetime));
    assert!(!ticket.is_fresh(issued + 1500, lifetime));
    assert!(!ticket.is_fresh(u64::MAX, lifetime));
}

#[test]
fn keys_do_not_print() {
    let shown = format!("{:?}", sealer(&[(7, 1)]));
    assert_eq!(shown, "Sealer { name: \"mapigate\", keys: [7], .. }");
}

proptest! {
    #[test]
    fn any_bytes_open_nothing_and_panic_nowhere(value in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(sealer(&[(1, 1)]).open(&value, HERE, &alice()), None);
    }

    #[test]
    fn any_base64_opens_nothing_and_panics_nowhere(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let value = URL_SAFE_NO_PAD.encode([&[VERSION, 1][..], &bytes].concat());
        prop_assert_eq!(sealer(&[(1, 1)]).open(value.as_bytes(), HERE, &alice()), None);
    }

    #[test]
    fn any_plain_bytes_read_without_panic(plain in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(ticket) = read(&plain) {
            prop_assert_eq!(write(&ticket), Some(plain));
        }
    }

    #[test]
    fn any_ticket_survives_the_round_trip(
        server in ".{0,20}", database in ".{0,20}", mailbox in ".{0,20}", issued: u64, user in ".{0,40}",
    ) {
        let ticket = Ticket {
            server: ServerName::new(server),
            database: DatabaseName::new(database),
            mailbox: MailboxId::new(mailbox),
            issued,
        };
        let (sealer, user) = (sealer(&[(1, 1)]), UserName::new(user));
        let value = sealer.seal(&ticket, HERE, &user).unwrap();
        prop_assert_eq!(sealer.open(value.as_bytes(), HERE, &user), Some(ticket));
    }
}
