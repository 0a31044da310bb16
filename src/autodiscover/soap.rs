//! SOAP: `GetUserSettings`, as EWS clients ask it. `[MS-OXWSADISC] 3.1.4.3`

use super::pox::{Answer, leaf};
use super::xml::{self, Tree, escaped};
use super::{REQUEST_MAX, Wrong, host_of};
use std::fmt::Write as _;

/// Users of one request; Exchange answers for no more either.
const USERS_MAX: usize = 100;
/// Settings of one request; the specification names about a hundred.
const SETTINGS_MAX: usize = 200;
/// Bytes of an address or the name of a setting.
const WORD_MAX: usize = 320;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoapRequest {
    /// Whose settings, by address; lower case.
    pub users: Vec<String>,
    /// Which settings.
    pub settings: Vec<String>,
}

impl SoapRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// What keeps the bytes from being a `GetUserSettings`; other operations are not served.
    pub fn read(body: &[u8]) -> Result<Self, Wrong> {
        let text = xml::text(body, REQUEST_MAX)?;
        let tree = Tree::read(&text)?;
        let request = tree
            .find(&[
                "Envelope",
                "Body",
                "GetUserSettingsRequestMessage",
                "Request",
            ])
            .ok_or(Wrong::Other("a GetUserSettings request"))?;
        let words = |list: &str, most: usize| -> Result<Vec<usize>, Wrong> {
            let Some(list) = tree.child(request, list) else {
                return Ok(Vec::new());
            };
            let words: Vec<usize> = tree.children(list).take(most + 1).collect();
            match words.len() > most {
                true => Err(Wrong::TooMany),
                false => Ok(words),
            }
        };
        let users = words("Users", USERS_MAX)?;
        let settings = words("RequestedSettings", SETTINGS_MAX)?;
        let short = |text: &str| Some(text.trim().to_owned()).filter(|text| text.len() <= WORD_MAX);
        Ok(Self {
            users: users
                .into_iter()
                .map(|user| tree.value(user, "Mailbox").and_then(short))
                .map(|address| address.unwrap_or_default().to_lowercase())
                .collect(),
            settings: settings
                .into_iter()
                .filter_map(|setting| short(&tree.at(setting)?.value))
                .collect(),
        })
    }
}

