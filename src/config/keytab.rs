//! Reads which names a keytab has keys of. The keys themselves are not looked at.
//!
//! The file is a row of records in network order, each with its length in front; a negative length is a hole that a
//! deleted record has left. MIT krb5, "Keytab file format"

/// A name that a keytab has a key of, such as `HTTP/mail.contoso.com` in the realm `CONTOSO.COM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    /// Its parts with slashes between them.
    pub(super) name: String,
    /// Its realm.
    pub(super) realm: String,
}

/// Every name, each once, in the order of the file; `None` for what is no keytab.
pub(super) fn principals(file: &[u8]) -> Option<Vec<Principal>> {
    let mut rest = file.strip_prefix(b"\x05\x02")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(take(&mut rest)?);
        // Some writers end the file with zeros.
        if length == 0 {
            break;
        }
        let size = usize::try_from(length.unsigned_abs()).ok()?;
        let record = rest.get(..size)?;
        rest = rest.get(size..)?;
        if length > 0 {
            let principal = principal(record)?;
            if !found.contains(&principal) {
                found.push(principal);
            }
        }
    }
    Some(found)
}

fn principal(mut record: &[u8]) -> Option<Principal> {
    let parts = u16::from_be_bytes(take(&mut record)?);
    let realm = text(&mut record)?;
    let name: Option<Vec<_>> = (0..parts).map(|_| text(&mut record)).collect();
    Some(Principal {
        name: name?.join("/"),
        realm,
    })
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let text = std::str::from_utf8(rest.get(..length)?).ok()?;
    *rest = rest.get(length..)?;
    Some(text.to_owned())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    }

    fn record(realm: &str, parts: &[&str]) -> Vec<u8> {
        let mut record = u16::try_from(parts.len()).unwrap().to_be_bytes().to_vec();
        record.extend(counted(realm.as_bytes()));
        parts
            .iter()
            .for_each(|part| record.extend(counted(part.as_bytes())));
        // Name type, time stamp, version, key.
        record.extend([0, 0, 0, 1, 0, 0, 0, 0, 3, 0, 18]);
        record.extend(counted(&[7; 32]));
        record
    }

    fn keytab(records: &[(i32, Vec<u8>)]) -> Vec<u8> {
        let mut file = b"\x05\x02".to_vec();
        for (sign, record) in records {
            let length = i32::try_from(record.len()).unwrap() * sign;
            file.extend(length.to_be_bytes());
            file.extend(record);
        }
        file
    }

    #[test]
    fn names_are_read_once_and_holes_are_passed_over() {
        let http = record("CONTOSO.TEST", &["HTTP", "mail.contoso.test"]);
        let file = keytab(&[(1, http.clone()), (-1, vec![9; 20]), (1, http)]);

        let names = principals(&file).unwrap();

        let name = "HTTP/mail.contoso.test".to_owned();
        let realm = "CONTOSO.TEST".to_owned();
        assert_eq!(names, [Principal { name, realm }]);
    }

    #[test]
    fn other_files_are_no_keytabs() {
        let whole = keytab(&[(1, record("CONTOSO.TEST", &["HTTP", "mail"]))]);
        for file in [&b""[..], b"\x05\x01", b"-----BEGIN", &whole[..20]] {
            assert_eq!(principals(file), None, "{file:?}");
        }
        assert_eq!(principals(b"\x05\x02"), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = principals(&bytes);
            let _ = principals(&[&b"\x05\x02"[..], &bytes].concat());
        }
    }
}
