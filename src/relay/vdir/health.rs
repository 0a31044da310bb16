//! Health pages: whether a protocol can be used here, as a load balancer in front asks it of Exchange.

use crate::config::settings::AutodiscoverMode;
use crate::relay::target::Ward;
use crate::runtime::{Runtime, Snapshot};

/// What a page says.
pub(in crate::relay) fn page(
    ward: Ward,
    world: &Snapshot,
    runtime: &Runtime,
) -> Result<(), &'static str> {
    if !runtime.is_ready() {
        return Err("this front end is going away");
    }
    let names = &world.settings.names;
    match ward {
        Ward::Autodiscover
            if names
                .iter()
                .all(|name| name.autodiscover == AutodiscoverMode::Off) =>
        {
            return Err("not served here");
        }
        Ward::Vdir(vdir) if world.settings.vdirs.get(vdir).is_none() => {
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
    if up.peek().is_none() {
        return Err("no mailbox server is up");
    }
    match ward {
        // Requests are tried where too little looks healthy to believe it; whoever asks for health is told
        // what it looks like.
        Ward::Vdir(vdir) if !up.any(|name| world.wards.of(vdir).is_up(name)) => {
            Err("no mailbox server serves it")
        }
        _ => Ok(()),
    }
}
