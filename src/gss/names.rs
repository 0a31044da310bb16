//! What users and servers are called in Kerberos.

use super::ticket::TicketError;
use crate::ids::UserName;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Who we are in the realm, and how users and servers are called there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The keys of the account that may act for users.
    pub keytab: PathBuf,
    /// Who we are there; `None`: the first name of the key table.
    pub account: Option<String>,
    /// The principal of a server, `{server_fqdn}` standing for its host, `{server}` for its name here.
    pub service: String,
    /// Realms by mail domain; a domain that is not here is its realm in capitals.
    pub realms: BTreeMap<String, String>,
}

impl Names {
    /// The realm of a mail domain.
    fn realm(&self, domain: &str) -> String {
        match self.realms.get(domain) {
            Some(realm) => realm.clone(),
            None => domain.to_ascii_uppercase(),
        }
    }

    /// The realm of a user; empty where the name has no domain.
    pub(super) fn realm_of(&self, user: &UserName) -> String {
        let domain = user.as_str().rsplit_once('@');
        domain.map_or_else(String::new, |(_, domain)| self.realm(domain))
    }

    /// The principal of a user.
    ///
    /// # Errors
    /// The login name is none.
    pub(super) fn user(&self, user: &UserName) -> Result<String, TicketError> {
        let whole = user.as_str();
        let Some((local, domain)) = whole.rsplit_once('@') else {
            let words = "a login name without a domain has no realm";
            return Err(TicketError::Refused(words.into()));
        };
        // These have a meaning in principals.
        if local.is_empty() || local.contains(['/', '\\', '@']) || whole.contains(char::is_control)
        {
            let words = "the login name cannot be a principal";
            return Err(TicketError::Refused(words.into()));
        }
        Ok(format!("{local}@{}", self.realm(domain)))
    }

    /// The server's principal; without a realm of its own it is in the user's.
    pub(super) fn service(&self, (name, host): (&str, &str), user: &UserName) -> String {
        let principal = self
            .service
            .replace("{server_fqdn}", host)
            .replace("{server}", &name.to_ascii_lowercase());
        match (principal.contains('@'), user.as_str().rsplit_once('@')) {
            (false, Some((_, domain))) => format!("{principal}@{}", self.realm(domain)),
            _ => principal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            service: "HTTP/{server_fqdn}".to_owned(),
            realms: BTreeMap::from([("mail.test".to_owned(), "AD.TEST".to_owned())]),
            ..Names::default()
        }
    }

    #[test]
    fn a_realm_is_the_domain_in_capitals_or_what_the_site_says() {
        let name = |user: &str| names().user(&UserName::new(user));

        assert_eq!(name("user1@contoso.test").unwrap(), "user1@CONTOSO.TEST");
        assert_eq!(name("user1@mail.test").unwrap(), "user1@AD.TEST");
    }

    #[test]
    fn a_name_that_means_another_principal_is_refused() {
        for user in [
            "user1",
            "host/dc1@contoso.test",
            "a\\@b@contoso.test",
            "@contoso.test",
            "a\0@b",
        ] {
            let refused = names().user(&UserName::new(user));
            assert!(matches!(refused, Err(TicketError::Refused(_))), "{user}");
        }
    }

    #[test]
    fn a_server_is_in_the_users_realm_unless_it_says_its_own() {
        let user = UserName::new("user1@contoso.test");
        let other = Names {
            service: "HTTP/{server_fqdn}@RES.TEST".to_owned(),
            ..names()
        };

        assert_eq!(
            names().service(("MBX1", "mbx1.contoso.test"), &user),
            "HTTP/mbx1.contoso.test@CONTOSO.TEST"
        );
        let short = Names {
            service: "HTTP/{server}.contoso.test".to_owned(),
            ..names()
        };
        assert_eq!(
            short.service(("MBX1", "127.0.0.1"), &user),
            "HTTP/mbx1.contoso.test@CONTOSO.TEST"
        );
        assert_eq!(
            other.service(("MBX1", "mbx1.res.test"), &user),
            "HTTP/mbx1.res.test@RES.TEST"
        );
    }
}
