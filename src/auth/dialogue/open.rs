//! Conversations that are half done: so many in all, and so many of one source.
//!
//! One that waits for its client holds some kilobytes, or a whole helper process, for as long as the settings let it.
//! Without a bound for each source, whoever begins and never goes on would keep everybody else out.

use super::super::Denied;
use crate::config::settings::HandshakeLimits;
use crate::ids::network;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    by_source: HashMap<IpAddr, usize>,
}

/// What is known of half-done conversations, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeFacts {
    /// So many there are now.
    pub open: usize,
    /// So many more were refused since this was last asked, because one source had too many, or all together.
    pub refused: [u64; 2],
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(in crate::auth) struct Place {
    open: Arc<Open>,
    source: Option<IpAddr>,
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
    /// There is none; answer 503.
    pub(in crate::auth) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Denied> {
        let source = self.source(address);
        let mut held = self.held.lock();
        let refuse = |by: usize, why| {
            if let Some(count) = self.refused.get(by) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(Denied::Busy(why))
        };
        // First the source: who has too many is told so, and is not taken for a busy site.
        if let Some(source) = source
            && held.by_source.get(&source).copied().unwrap_or(0) >= self.limits.per_source
        {
            return refuse(0, "too many handshakes of this address are half done");
        }
        if held.all >= self.limits.open_max {
            return refuse(1, "too many handshakes are half done");
        }
        held.all += 1;
        if let Some(source) = source {
            *held.by_source.entry(source).or_default() += 1;
        }
        Ok(Place {
            open: Arc::clone(self),
            source,
        })
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

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.open.held.lock();
        held.all = held.all.saturating_sub(1);
        let Some(source) = self.source else {
            return;
        };
        if let Some(count) = held.by_source.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::IpNet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn open(open_max: usize, per_source: usize) -> Arc<Open> {
        let balancer = IpNet {
            address: Ipv4Addr::new(10, 0, 0, 1).into(),
            prefix: 32,
        };
        Arc::new(Open::new(&HandshakeLimits {
            open_max,
            per_source,
            exempt: vec![balancer],
        }))
    }

    const OF_SOURCE: Denied = Denied::Busy("too many handshakes of this address are half done");
    const OF_ALL: Denied = Denied::Busy("too many handshakes are half done");

    #[test]
    fn who_holds_too_many_is_refused_and_nobody_else() {
        let open = open(10, 2);
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut held: Vec<_> = (0..2).map(|_| open.enter(one).unwrap()).collect();

        assert_eq!(open.enter(one).unwrap_err(), OF_SOURCE);
        assert!(open.enter(two).is_ok());
        held.pop();
        assert!(open.enter(one).is_ok());

        drop(held);
        let facts = HandshakeFacts {
            open: 0,
            refused: [1, 0],
        };
        assert_eq!(open.facts(), facts);
        assert_eq!(open.facts().refused, [0, 0]);
        assert!(open.held.lock().by_source.is_empty());
    }

    #[test]
    fn all_together_have_a_bound_as_well_and_a_balancer_only_that_one() {
        let open = open(5, 2);
        let balancer = IpAddr::from([10, 0, 0, 1]);
        let held: Vec<_> = (0..5).map(|_| open.enter(balancer).unwrap()).collect();

        assert_eq!(open.enter(balancer).unwrap_err(), OF_ALL);
        assert_eq!(open.enter([192, 0, 2, 1].into()).unwrap_err(), OF_ALL);
        drop(held);
        assert!(open.enter([192, 0, 2, 1].into()).is_ok());
    }

    #[test]
    fn sixty_four_bits_of_ipv6_are_one_source_and_a_mapped_address_is_its_own() {
        let open = open(10, 1);
        let of = |host: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        let _held = open.enter(of(1)).unwrap();

        assert_eq!(open.enter(of(2)).unwrap_err(), OF_SOURCE);
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        let _held = open.enter(mapped.into()).unwrap();
        assert_eq!(open.enter([192, 0, 2, 1].into()).unwrap_err(), OF_SOURCE);
    }
}