/// What one user gets.
#[derive(Clone, Debug)]
pub enum UserAnswer<'a> {
    /// Settings.
    Settings(Box<Answer<'a>>),
    /// Another Autodiscover service.
    Redirect(&'a str),
    /// No such user, or not this one's business.
    Invalid,
    /// Nobody has looked: too much was asked for at once.
    Busy,
}

/// Writes the answer for every user that was asked for, in order.
pub fn answer(request: &SoapRequest, users: &[UserAnswer<'_>]) -> String {
    let mut out = String::with_capacity(1024 + 2048 * users.len());
    out.push_str(HEAD);
    out.push_str("<GetUserSettingsResponseMessage xmlns=\"http://schemas.microsoft.com/exchange/2010/Autodiscover\"><Response xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\">");
    code(&mut out, "NoError", "");
    out.push_str("<UserResponses>");
    for user in users {
        out.push_str("<UserResponse>");
        match user {
            UserAnswer::Settings(answer) => settings(&mut out, request, answer),
            UserAnswer::Redirect(url) => {
                code(&mut out, "RedirectUrl", "Redirection url.");
                leaf(&mut out, "RedirectTarget", url);
                out.push_str("<UserSettingErrors /><UserSettings />");
            }
            UserAnswer::Busy => {
                // [MS-OXWSADISC], ErrorCode
                code(&mut out, "ServerBusy", "Ask for fewer addresses at once.");
                out.push_str(
                    "<RedirectTarget i:nil=\"true\" /><UserSettingErrors /><UserSettings />",
                );
            }
            UserAnswer::Invalid => {
                code(&mut out, "InvalidUser", "The email address can't be found.");
                out.push_str(
                    "<RedirectTarget i:nil=\"true\" /><UserSettingErrors /><UserSettings />",
                );
            }
        }
        out.push_str("</UserResponse>");
    }
    out.push_str(
        "</UserResponses></Response></GetUserSettingsResponseMessage></s:Body></s:Envelope>",
    );
    out
}

/// Says that the request is none that is served. Sent with status 500. SOAP 1.1 section 6.2
pub fn fault(words: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>{}</faultstring></s:Fault></s:Body></s:Envelope>",
        escaped(words)
    )
}

fn settings(out: &mut String, request: &SoapRequest, answer: &Answer<'_>) {
    code(out, "NoError", "No error.");
    out.push_str("<RedirectTarget i:nil=\"true\" />");
    let values: Vec<(&str, Option<String>)> = request
        .settings
        .iter()
        .map(|name| (name.as_str(), value_of(name, answer)))
        .collect();
    out.push_str("<UserSettingErrors>");
    for (name, _) in values.iter().filter(|(_, value)| value.is_none()) {
        out.push_str("<UserSettingError>");
        code(
            out,
            "SettingIsNotAvailable",
            "The setting is not available.",
        );
        leaf(out, "SettingName", name);
        out.push_str("</UserSettingError>");
    }
    out.push_str("</UserSettingErrors><UserSettings>");
    for (name, value) in values {
        let Some(value) = value else { continue };
        out.push_str("<UserSetting i:type=\"StringSetting\">");
        leaf(out, "Name", name);
        leaf(out, "Value", &value);
        out.push_str("</UserSetting>");
    }
    out.push_str("</UserSettings>");
}

/// `[MS-OXWSADISC] 2.2.4.9`: settings by name. `None` for those that are not known here.
fn value_of(name: &str, answer: &Answer<'_>) -> Option<String> {
    let (mailbox, offer) = (&answer.mailbox, &answer.offer);
    let old = offer
        .outlook_anywhere
        .then(|| answer.urls.host(offer.reach));
    let external = answer.urls.external_within(offer.reach).map(host_of);
    let text = match name {
        "UserDisplayName" => mailbox.display_name,
        "UserDN" => mailbox.legacy_dn?,
        "AutoDiscoverSMTPAddress" => mailbox.address,
        "InternalMailboxServer" | "InternalRpcClientServer" => mailbox.id,
        "InternalRpcHttpServer" => old.map(|_| host_of(answer.urls.internal))?,
        "ExternalMailboxServer" => old.and(external)?,
        "ExternalMailboxServerRequiresSSL" => old.and(external).map(|_| "True")?,
        "ExternalMailboxServerAuthenticationMethods" => {
            old.and(external).map(|_| answer.auth_package)?
        }
        "InternalEwsUrl" | "ExternalEwsUrl" | "InternalOOFUrl" | "InternalASUrl" => {
            answer.services.ews?
        }
        "InternalOABUrl" | "ExternalOABUrl" => answer.services.oab?,
        "MapiHttpEnabled" => match offer.mapi_http {
            Some(_) => "True",
            None => "False",
        },
        "CasVersion" | "InternalServerVersion" => {
            return answer.server_version.map(|version| version.to_string());
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn code(out: &mut String, code: &str, message: &str) {
    let _ = write!(out, "<ErrorCode>{code}</ErrorCode>");
    leaf(out, "ErrorMessage", message);
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:a=\"http://www.w3.org/2005/08/addressing\"><s:Header><a:Action s:mustUnderstand=\"1\">http://schemas.microsoft.com/exchange/2010/Autodiscover/Autodiscover/GetUserSettingsResponse</a:Action></s:Header><s:Body>";

#[cfg(test)]
mod tests {
    use super::super::pox::{Mailbox, Services};
    use super::super::{Offer, Reach, Urls};
    use super::*;
    use proptest::prelude::*;

    fn asked(users: &[&str], settings: &[&str]) -> String {
        let users: String = users
            .iter()
            .map(|user| format!("<a:User><a:Mailbox>{user}</a:Mailbox></a:User>"))
            .collect();
        let settings: String = settings
            .iter()
            .map(|name| format!("<a:Setting>{name}</a:Setting>"))
            .collect();
        format!(
            "<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:a=\"http://schemas.microsoft.com/exchange/2010/Autodiscover\"><soap:Header/><soap:Body><a:GetUserSettingsRequestMessage><a:Request><a:Users>{users}</a:Users><a:RequestedSettings>{settings}</a:RequestedSettings></a:Request></a:GetUserSettingsRequestMessage></soap:Body></soap:Envelope>"
        )
    }

    fn settings_of(mapi_http: Option<u32>) -> UserAnswer<'static> {
        UserAnswer::Settings(Box::new(Answer {
            mailbox: Mailbox {
                id: "g@contoso.test",
                address: "user1@contoso.test",
                display_name: "A<B",
                legacy_dn: None,
            },
            offer: Offer {
                mapi_http,
                outlook_anywhere: true,
                rpc: false,
                reach: Reach::Everywhere,
                exhttp: false,
            },
            urls: Urls {
                internal: "https://mail.contoso.test/mapi",
                external: None,
            },
            services: Services {
                ews: Some("https://mail.contoso.test/ews"),
                oab: None,
            },
            auth_package: "Basic",
            server_version: None,
        }))
    }

    #[test]
    fn users_and_settings_are_read_whatever_the_prefix() {
        let read = SoapRequest::read(
            asked(
                &["User1@contoso.test", "b@c"],
                &["UserDN", "MapiHttpEnabled"],
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(read.users, ["user1@contoso.test", "b@c"]);
        assert_eq!(read.settings, ["UserDN", "MapiHttpEnabled"]);
        let many = asked(&["a@b"; USERS_MAX + 1], &[]);
        assert_eq!(SoapRequest::read(many.as_bytes()), Err(Wrong::TooMany));
        let other = asked(&[], &[]).replace(
            "GetUserSettingsRequestMessage",
            "GetDomainSettingsRequestMessage",
        );
        assert_eq!(
            SoapRequest::read(other.as_bytes()),
            Err(Wrong::Other("a GetUserSettings request"))
        );
    }

    #[test]
    fn each_user_gets_its_own_answer_in_order() {
        let read = SoapRequest::read(
            asked(
                &["a@b", "c@d", "e@f"],
                &[
                    "UserDisplayName",
                    "UserDN",
                    "MapiHttpEnabled",
                    "InternalEwsUrl",
                ],
            )
            .as_bytes(),
        )
        .unwrap();
        let users = [
            settings_of(Some(1)),
            UserAnswer::Invalid,
            UserAnswer::Redirect("https://x.test/"),
        ];

        let written = answer(&read, &users);

        let text = xml::text(written.as_bytes(), 1 << 20).unwrap();
        let tree = Tree::read(&text).unwrap();
        let users = tree
            .find(&[
                "Envelope",
                "Body",
                "GetUserSettingsResponseMessage",
                "Response",
                "UserResponses",
            ])
            .unwrap();
        let codes: Vec<_> = tree
            .children(users)
            .filter_map(|user| tree.value(user, "ErrorCode"))
            .collect();
        assert_eq!(codes, ["NoError", "InvalidUser", "RedirectUrl"]);
        for part in [
            "<Name>MapiHttpEnabled</Name><Value>True</Value>",
            "<Value>A&lt;B</Value>",
            "<SettingName>UserDN</SettingName>",
            "<RedirectTarget>https://x.test/</RedirectTarget>",
        ] {
            assert!(written.contains(part), "{part}");
        }
        assert!(
            answer(&read, &[settings_of(None)])
                .contains("<Name>MapiHttpEnabled</Name><Value>False</Value>")
        );
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_answer_stays_xml(names in proptest::collection::vec("\\PC{0,20}", 0..5)) {
            let request = SoapRequest { users: vec![String::new()], settings: names };
            let written = answer(&request, &[settings_of(Some(1))]);
            let text = xml::text(written.as_bytes(), 1 << 20).unwrap();
            prop_assert!(Tree::read(&text).is_ok());
            let fault = fault(&request.settings.concat());
            let text = xml::text(fault.as_bytes(), 1 << 20).unwrap();
            prop_assert!(Tree::read(&text).is_ok());
        }

        #[test]
        fn any_body_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _read = SoapRequest::read(&body);
        }
    }
}
