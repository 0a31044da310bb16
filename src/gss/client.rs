//! The client's side of a handshake: how a user's own machine signs on.
//!
//! For trying what a user would meet. Blocks on the KDC.

use super::credential;
use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext as _};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_SPNEGO, GSS_NT_HOSTBASED_SERVICE, GSS_NT_USER_NAME, Oid, OidSet};
use std::fmt;
use zeroize::Zeroizing;

/// A user on the way to the web service of a host.
pub struct Client {
    context: ClientCtx,
    user: String,
}

impl Client {
    /// By Kerberos inside of Negotiate, with a ticket that is got for `principal` (`user1@CONTOSO.COM`) with its
    /// password.
    ///
    /// # Errors
    /// What the Kerberos library says; without the domain's answer, which comes with the first word.
    pub fn with_password(principal: &str, password: &str, host: &str) -> Result<Self, Error> {
        let credential = credential::owner(principal, password)?;
        Self::new(credential, host, GSS_MECH_SPNEGO)
    }

    /// By Kerberos inside of Negotiate, with the tickets in a credential cache as `kinit` leaves it:
    /// `FILE:/tmp/krb5cc_0`, or a path.
    ///
    /// # Errors
    /// What the Kerberos library says.
    pub fn with_tickets(cache: &str, host: &str) -> Result<Self, Error> {
        Self::new(credential::holder(cache)?, host, GSS_MECH_SPNEGO)
    }

    /// By NTLM as it is. `account` is `CONTOSO\user1`, or a name with a domain of its own. Needs the plug-in
    /// gss-ntlmssp.
    ///
    /// # Errors
    /// What the plug-in says, or that there is none.
    pub fn ntlm(account: &str, password: &str, host: &str) -> Result<Self, Error> {
        let name = Name::new(account.as_bytes(), Some(GSS_NT_USER_NAME))?;
        let ntlm = OidSet::singleton(NTLM)?;
        // The plug-in reads on to the next zero byte, whatever length it is told.
        let ended = Zeroizing::new([password, "\0"].concat());
        let credential = Cred::acquire_with_password(
            Some(&name),
            ended.trim_end_matches('\0'),
            None,
            CredUsage::Initiate,
            Some(&ntlm),
        )?;
        Self::new(credential, host, NTLM)
    }

    fn new(credential: Cred, host: &str, mechanism: Oid<'static>) -> Result<Self, Error> {
        let user = credential.name()?.to_string();
        let service = format!("HTTP@{host}");
        let target = Name::new(service.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE))?;
        let flags = CtxFlags::GSS_C_MUTUAL_FLAG;
        Ok(Self {
            context: ClientCtx::new(Some(credential), target, flags, Some(mechanism)),
            user,
        })
    }

    /// Whose proof it will be, as the library writes the name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The next word to the server, which has said `heard`; `None`: nothing is left to be said. `binding` is what the
    /// proof is bound to.
    ///
    /// # Errors
    /// There is no ticket, or what was heard is not the server's word.
    pub fn say(
        &mut self,
        heard: Option<&[u8]>,
        binding: Option<&[u8]>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let word = self.context.step(heard, binding)?;
        Ok(word
            .filter(|word| !word.is_empty())
            .map(|word| Zeroizing::new(word.to_vec())))
    }

    /// True where the server has proven itself, or has nothing to prove: the handshake has come to its end.
    pub fn is_complete(&self) -> bool {
        self.context.is_complete()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, …)", self.user)
    }
}

/// What is wrong, without the library's opening words: of most errors they say only that there is one.
pub fn words(error: &Error) -> String {
    inner(&error.to_string())
}

/// A text such as `Unspecified GSS failure. (Ticket expired)`, by the part that tells something.
fn inner(text: &str) -> String {
    let parts = text.trim_end().strip_suffix(')');
    let parts = parts.and_then(|text| text.split_once('('));
    let (said, inner) = parts.map_or((text, ""), |(said, inner)| (said, inner.trim()));
    match inner {
        "" | "Success" => said.trim().to_owned(),
        inner => inner.to_owned(),
    }
}

/// 1.3.6.1.4.1.311.2.2.10, `[MS-NLMP]` as the plug-in calls it.
static NTLM: Oid<'static> = Oid::from_slice(b"\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_librarys_words_those_are_told_that_tell_something() {
        for (text, told) in [
            (
                "Unspecified GSS failure.  (Ticket expired)",
                "Ticket expired",
            ),
            (
                "Unspecified GSS failure. (Generic error (see e-text))",
                "Generic error (see e-text)",
            ),
            (
                "The referenced credential has expired\n (Success)\n",
                "The referenced credential has expired",
            ),
            ("A token was invalid ()", "A token was invalid"),
            ("A token was invalid", "A token was invalid"),
        ] {
            assert_eq!(inner(text), told);
        }
    }

    #[test]
    fn a_cache_that_is_not_there_is_an_error() {
        let nothing = Client::with_tickets("FILE:/nonexistent/tickets", "mail.contoso.test");
        assert!(nothing.is_err());
        assert!(Client::with_tickets("FILE:/a\0b", "mail.contoso.test").is_err());
    }
}
