//! Connections kept for the next request, per worker thread.
//!
//! A worker keeps its own, so that a checkout takes no lock and a stream stays with the reactor that
//! knows it. Only clean legs come here: both messages of the last exchange complete, nothing left over.

use super::defences::lanes_stand;
use super::leg::Leg;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::time::Instant;

#[derive(Debug)]
struct Kept {
    leg: Leg,
    /// Closed after this, whoever might still want it.
    until: Instant,
}

type Lanes = HashMap<(u64, Option<u128>), Vec<Kept>>;

thread_local! {
    static KEPT: RefCell<Lanes> = RefCell::new(HashMap::new());
}

/// The most recently used live leg of a lane.
pub(super) fn take(server: u64, lane: Option<u128>, now: Instant) -> Option<Leg> {
    let lane = lane.filter(|_| lanes_stand());
    KEPT.with_borrow_mut(|lanes| {
        let legs = lanes.get_mut(&(server, lane))?;
        while let Some(kept) = legs.pop() {
            if now < kept.until && kept.leg.is_quiet() {
                return Some(kept.leg);
            }
        }
        None
    })
}

/// Keeps a leg until `until`; at the cap the newcomer is closed.
pub(super) fn keep(server: u64, lane: Option<u128>, leg: Leg, until: Instant, cap: usize) {
    let lane = lane.filter(|_| lanes_stand());
    KEPT.with_borrow_mut(|lanes| {
        let legs = lanes.entry((server, lane)).or_default();
        if legs.len() < cap {
            legs.push(Kept { leg, until });
        }
    });
}

/// Closes the legs of this worker that are over their time or have turned readable: a server that
/// speaks on an idle connection closes it, or says what would answer somebody's next request.
/// Returns how many were closed. Costs a look at a flag per kept leg.
pub fn retire(now: Instant) -> usize {
    KEPT.with_borrow_mut(|lanes| {
        let mut closed = 0;
        lanes.retain(|_, legs| {
            let before = legs.len();
            legs.retain(|kept| now < kept.until && kept.leg.is_quiet());
            closed += before - legs.len();
            !legs.is_empty()
        });
        closed
    })
}

/// How many legs this worker keeps.
pub fn kept() -> usize {
    KEPT.with_borrow(|lanes| lanes.values().map(Vec::len).sum())
}
