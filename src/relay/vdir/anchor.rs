//! Whose mailbox decides to which server a request goes.
//!
//! It chooses a server and nothing else: who asks was proven before, and the server judges by that. Nothing
//! a client writes names a server; it may name a mailbox, which the directory must know and the user must be
//! let through to.

use super::{Guard, Scene, rules, stands};
use crate::directory::Whose;
use crate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use crate::ldap::{Findings, Lookups};
use crate::mapi::cookies::pairs;
use crate::refusal::Refusal;
use crate::relay::admit::TICKET_LIFETIME;
use crate::relay::fields::AFFINITY;
use crate::relay::head::RequestHead;
use crate::seal::{LENGTH_MAX, Ticket};
use crate::vdir::Vdir;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// A mailbox that was found.
pub(super) struct Anchored {
    pub(super) mailbox: MailboxId,
    pub(super) database: DatabaseName,
    /// What led to it; a word of a closed list.
    pub(super) reason: &'static str,
    /// `X-AnchorMailbox` as the server gets it: only one that was gone by.
    pub(super) header: Option<String>,
}

/// What a request names.
struct Named<'a> {
    address: Option<Cow<'a, str>>,
    reason: &'static str,
    is_header: bool,
}

impl Scene<'_, '_, '_> {
    /// The mailbox of a request; `Ok(Err(_))`: only the directory service knows it.
    pub(super) fn anchor(
        &self,
        user: &UserName,
        findings: &Findings,
    ) -> Result<Result<Anchored, Box<Lookups>>, Refusal> {
        let named = self.named(user)?;
        let address = named.address.as_deref();
        let directory = &self.world.directory;
        match directory.whose_address(address, user, findings, self.now.0) {
            Whose::Mailbox(mailbox, database) => Ok(Ok(Anchored {
                mailbox,
                database,
                reason: named.reason,
                header: named
                    .address
                    .filter(|_| named.is_header)
                    .map(Cow::into_owned),
            })),
            Whose::Ask(lookups) => Ok(Err(lookups)),
            Whose::Unknown => Err(Refusal::UnknownMailbox),
            Whose::Forbidden => Err(Refusal::MailboxForbidden),
            Whose::Disabled => Err(Refusal::Unauthenticated("disabled in the directory")),
        }
    }

    /// The path says more than a header, a header more than a cookie; a header that is not gone by is as
    /// good as not written.
    fn named(&self, user: &UserName) -> Result<Named<'_>, Refusal> {
        if let Some(logon) = self.head.target.mailbox {
            let address = rules::explicit_logon(logon, self.settings)?;
            return Ok(Named {
                address: Some(Cow::Owned(address)),
                reason: "explicit_logon",
                is_header: false,
            });
        }
        let header = self.head.field("X-AnchorMailbox");
        if let Some(value) =
            header.filter(|_| self.settings.anchor_in_header || !stands(Guard::Anchors))
        {
            let address = address(value).ok_or(Refusal::Malformed("X-AnchorMailbox"))?;
            return Ok(Named {
                address: Some(Cow::Owned(address)),
                reason: "anchor_header",
                is_header: true,
            });
        }
        let ticket = (self.vdir == Vdir::Ews)
            .then(|| self.ticket(user))
            .flatten();
        Ok(match ticket {
            Some(ticket) => Named {
                address: Some(Cow::Owned(ticket.mailbox.as_str().to_owned())),
                reason: "affinity",
                is_header: false,
            },
            None => Named {
                address: None,
                reason: "own_mailbox",
                is_header: false,
            },
        })
    }

    /// What an affinity cookie of ours tells, where it is true by now.
    fn ticket(&self, user: &UserName) -> Option<Ticket> {
        let sealer = self.world.sealer.as_ref()?;
        let value = cookie(self.head, AFFINITY)?;
        let ticket = sealer.open(value, self.vdir, user)?;
        let placement = &self.world.placement;
        let is_true = placement.is_active(&ticket.database, &ticket.server);
        (is_true && is_fresh(&ticket, self.now.1)).then_some(ticket)
    }

    /// A cookie that leads the next request to the same mailbox, where a client of Exchange Web Services
    /// asks for one. It names that mailbox, sealed for this user: no other can use it, and it is held
    /// against the directory and the placement like anything else.
    pub(super) fn affinity(
        &self,
        anchored: &Anchored,
        server: &ServerName,
        user: &UserName,
    ) -> Option<Box<str>> {
        let wish = self.head.field("X-PreferServerAffinity")?;
        if self.vdir != Vdir::Ews || !wish.eq_ignore_ascii_case(b"true") {
            return None;
        }
        let sealer = self.world.sealer.as_ref()?;
        let ticket = Ticket {
            database: anchored.database.clone(),
            server: server.clone(),
            mailbox: anchored.mailbox.clone(),
            issued: unix_seconds(self.now.1),
        };
        let value = sealer.seal(&ticket, self.vdir, user)?;
        let name = String::from_utf8_lossy(AFFINITY);
        let line = format!("Set-Cookie: {name}={value}; path=/; secure; HttpOnly\r\n");
        Some(line.into())
    }
}

/// `user@domain` in lower case; a prefix `SMTP:` as Exchange takes it.
fn address(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim().to_ascii_lowercase();
    let address = text.strip_prefix("smtp:").unwrap_or(&text);
    let (local, domain) = address.split_once('@')?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+'{}".contains(&byte);
    let fits = |part: &str| (1..=253).contains(&part.len()) && part.bytes().all(is_letter);
    (fits(local) && fits(domain)).then(|| address.to_owned())
}

/// The value of a cookie; `None` where there is none, or two that differ.
pub(super) fn cookie<'b>(head: &RequestHead<'_, 'b>, name: &[u8]) -> Option<&'b [u8]> {
    let fields = head.fields.iter();
    let lines = fields.filter(|field| field.name.eq_ignore_ascii_case("cookie"));
    let mut values = lines
        .flat_map(|line| pairs(line.value))
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value);
    let first = values.next()?;
    let fits = first.len() <= LENGTH_MAX && values.all(|other| other == first);
    fits.then_some(first)
}

/// True for a ticket that is not too old.
pub(super) fn is_fresh(ticket: &Ticket, time: SystemTime) -> bool {
    ticket.is_fresh(unix_seconds(time), TICKET_LIFETIME)
}

pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_an_address_and_nothing_else() {
        for (value, known) in [
            ("user2@contoso.test", "user2@contoso.test"),
            (" SMTP:User2@Contoso.test ", "user2@contoso.test"),
            (
                "{00000000-0000-4000-8000-000000000001}@contoso.test",
                "{00000000-0000-4000-8000-000000000001}@contoso.test",
            ),
        ] {
            assert_eq!(address(value.as_bytes()).as_deref(), Some(known));
        }
        for value in [
            "",
            "mbx1",
            "mbx1.contoso.test",
            "a@b@c",
            "@b",
            "a@",
            "a@b:444",
            "a@b/x",
            "a@b~1",
            "S-1-5-21-1",
            "a b@c",
            "\u{e9}@c",
        ] {
            assert_eq!(address(value.as_bytes()), None, "{value}");
        }
    }
}
