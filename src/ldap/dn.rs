//! Distinguished names, as far as they name something of mail.

/// The value of the first part of a DN: `DB07` of `CN=DB07,CN=Databases,…`. RFC 4514 2.4
pub(super) fn name_in(dn: &str) -> Option<String> {
    let (_, rest) = dn.split_once('=')?;
    let mut name = Vec::new();
    let mut bytes = rest.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' | b'+' => break,
            b'\\' => {
                let next = bytes.next()?;
                let low = bytes.peek().and_then(|low| char::from(*low).to_digit(16));
                match (char::from(next).to_digit(16), low) {
                    (Some(high), Some(low)) => {
                        bytes.next();
                        name.push(u8::try_from((high << 4) | low).ok()?);
                    }
                    _ => name.push(next),
                }
            }
            byte => name.push(byte),
        }
    }
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty() && !name.contains(char::is_control)).then_some(name)
}

/// A DN without its first part: that of the entry above. RFC 4514 2.1
pub(super) fn parent_in(dn: &str) -> Option<&str> {
    let mut is_escaped = false;
    let comma = dn.bytes().position(|byte| {
        let is_end = byte == b',' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    dn.get(comma + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_part_of_a_dn_is_unescaped() {
        assert_eq!(name_in("CN=DB01,CN=x").unwrap(), "DB01");
        assert_eq!(name_in(r"CN=a\2Cb\+c\\d,CN=x").unwrap(), r"a,b+c\d");
        assert_eq!(name_in("CN=DB\\0ADEL:1,CN=x"), None);
        assert_eq!(name_in("DB01"), None);
        assert_eq!(name_in("CN=,x"), None);
    }

    #[test]
    fn the_entry_above_is_behind_the_first_comma_that_counts() {
        assert_eq!(parent_in("CN=MBX1,CN=DB01,DC=x"), Some("CN=DB01,DC=x"));
        assert_eq!(parent_in(r"CN=a\,b,CN=DB01"), Some("CN=DB01"));
        assert_eq!(parent_in(r"CN=a\\,CN=DB01"), Some("CN=DB01"));
        assert_eq!(parent_in(r"CN=a\2C\,,CN=DB01"), Some("CN=DB01"));
        assert_eq!(parent_in("CN=DB01"), None);
        assert_eq!(parent_in(r"CN=DB01\,"), None);
    }

    proptest! {
        #[test]
        fn any_dn_does_not_panic(dn in "\\PC{0,40}") {
            let _ = name_in(&dn);
            let _ = parent_in(&dn);
        }
    }
}
