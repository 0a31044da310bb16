//! What is asked: about whom or what, for which client, from where.

use super::outlook;
use crate::autodiscover::Client;
use std::net::IpAddr;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// About what.
    pub subject: Subject,
    /// Under which of the site's names, where the subject is no URL of one; `None`: the first.
    pub name: Option<String>,
    /// What the client says it understands.
    pub client: Client,
    /// What it is, in words.
    pub client_words: String,
    /// Where it is; `None`: nobody knows.
    pub from: Option<IpAddr>,
    /// Who asks, where the subject is a URL.
    pub user: Option<String>,
}

/// A question's words as they are typed or stand in a query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed<'a> {
    /// A URL, a user or a mailbox.
    pub subject: &'a str,
    /// One of the site's names.
    pub name: Option<&'a str>,
    /// A version of Outlook.
    pub client: Option<&'a str>,
    /// What `X-MapiHttpCapability` says.
    pub capability: Option<&'a str>,
    /// An address.
    pub from: Option<&'a str>,
    /// Who asks.
    pub user: Option<&'a str>,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A request to a host, or to the site's first name; its target.
    Url {
        /// The host, without a port.
        host: Option<String>,
        /// Path and query.
        target: String,
    },
    /// The mailbox with this `MailboxId`.
    Mailbox(String),
    /// A user, by login name or address.
    Person(String),
}

impl Subject {
    /// Reads what somebody has typed. What is no URL and no `MailboxId` is somebody's name.
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        if text.starts_with('/') {
            return Self::Url {
                host: None,
                target: text.to_owned(),
            };
        }
        if let Some((_, rest)) = text.split_once("://") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at(end);
            return Self::Url {
                host: Some(host_of(authority)),
                target: match target.starts_with('/') {
                    true => target.to_owned(),
                    false => format!("/{target}"),
                },
            };
        }
        match text.split_once('@') {
            Some((guid, _)) if is_guid(guid) => Self::Mailbox(text.to_owned()),
            _ => Self::Person(text.to_owned()),
        }
    }

    /// As it was asked.
    pub(super) fn words(&self) -> String {
        let plain = |text: &str| text.chars().filter(|letter| !letter.is_control()).collect();
        match self {
            Self::Url { host, target } => {
                let host = host
                    .as_deref()
                    .map_or_else(String::new, |host| format!("https://{host}"));
                plain(&format!("{host}{target}"))
            }
            Self::Mailbox(id) => plain(id),
            Self::Person(name) => plain(name),
        }
    }
}

/// Without user name and port.
fn host_of(authority: &str) -> String {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    host.to_ascii_lowercase()
}

fn is_guid(text: &str) -> bool {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| match DASHES.contains(&at) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            })
}

impl Question {
    /// A question about this, of an Outlook of today, from anywhere.
    pub fn about(subject: &str) -> Self {
        Self {
            subject: Subject::read(subject),
            name: None,
            client: outlook::TODAYS,
            client_words: "an Outlook of today".to_owned(),
            from: None,
            user: None,
        }
    }

