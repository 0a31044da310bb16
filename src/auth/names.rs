//! The one spelling of a user's name.

use crate::ids::UserName;

/// Brings a login name into its one spelling: ASCII letters in lower case, and `default_domain` added to
/// a name that has no domain of its own.
///
/// `User1` becomes `user1@contoso.test`, `User1@Contoso.test` becomes `user1@contoso.test`, and
/// `CONTOSO\User1` becomes `contoso\user1`: the three are the same person only where the directory
/// says so, because nothing in the name itself does.
///
/// `None` for what nobody can be called: nothing, more than [`NAME_BYTES_MAX`] bytes, control
/// characters, a space at either end. A canonical name is therefore safe inside a header.
pub fn canonical(login: &str, default_domain: Option<&str>) -> Option<UserName> {
    let mut name = String::new();
    append_canonical(login, default_domain, &mut name)?;
    Some(UserName::new(name))
}

/// Writes what [`canonical`] gives to the end of `to`; `None`, and nothing written, where there is none.
pub fn append_canonical(login: &str, default_domain: Option<&str>, to: &mut String) -> Option<()> {
    let is_padded = login.starts_with(char::is_whitespace) || login.ends_with(char::is_whitespace);
    if login.is_empty() || is_padded || login.chars().any(char::is_control) {
        return None;
    }
    let domain =
        default_domain.filter(|_| memchr::memchr2(b'@', b'\\', login.as_bytes()).is_none());
    if login.len() + domain.map_or(0, |domain| 1 + domain.len()) > NAME_BYTES_MAX {
        return None;
    }
    let start = to.len();
    to.push_str(login);
    if let Some(domain) = domain {
        to.push('@');
        to.push_str(domain);
    }
    if let Some(name) = to.get_mut(start..) {
        name.make_ascii_lowercase();
    }
    Some(())
}

/// The longest name, in bytes: the local part and domain of an address with their `@`. RFC 5321 4.5.3.1
pub const NAME_BYTES_MAX: usize = 64 + 1 + 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(login: &str, domain: Option<&str>) -> Option<String> {
        canonical(login, domain).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn a_bare_name_gets_the_default_domain_and_others_keep_their_own() {
        let domain = Some("Contoso.test");

        assert_eq!(spelled("User1", domain).unwrap(), "user1@contoso.test");
        assert_eq!(
            spelled("User1@Fabrikam.test", domain).unwrap(),
            "user1@fabrikam.test"
        );
        assert_eq!(spelled(r"CONTOSO\User1", domain).unwrap(), r"contoso\user1");
        assert_eq!(spelled("User1", None).unwrap(), "user1");
    }

    #[test]
    fn names_nobody_can_have_are_none() {
        let long = "u".repeat(NAME_BYTES_MAX + 1);
        for login in ["", " user1", "user1 ", "a\0b", "a\r\nb", "a\u{7f}", &long] {
            assert_eq!(spelled(login, None), None, "{login:?}");
        }
        assert_eq!(spelled(&"u".repeat(320), Some("contoso.test")), None);
    }

    #[test]
    fn letters_outside_ascii_are_left_as_they_are() {
        // U+212A looks like `K` and would become `k` under Unicode's rules: another person's name.
        assert_eq!(spelled("\u{212a}ate", None).unwrap(), "\u{212a}ate");
    }
}
