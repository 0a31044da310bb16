//! What Autodiscover would offer, and each reason for it.

use crate::autodiscover::{Client, Offer, Reach};
use crate::capability::{From, Rules, offer};
use crate::config::settings::Server;

/// The offer, in words, and why it is so.
pub(super) fn told(
    client: Client,
    client_words: &str,
    rules: Rules,
    server: &Server,
    from: From,
) -> (String, String) {
    let offered = offer(client, rules, server.capable, from);
    (
        words(&offered),
        reasons(client, client_words, rules, server, from).join("; "),
    )
}

fn words(offer: &Offer) -> String {
    let mut ways = Vec::new();
    if let Some(version) = offer.mapi_http {
        ways.push(format!("MAPI over HTTP (version {version})"));
    }
    if offer.outlook_anywhere {
        ways.push(match offer.mapi_http {
            Some(_) => "Outlook Anywhere to those who do not read that".to_owned(),
            None => "Outlook Anywhere".to_owned(),
        });
    }
    if offer.rpc {
        ways.push("RPC over TCP".to_owned());
    }
    let ways = match ways.is_empty() {
        true => "no way to connect".to_owned(),
        false => ways.join(", "),
    };
    match offer.reach {
        Reach::Internal => format!("{ways}, by internal URLs only"),
        Reach::Everywhere => ways,
    }
}

/// Each condition of MAPI over HTTP, then of the rest.
fn reasons(
    client: Client,
    client_words: &str,
    rules: Rules,
    server: &Server,
    from: From,
) -> Vec<String> {
    let mut reasons = vec![match client.mapi_http {
        Some(_) => format!("the client is {client_words}"),
        None => format!("no MAPI over HTTP, because the client is {client_words}"),
    }];
    let no = |is: bool| if is { "on" } else { "off" };
    reasons.push(match rules.mailbox {
        Some(switch) => format!(
            "the mailbox' own `mapi_http` is {}, whatever the organisation's is",
            no(switch)
        ),
        None => format!("autodiscover.mapi_http is {}", no(rules.organisation)),
    });
    reasons.push(match (server.capable.mapi_http, server.version) {
        (true, _) => format!("{} speaks MAPI over HTTP", server.name),
        (false, Some(version)) if !version.speaks_mapi_http() => {
            format!(
                "{} is of version {version} and speaks no MAPI over HTTP",
                server.name
            )
        }
        (false, _) => format!(
            "{} speaks no MAPI over HTTP, by its `capability`",
            server.name
        ),
    });
    if rules.blocks_external {
        reasons.push(match from {
            From::Outside => {
                "autodiscover.block_external is on, and the client is outside".to_owned()
            }
            From::Inside => {
                "autodiscover.block_external is on, and the client is inside".to_owned()
            }
            From::Anywhere => "autodiscover.block_external is on".to_owned(),
        });
    }
    if !rules.outlook_anywhere {
        reasons.push("autodiscover.outlook_anywhere is off".to_owned());
    } else if !server.capable.outlook_anywhere {
        reasons.push(format!("{} speaks no Outlook Anywhere", server.name));
    }
    reasons
}
