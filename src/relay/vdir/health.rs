//! Health pages: whether a protocol can be used here, as a load balancer in front asks it of Exchange.

use crate::config::settings::AutodiscoverMode;
use crate::health::Ward;
use crate::ids::ServerName;
use crate::relay::target::Page;
use crate::runtime::Snapshot;

/// What a page says. `is_open`: this process takes requests.
///
/// # Errors
/// Why the protocol cannot be used here.
pub(crate) fn page(page: Page, world: &Snapshot, is_open: bool) -> Result<(), &'static str> {
    if !is_open {
        return Err("this front end is going away");
    }
    if world.placement.homes().is_awaited() {
        return Err("it is not known yet where databases are");
    }
    let names = &world.settings.names;
    match page {
        Page::Autodiscover
            if names
                .iter()
                .all(|name| name.autodiscover == AutodiscoverMode::Off) =>
        {
            return Err("not served here");
        }
        Page::Rpc if !world.settings.autodiscover.outlook_anywhere => {
            return Err("not served here");
        }
        Page::Vdir(vdir) if world.settings.vdirs.get(vdir).is_none() => {
            return Err("not served here");
        }
        _ => {}
    }
    let mut up = world
        .servers
        .iter()
        .map(|server| server.name())
        .filter(|name| world.health.is_eligible(name))
        .peekable();
    let speaks_rpc = |name: &ServerName| {
        let server = world.settings.servers.get(name);
        server.is_some_and(|server| server.capable.outlook_anywhere)
    };
    if up.peek().is_none() {
        return Err("no mailbox server is up");
    }
    match page {
        // Requests are tried where too little looks healthy to believe it; whoever asks for health is told
        // what it looks like.
        Page::Vdir(vdir) if !up.any(|name| world.wards.of(vdir).is_up(name)) => {
            Err("no mailbox server serves it")
        }
        Page::Rpc if !up.any(|name| speaks_rpc(name) && world.wards.of(Ward::Rpc).is_up(name)) => {
            Err("no mailbox server serves it")
        }
        _ => Ok(()),
    }
}
