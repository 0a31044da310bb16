//! Under which of a site's names a mailbox is to be reached.

use super::Vdir;

/// The name under which a client is to ask instead; `None`: it is served where it asked. `asked` is the name that was
/// asked for, `home` that of the server of the mailbox, where it has one of its own; both in lower case.
///
/// Clients of ActiveSync alone: they know what to do with a 451, and keep the new name. `[MS-ASHTTP] 3.1.5.2.2`
/// Where the new name is asked for, the answer is `None`: nobody is sent in a circle.
pub fn other_name<'a>(vdir: Vdir, asked: &str, home: Option<&'a str>) -> Option<&'a str> {
    let home = home.filter(|_| vdir == Vdir::ActiveSync)?;
    (home != asked).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_alone_are_sent_to_the_name_of_the_server_and_only_where_it_has_another() {
        let (us, eu) = ("mail.us.contoso.com", "mail.eu.contoso.com");
        for (vdir, asked, home, other) in [
            (Vdir::ActiveSync, us, Some(eu), Some(eu)),
            (Vdir::ActiveSync, eu, Some(eu), None),
            (Vdir::ActiveSync, us, None, None),
            (Vdir::ActiveSync, "mail.contoso.com", Some(us), Some(us)),
            (Vdir::Ews, us, Some(eu), None),
            (Vdir::Owa, us, Some(eu), None),
            (Vdir::Ecp, us, Some(eu), None),
            (Vdir::Oab, us, Some(eu), None),
            (Vdir::PowerShell, us, Some(eu), None),
            (Vdir::Api, us, Some(eu), None),
        ] {
            assert_eq!(
                other_name(vdir, asked, home),
                other,
                "{vdir:?} {asked} {home:?}"
            );
        }
    }

    #[test]
    fn whoever_goes_where_it_is_sent_is_served_there() {
        let names = ["a.test", "b.test", "c.test"];
        for asked in names {
            for home in [None, Some("a.test"), Some("b.test"), Some("c.test")] {
                let next = other_name(Vdir::ActiveSync, asked, home).unwrap_or(asked);
                assert_eq!(other_name(Vdir::ActiveSync, next, home), None);
            }
        }
    }
}
