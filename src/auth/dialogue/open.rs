//! Conversations that are half done: so many in all, and so many of one source.
//!
//! One that waits for its client holds some kilobytes, or a whole helper process, for as long as the settings let it.
//! Without a bound for each source, whoever begins and never goes on would keep everybody else out. And each costs work
//! whether somebody goes on with it or not, so those that were begun and left are counted too, for a while.

use super::super::Denied;
use crate::config::settings::HandshakeLimits;
use crate::ids::network;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Places for conversations that are half done.
#[derive(Debug)]
pub(in crate::auth) struct Open {
    limits: HandshakeLimits,
    held: Mutex<Held>,
    refused: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_source: HashMap<IpAddr, Source>,
    /// At so many sources those that are forgiven are forgotten.
    sources_kept: usize,
}

#[derive(Debug)]
struct Source {
    open: usize,
    /// Those that were begun and have not ended well, forgiven little by little.
    left: f64,
    /// When something was forgiven last.
    at: Instant,
}

impl Source {
    fn forgive(&mut self, per_minute: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left - passed * per_minute / 60.0).max(0.0);
        self.at = self.at.max(now);
    }
}

/// What is known of half-done conversations, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeFacts {
    /// So many there are now.
    pub open: usize,
    /// So many more were refused since this was last asked, because one source had too many, or all together.
    pub refused: [u64; 2],
}

/// A place, given back when dropped. Where that is before [`Place::ended`], the conversation was left.
#[derive(Debug)]
pub(in crate::auth) struct Place {
    open: Arc<Open>,
    source: Option<IpAddr>,
    has_ended: bool,
}

impl Open {
    pub(in crate::auth) fn new(limits: &HandshakeLimits) -> Self {
        Self {
            limits: limits.clone(),
            held: Mutex::default(),
            refused: Default::default(),
        }
    }

    pub(in crate::auth) fn limits(&self) -> &HandshakeLimits {
        &self.limits
    }

    /// The network that counts as one source; `None` for addresses that many share.
    pub(in crate::auth) fn source(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.limits.exempt.iter().any(|net| net.contains(address)) {
            return None;
        }
        Some(network(address))
    }

    /// A place for one of this address.
    ///
    /// # Errors
    /// There is none, or too many of the address were left; answer 503.
    pub(in crate::auth) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Place, Denied> {
        let source = self.source(address);
        let left_max = self.left_max();
        let mut held = self.held.lock();
        let refuse = |by: usize, why| {
            if let Some(count) = self.refused.get(by) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(Denied::Busy(why))
        };
        // First the source: who has too many is told so, and is not taken for a busy site.
        if let Some(known) = source.and_then(|source| held.by_source.get_mut(&source)) {
            known.forgive(left_max, now);
            if known.open >= self.limits.per_source {
                return refuse(0, "too many handshakes of this address are half done");
            }
            // Those that are open may end well yet.
            if known.left - known.open as f64 + 1.0 > left_max {
                return refuse(0, "too many handshakes of this address were begun and left");
            }
        }
        if held.all >= self.limits.open_max {
            return refuse(1, "too many handshakes are half done");
        }
        held.all += 1;
        if let Some(source) = source {
            held.tidy(left_max, now);
            let known = held.by_source.entry(source).or_insert(Source {
                open: 0,
                left: 0.0,
                at: now,
            });
            known.open += 1;
            known.left += 1.0;
        }
        Ok(Place {
            open: Arc::clone(self),
            source,
            has_ended: false,
        })
    }

    /// So many may be left in a minute, and are forgiven in one.
    fn left_max(&self) -> f64 {
        f64::from(u32::try_from(self.limits.left_per_minute).unwrap_or(u32::MAX))
    }

    pub(in crate::auth) fn facts(&self) -> HandshakeFacts {
        HandshakeFacts {
            open: self.held.lock().all,
            refused: self
                .refused
                .each_ref()
                .map(|n| n.swap(0, Ordering::Relaxed)),
        }
    }
}

impl Held {
    /// Forgets whoever is forgiven, once there are many; in the mean a step for each that enters.
    fn tidy(&mut self, per_minute: f64, now: Instant) {
        if self.by_source.len() < self.sources_kept.max(SOURCES_KEPT) {
            return;
        }
        self.by_source.retain(|_, known| {
            known.forgive(per_minute, now);
            known.open > 0 || known.left > 0.0
        });
        if self.by_source.len() >= SOURCES_MAX {
            // As many networks as that are no guest: what they left before is forgiven, not what is open.
            self.by_source.retain(|_, known| known.open > 0);
        }
        self.sources_kept = self.by_source.len() * 2;
    }
}