    /// Reads what somebody has typed.
    ///
    /// # Errors
    /// A sentence about the word that is none, or is too long to be one.
    pub fn read(typed: Typed<'_>) -> Result<Self, String> {
        let mut question = Self::about(typed.subject);
        let most = match question.subject {
            Subject::Url { .. } => URL_BYTES_MAX,
            Subject::Mailbox(_) | Subject::Person(_) => SUBJECT_BYTES_MAX,
        };
        let words = [typed.name, typed.client, typed.capability, typed.from];
        let words = words.into_iter().chain([typed.user]).flatten();
        for (text, most) in words
            .map(|word| (word, SUBJECT_BYTES_MAX))
            .chain([(typed.subject, most)])
        {
            if text.len() > most {
                let begin: String = text.chars().take(SHOWN_LETTERS).collect();
                return Err(format!(
                    "{begin:?}… has {} bytes; at most {most} are read",
                    text.len()
                ));
            }
        }
        question.name = typed.name.map(str::to_owned);
        question.user = typed.user.map(str::to_owned);
        match (typed.client, typed.capability) {
            (_, Some(number)) => {
                let number = number.trim();
                number.parse::<u32>().map_err(|_cause| {
                    format!("{number:?} is no number as X-MapiHttpCapability has one")
                })?;
                question.client = Client::read(Some(number.as_bytes()), Some(b"ExHttpInfo"));
                question.client_words = format!("a client with X-MapiHttpCapability: {number}");
            }
            (Some(version), None) => {
                (question.client, question.client_words) = outlook::read(version)?;
            }
            (None, None) => {}
        }
        question.from = typed
            .from
            .map(|from| {
                from.parse()
                    .map_err(|_cause| format!("{from:?} is no IP address"))
            })
            .transpose()?;
        Ok(question)
    }
}

/// Bytes of a name or a mailbox: more than any has.
const SUBJECT_BYTES_MAX: usize = 512;
/// Bytes of a URL: more than a request may have, so that its refusal can be explained.
const URL_BYTES_MAX: usize = 16 * 1024;
/// Letters by which a word that is too long is told.
const SHOWN_LETTERS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_url_a_mailbox_or_somebody() {
        let url = |host: Option<&str>, target: &str| Subject::Url {
            host: host.map(str::to_owned),
            target: target.to_owned(),
        };
        for (text, subject) in [
            ("/mapi/nspi/?a=b", url(None, "/mapi/nspi/?a=b")),
            (
                "https://Mail.contoso.test:8443/x",
                url(Some("mail.contoso.test"), "/x"),
            ),
            ("https://u@mail.test", url(Some("mail.test"), "/")),
            (
                "00000000-0000-4000-8000-000000000001@contoso.test",
                Subject::Mailbox("00000000-0000-4000-8000-000000000001@contoso.test".to_owned()),
            ),
            (
                "user1@contoso.test",
                Subject::Person("user1@contoso.test".to_owned()),
            ),
            (
                " CONTOSO\\user1 ",
                Subject::Person("CONTOSO\\user1".to_owned()),
            ),
        ] {
            assert_eq!(Subject::read(text), subject, "{text}");
        }
    }

    #[test]
    fn what_is_too_long_to_be_a_name_is_refused_in_a_short_sentence() {
        let read = |subject: &str, user: Option<&str>| {
            Question::read(Typed {
                subject,
                user,
                ..Typed::default()
            })
        };
        let mailbox = |length: usize| {
            let id = "00000000-0000-4000-8000-000000000001@";
            format!("{id}{}", "a".repeat(length - id.len()))
        };

        assert!(read(&mailbox(512), None).is_ok());
        let words = read(&mailbox(513), None).unwrap_err();
        assert!(
            words.contains("has 513 bytes; at most 512 are read"),
            "{words}"
        );
        assert!(words.len() < 100, "{words}");
        assert!(read(&"u".repeat(513), None).is_err());
        assert!(read("/owa/", Some(&"u".repeat(513))).is_err());
        assert!(read(&format!("/owa/?{}", "u".repeat(9000)), None).is_ok());
        assert!(read(&format!("/owa/?{}", "u".repeat(20_000)), None).is_err());
    }

    #[test]
    fn wrong_words_are_told() {
        let read = |client, capability, from| {
            Question::read(Typed {
                subject: "x",
                client,
                capability,
                from,
                ..Typed::default()
            })
        };

        assert!(read(Some("15.0.4569.1506"), None, Some("192.0.2.1")).is_ok());
        assert!(read(Some("new"), None, None).is_err());
        assert!(read(None, Some("-1"), None).is_err());
        assert!(read(None, None, Some("here")).is_err());
        let incapable = read(None, Some("0"), None).unwrap();
        assert_eq!(incapable.client.mapi_http, None);
    }
}
