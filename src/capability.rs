//! May this client speak MAPI over HTTP with this mailbox, or Outlook Anywhere, and from where?
//!
//! Pure: asked anew for every answer, so that a failover to another kind of server changes the next one.

use crate::autodiscover::{Client, Offer, Reach};
use crate::config::settings::Autodiscover;
use std::net::IpAddr;

pub use crate::mapi::Capable;

/// What the site has decided, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The organisation's switch, `MapiHttpEnabled` of `Set-OrganizationConfig`.
    pub organisation: bool,
    /// The mailbox' own, `MapiHttpEnabled` of `Set-CASMailbox`; it overrides the organisation's.
    pub mailbox: Option<bool>,
    /// `MapiBlockOutlookExternalConnectivity`: internal URLs only.
    pub blocks_external: bool,
    /// Outlook Anywhere is told where MAPI over HTTP is not.
    pub outlook_anywhere: bool,
}

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The site has not said which networks are its own: then URLs decide.
    Anywhere,
    /// In one of the site's networks.
    Inside,
    /// In none of them.
    Outside,
}

impl Rules {
    /// What the settings say, and a mailbox of its own.
    pub fn of(settings: &Autodiscover, mailbox: Option<bool>) -> Self {
        Self {
            organisation: settings.mapi_http,
            mailbox,
            blocks_external: settings.block_external,
            outlook_anywhere: settings.outlook_anywhere,
        }
    }
}

impl From {
    /// Which of the site's sides an address is on.
    pub fn of(address: IpAddr, settings: &Autodiscover) -> Self {
        let networks = &settings.internal_networks;
        match networks.iter().any(|network| network.contains(address)) {
            true => Self::Inside,
            false if networks.is_empty() => Self::Anywhere,
            false => Self::Outside,
        }
    }
}

/// The version of the `mapiHttp` block that we write. `[MS-OXDSCLI] 2.2.4.1.1.2.6`
const BLOCK_VERSION: u32 = 1;

/// Decides. A few comparisons.
///
/// MAPI over HTTP is offered where the client says it understands it, mailbox or organisation want it, and
/// the server that holds the active copy speaks it. Otherwise the client gets what the server has besides.
pub fn offer(client: Client, rules: Rules, server: Capable, from: From) -> Offer {
    let is_wanted = rules.mailbox.unwrap_or(rules.organisation);
    let may_connect = !(rules.blocks_external && from == From::Outside);
    let mapi_http = client
        .mapi_http
        .filter(|highest| *highest > 0 && is_wanted && server.mapi_http && may_connect)
        .map(|highest| highest.min(BLOCK_VERSION));
    Offer {
        mapi_http,
        outlook_anywhere: rules.outlook_anywhere && server.outlook_anywhere && may_connect,
        rpc: server.rpc && from != From::Outside,
        reach: match rules.blocks_external {
            true => Reach::Internal,
            false => Reach::Everywhere,
        },
        exhttp: client.reads_exhttp,
    }
}

#[cfg(test)]
#[path = "capability/tests.rs"]
mod tests;
