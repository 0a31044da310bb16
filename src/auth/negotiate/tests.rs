use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A keytab with one key that no domain has ever given out.
fn keytab(folder: &Path) -> PathBuf {
    let counted =
        |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let record = [
        vec![0, 2],
        counted(b"CONTOSO.TEST"),
        counted(b"HTTP"),
        counted(b"mail.contoso.test"),
        // Name type, time stamp, version, kind of key: AES-256.
        vec![0, 0, 0, 1, 0, 0, 0, 0, 3, 0, 18],
        counted(&[7; 32]),
    ]
    .concat();
    let length = u32::try_from(record.len()).unwrap().to_be_bytes();
    let path = folder.join("http.keytab");
    std::fs::write(&path, [b"\x05\x02", &length[..], &record].concat()).unwrap();
    path
}

fn settings(keytab: PathBuf) -> NegotiateAuth {
    NegotiateAuth {
        keytab,
        replay_cache: None,
        realm_map: BTreeMap::new(),
        channel_binding: BindingRule::Accept,
        extra_channel_bindings: Vec::new(),
        allow_ntlm_in_spnego: false,
        persist: true,
        keeps_tickets: true,
        threads: 1,
        handshake_timeout: Duration::from_secs(10),
    }
}

#[test]
fn a_keytab_that_is_missing_is_named_when_the_service_starts() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("absent.keytab");

    let error = Negotiate::new(&settings(missing.clone()), None).unwrap_err();

    assert!(
        matches!(&error, AuthError::Keytab { file, .. } if *file == missing),
        "{error}"
    );
}

#[test]
fn new_keys_leave_what_was_proven_and_new_rules_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let same = settings(keytab(folder.path()));
    let first = Negotiate::new(&same, None).unwrap();

    let rekeyed = Negotiate::new(&same, Some(&first)).unwrap();
    let mut stricter = same;
    stricter.channel_binding = BindingRule::Require;
    let stricter = Negotiate::new(&stricter, Some(&first)).unwrap();
    let mut keeping = settings(folder.path().join("http.keytab"));
    keeping.keeps_tickets = false;
    let not_keeping = Negotiate::new(&keeping, Some(&first)).unwrap();

    assert_eq!(rekeyed.serial(), first.serial());
    assert_ne!(stricter.serial(), first.serial());
    assert_ne!(not_keeping.serial(), first.serial());
    assert!(Arc::ptr_eq(&rekeyed.tickets, &first.tickets));
}

#[test]
fn ntlm_is_known_by_its_first_message_near_the_front() {
    let framed = [
        b"\x60\x48\x06\x06+\x06\x01\x05\x05\x02".as_slice(),
        b"NTLMSSP\0\x01\0\0\0",
    ]
    .concat();
    assert!(is_ntlm(&framed));
    assert!(is_ntlm(b"NTLMSSP\0\x01\0\0\0"));

    assert!(!is_ntlm(b"NTLMSSP\0\x03\0\0\0"));
    assert!(!is_ntlm(&[&[0; 300], b"NTLMSSP\0\x01".as_slice()].concat()));
}

proptest! {
    #[test]
    fn any_token_proves_nothing_and_harms_nothing(
        tail in prop::collection::vec(any::<u8>(), 0..200),
        head in prop::sample::select(vec![
            b"".as_slice(),
            b"\x60\x48\x06\x06+\x06\x01\x05\x05\x02\xa0",
            b"\x60\x82\x01\x00\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01\x00",
            b"NTLMSSP\0\x01",
        ]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let negotiate = Negotiate::new(&settings(keytab(folder.path())), None).unwrap();

        let word = Zeroizing::new([head, &tail].concat());
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let judged = negotiate.acceptor.judge(None, word, None, Instant::now());

        prop_assert!(!matches!(judged, Judged::Proven(_)));
    }
}
