//! Requests of strangers, below a directory whose logon is the mailbox server's own form.
//!
//! Only a line of the administrator's opens this. We do not know who asks, so nothing is shown to the
//! server in anybody's name, and no connection that has carried somebody we know carries a stranger, nor
//! the other way round. Any server that serves the directory will do; a sealed cookie leads back to it.

use super::anchor::{is_fresh, unix_seconds};
use super::passage::{self, Forwarded};
use super::{Errand, Scene, nobodys};
use crate::accounting::Kinds;
use crate::backend::BackServer;
use crate::ids::{UserName, network_of};
use crate::refusal::Refusal;
use crate::relay::admit::{Admitted, By, Caller};
use crate::relay::bill::{Bill, Routed};
use crate::seal::Ticket;
use std::sync::Arc;

/// Finds a server for a stranger.
pub(super) fn route(
    scene: &Scene<'_, '_, '_>,
    caller: &Caller<'_>,
    bill: &mut Bill<'_>,
    out: &mut Vec<u8>,
) -> Result<Admitted, Refusal> {
    let world = scene.world;
    let kept = scene.kept(caller);
    let (backend, reason) = match kept {
        Some(backend) => (backend, "affinity"),
        None => (scene.any(bill.id.0, caller)?, "any_server"),
    };
    let (mailbox, database) = nobodys();
    bill.route = Some(Routed {
        mailbox,
        database,
        server: backend.name().clone(),
        reason,
    });
    let most = world.settings.vdirs.requests_per_address;
    let permit = scene.permit(&payer(caller.address), most, backend)?;
    let written = passage::write(
        scene.head,
        &Forwarded {
            client: caller.address,
            scheme: caller.scheme,
            // What proves a connection must not go where strangers share connections.
            authorization: None,
            own: world.handoff.own_header(),
            user: None,
            route_cookie: world.sealer.as_ref().map(|sealer| sealer.name()),
            anchor: None,
            verb: scene.verb,
            is_upgrade: scene.is_upgrade(),
        },
        out,
    );
    bill.ledger.server_out = Kinds::of_head(written);
    Ok(Admitted::Carry(Box::new(Errand {
        server: Arc::clone(backend),
        lane: Some(STRANGERS),
        by: By::Any,
        vdir: scene.vdir,
        verb: scene.verb,
        name: scene.name,
        user: None,
        database: None,
        is_upgrade: scene.is_upgrade(),
        cookie: kept.is_none().then(|| scene.way_back(backend)).flatten(),
        proof: None,
        silence: scene.settings.silence,
        body_max: scene.settings.body_max,
        _permit: permit,
        _in_flight: backend.meters(&scene.runtime.metrics).request_started(),
    })))
}

impl<'a> Scene<'a, '_, '_> {
    /// The server that a cookie of ours leads back to, where it still serves the directory.
    fn kept(&self, caller: &Caller<'_>) -> Option<&'a Arc<BackServer>> {
        let sealer = self.world.sealer.as_ref()?;
        let ticket = sealer.open(self.head.route_cookie?, self.vdir, &stranger())?;
        let backend = self.world.servers.get(&ticket.server)?;
        (is_fresh(&ticket, self.now.1) && self.is_able(backend, caller)).then_some(backend)
    }

    /// One server after the other, by the number of the request.
    fn any(&self, number: u64, caller: &Caller<'_>) -> Result<&'a Arc<BackServer>, Refusal> {
        let world = self.world;
        let mut able: Vec<_> = world
            .servers
            .iter()
            .filter(|backend| self.is_able(backend, caller))
            .collect();
        able.sort_unstable_by_key(|backend| backend.name().clone());
        let turn = usize::try_from(number).unwrap_or_default();
        let chosen = turn.checked_rem(able.len()).and_then(|at| able.get(at));
        chosen.copied().ok_or_else(|| Refusal::NoEligibleCopy {
            database: nobodys().1,
            why: "no server that serves the directory is up",
        })
    }

    fn is_able(&self, backend: &BackServer, caller: &Caller<'_>) -> bool {
        let name = backend.name();
        self.world.health.is_eligible(name)
            && self.world.wards.of(self.vdir).is_eligible(name)
            && !caller.tried.contains(name)
    }

    fn way_back(&self, backend: &BackServer) -> Option<Box<str>> {
        let sealer = self.world.sealer.as_ref()?;
        let (mailbox, database) = nobodys();
        let ticket = Ticket {
            database,
            server: backend.name().clone(),
            mailbox,
            issued: unix_seconds(self.now.1),
        };
        let value = sealer.seal(&ticket, self.vdir, &stranger())?;
        let (name, path) = (sealer.name(), self.vdir.path());
        let line = format!("Set-Cookie: {name}={value}; path={path}; secure; HttpOnly\r\n");
        Some(line.into())
    }
}

/// What a stranger's cookie is sealed for. No login name begins with a blank.
fn stranger() -> UserName {
    UserName::new(" stranger")
}

/// Whose quota a stranger's request is on: that of the client's network.
fn payer(address: &str) -> UserName {
    UserName::new(format!(" stranger {}", network_of(address)))
}

/// The lane of strangers. No identity has it: theirs are digests, or none where anybody may share.
const STRANGERS: u128 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_network_share_a_quota() {
        assert_eq!(payer("2001:db8::1"), payer("2001:db8::ffff:2"));
        assert_ne!(payer("2001:db8::1"), payer("2001:db8:0:1::1"));
        assert_ne!(payer("192.0.2.7"), payer("192.0.2.8"));
    }

    #[test]
    fn nobody_can_log_in_under_the_name_of_a_stranger() {
        for name in [stranger(), payer("192.0.2.7")] {
            assert_eq!(crate::auth::canonical(name.as_str(), None), None);
        }
    }
}