impl Place {
    /// The conversation came to an end that is counted elsewhere, or was nobody's fault.
    pub(in crate::auth) fn ended(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.open.held.lock();
        held.all = held.all.saturating_sub(1);
        let Some(source) = self.source else {
            return;
        };
        if let Some(known) = held.by_source.get_mut(&source) {
            known.open = known.open.saturating_sub(1);
            if self.has_ended {
                known.left = (known.left - 1.0).max(0.0);
            }
            if known.open == 0 && known.left == 0.0 {
                held.by_source.remove(&source);
            }
        }
    }
}

/// Sources that are remembered before any is forgotten.
const SOURCES_KEPT: usize = 1024;
/// Sources that are remembered at all, of some 100 bytes, beside those with open conversations.
const SOURCES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::IpNet;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    fn open(open_max: usize, per_source: usize) -> Arc<Open> {
        let balancer = IpNet {
            address: Ipv4Addr::new(10, 0, 0, 1).into(),
            prefix: 32,
        };
        Arc::new(Open::new(&HandshakeLimits {
            open_max,
            per_source,
            left_per_minute: 60,
            exempt: vec![balancer],
        }))
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn who_leaves_too_many_is_refused_for_a_while_and_nobody_else() {
        let open = open(1000, 100);
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let now = now();
        for _ in 0..200 {
            open.enter(one, now).unwrap().ended();
        }
        assert!(open.held.lock().by_source.is_empty());
        for _ in 0..60 {
            drop(open.enter(one, now).unwrap());
        }

        let left = Denied::Busy("too many handshakes of this address were begun and left");
        assert_eq!(open.enter(one, now).unwrap_err(), left);
        assert_eq!(open.facts().refused, [1, 0]);
        open.enter(two, now).unwrap().ended();
        // One is forgiven with each second.
        let later = now + Duration::from_millis(1500);
        drop(open.enter(one, later).unwrap());
        assert_eq!(open.enter(one, later).unwrap_err(), left);
        let much_later = now + Duration::from_secs(120);
        open.enter(one, much_later).unwrap().ended();
        assert!(open.held.lock().by_source.is_empty());
    }

    #[test]
    fn so_many_sources_are_remembered_and_no_more() {
        let open = open(1000, 100);
        let now = now();
        for number in 0..70_000_u32 {
            let address = Ipv4Addr::from(0x0b00_0000 + number);
            drop(open.enter(address.into(), now).unwrap());
        }
        assert!(open.held.lock().by_source.len() <= SOURCES_MAX);
    }

    const OF_SOURCE: Denied = Denied::Busy("too many handshakes of this address are half done");
    const OF_ALL: Denied = Denied::Busy("too many handshakes are half done");

    #[test]
    fn who_holds_too_many_is_refused_and_nobody_else() {
        let open = open(10, 2);
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut held: Vec<_> = (0..2).map(|_| open.enter(one, now()).unwrap()).collect();

        assert_eq!(open.enter(one, now()).unwrap_err(), OF_SOURCE);
        assert!(open.enter(two, now()).is_ok());
        held.pop();
        assert!(open.enter(one, now()).is_ok());

        drop(held);
        let facts = HandshakeFacts {
            open: 0,
            refused: [1, 0],
        };
        assert_eq!(open.facts(), facts);
        assert_eq!(open.facts().refused, [0, 0]);
        assert!(
            open.held
                .lock()
                .by_source
                .values()
                .all(|known| known.open == 0)
        );
    }

    #[test]
    fn all_together_have_a_bound_as_well_and_a_balancer_only_that_one() {
        let open = open(5, 2);
        let balancer = IpAddr::from([10, 0, 0, 1]);
        let held: Vec<_> = (0..5)
            .map(|_| open.enter(balancer, now()).unwrap())
            .collect();

        assert_eq!(open.enter(balancer, now()).unwrap_err(), OF_ALL);
        assert_eq!(
            open.enter([192, 0, 2, 1].into(), now()).unwrap_err(),
            OF_ALL
        );
        drop(held);
        assert!(open.enter([192, 0, 2, 1].into(), now()).is_ok());
    }

    #[test]
    fn sixty_four_bits_of_ipv6_are_one_source_and_a_mapped_address_is_its_own() {
        let open = open(10, 1);
        let of = |host: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        let _held = open.enter(of(1), now()).unwrap();

        assert_eq!(open.enter(of(2), now()).unwrap_err(), OF_SOURCE);
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        let _held = open.enter(mapped.into(), now()).unwrap();
        assert_eq!(
            open.enter([192, 0, 2, 1].into(), now()).unwrap_err(),
            OF_SOURCE
        );
    }
}
