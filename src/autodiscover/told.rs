//! What an answer in POX tells a client: the reading of one who looks for a mailbox.

use super::filter::Protocol;
use super::xml::{self, Tree};
use super::{ANSWER_MAX, Wrong};

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Where the mailbox is, and how to reach it.
    Settings(Box<Settings>),
    /// To ask at this URL, or for this address. `[MS-OXDSCLI] 2.2.4.1.1.2.2`
    Elsewhere(String),
    /// Nothing, for this reason. `[MS-OXDSCLI] 2.2.4.1.1.1`
    Fault {
        /// Its number: 600 not understood, 500 or 601 not found, 603 failed.
        code: String,
        /// Its sentence.
        message: String,
    },
}

/// The settings of a mailbox, as far as clients of MAPI need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The distinguished name the mailbox is opened by.
    pub legacy_dn: Option<String>,
    /// The MAPI over HTTP block, where there is one.
    pub mapi_http: Option<MapiHttp>,
    /// The host of Outlook Anywhere (`EXPR`), where there is one.
    pub outlook_anywhere: Option<String>,
    /// There is an `EXCH` block.
    pub exch: bool,
}

/// The `mapiHttp` block. `[MS-OXDSCLI] 2.2.4.1.1.2.6`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapiHttp {
    /// Its version, as written.
    pub version: String,
    /// The mailbox, inside and outside.
    pub mail_store: Urls,
    /// The address book, inside and outside.
    pub address_book: Urls,
}

/// The URLs of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urls {
    /// For clients inside.
    pub internal: Option<String>,
    /// For clients outside.
    pub external: Option<String>,
}

impl Urls {
    /// The one that reaches further.
    pub fn any(&self) -> Option<&str> {
        self.external.as_deref().or(self.internal.as_deref())
    }
}

impl Told {
    /// Reads an answer. Elements may be in any case.
    ///
    /// # Errors
    /// What keeps the bytes from being one.
    pub fn read(answer: &[u8]) -> Result<Self, Wrong> {
        let text = xml::text(answer, ANSWER_MAX)?;
        let tree = Tree::read(&text)?;
        let response = tree
            .find(&["Autodiscover", "Response"])
            .ok_or(Wrong::Other("an answer of Autodiscover"))?;
        let value = |of, name: &str| tree.value(of, name).unwrap_or_default().to_owned();
        if let Some(fault) = tree.child(response, "Error") {
            return Ok(Self::Fault {
                code: value(fault, "ErrorCode"),
                message: value(fault, "Message"),
            });
        }
        let account = tree
            .child(response, "Account")
            .ok_or(Wrong::Other("an answer of Autodiscover for Outlook"))?;
        for elsewhere in ["RedirectUrl", "RedirectAddr"] {
            if let Some(place) = tree.value(account, elsewhere) {
                return Ok(Self::Elsewhere(place.to_owned()));
            }
        }
        let mut settings = Settings {
            legacy_dn: tree
                .child(response, "User")
                .and_then(|user| tree.value(user, "LegacyDN"))
                .filter(|dn| !dn.is_empty())
                .map(str::to_owned),
            ..Settings::default()
        };
        for block in tree.children(account).filter(|at| tree.is(*at, "Protocol")) {
            match Protocol::of(&tree, block) {
                Protocol::MapiHttp => settings.mapi_http = Some(mapi_http(&tree, block)),
                Protocol::Expr => settings.outlook_anywhere = Some(value(block, "Server")),
                Protocol::Exch => settings.exch = true,
                Protocol::Exhttp | Protocol::Other => {}
            }
        }
        Ok(Self::Settings(Box::new(settings)))
    }
}

fn mapi_http(tree: &Tree<'_>, block: usize) -> MapiHttp {
    let urls = |name: &str| {
        let store = tree.child(block, name);
        let url = |leaf| Some(tree.value(store?, leaf)?.to_owned());
        Urls {
            internal: url("InternalUrl"),
            external: url("ExternalUrl"),
        }
    };
    let attributes = tree.at(block).map(|element| element.attributes.iter());
    let version = attributes
        .into_iter()
        .flatten()
        .find(|(name, _)| name.eq_ignore_ascii_case("Version"));
    MapiHttp {
        version: version.map(|(_, value)| value.clone()).unwrap_or_default(),
        mail_store: urls("MailStore"),
        address_book: urls("AddressBook"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Offer, Reach, Urls as Public, pox};
    use super::*;

    fn answer(mapi_http: Option<u32>) -> String {
        let url = "https://mail.contoso.test/mapi";
        pox::Answer {
            mailbox: pox::Mailbox {
                id: "guid@contoso.test",
                address: "user1@contoso.test",
                display_name: "User 1",
                legacy_dn: Some("/o=Contoso/cn=user1"),
            },
            offer: Offer {
                mapi_http,
                outlook_anywhere: true,
                rpc: false,
                reach: Reach::Everywhere,
                exhttp: false,
            },
            urls: Public {
                internal: url,
                external: Some("https://outside.contoso.test/mapi"),
            },
            services: pox::Services::default(),
            auth_package: "Basic",
            server_version: None,
        }
        .write()
    }

    fn settings(xml: &str) -> Settings {
        match Told::read(xml.as_bytes()) {
            Ok(Told::Settings(settings)) => *settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_we_write_is_read_back() {
        let told = settings(&answer(Some(1)));

        assert_eq!(told.legacy_dn.as_deref(), Some("/o=Contoso/cn=user1"));
        let mapi = told.mapi_http.unwrap();
        assert_eq!(mapi.version, "1");
        assert_eq!(
            mapi.mail_store.any(),
            Some("https://outside.contoso.test/mapi/emsmdb/?MailboxId=guid@contoso.test")
        );
        assert_eq!(
            mapi.address_book.internal.as_deref(),
            Some("https://mail.contoso.test/mapi/nspi/?MailboxId=guid@contoso.test")
        );
    }

    #[test]
    fn a_client_that_speaks_no_mapi_over_http_is_told_of_outlook_anywhere() {
        let told = settings(&answer(None));

        assert_eq!(told.mapi_http, None);
        assert!(told.exch);
        assert_eq!(
            told.outlook_anywhere.as_deref(),
            Some("outside.contoso.test")
        );
    }

    #[test]
    fn faults_and_redirects_are_told_apart_from_settings_and_nonsense_is_refused() {
        let fault = pox::fault(pox::Fault::NotFound, "00:00:00.0000000", 1);
        assert!(matches!(
            Told::read(fault.as_bytes()),
            Ok(Told::Fault { .. })
        ));
        let moved = "<Autodiscover><Response><Account><Action>redirectUrl</Action><RedirectUrl>https://a.test/x</RedirectUrl></Account></Response></Autodiscover>";
        assert_eq!(
            Told::read(moved.as_bytes()),
            Ok(Told::Elsewhere("https://a.test/x".to_owned()))
        );
        for nonsense in ["", "<html/>", "<Autodiscover/>", "{}"] {
            assert!(Told::read(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn the_question_we_ask_is_one_that_we_understand() {
        let asked = pox::request("o'neil&co@contoso.test");

        let read = pox::PoxRequest::read(asked.as_bytes()).unwrap();

        assert_eq!(read.address.as_deref(), Some("o'neil&co@contoso.test"));
        assert!(read.is_for_outlook);
    }
}
