//! When to look at which entry again.
//!
//! A wheel of slots, each some seconds wide. An entry has one record, in the slot of a deadline it
//! once had; when the slot's time comes, the entry is either expired or filed anew under the deadline it
//! has by now. So putting off an expiry costs nothing here, and each record is
//! looked at once per lifetime.

/// Records by the time they are due. Times are whole seconds.
pub(super) struct Wheel {
    slots: Box<[Vec<u128>]>,
    /// The first tick that is not behind us.
    tick: u32,
    records: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS as usize].into(),
            tick: 0,
            records: 0,
        }
    }

    /// Records held, among them those of entries that are gone.
    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// Files a record to be looked at from `deadline` on, or sooner where that is beyond the wheel.
    /// Returns the tick it is filed under.
    pub(super) fn file(&mut self, key: u128, deadline: u32) -> u32 {
        // A deadline behind us would wait for a whole turn, one beyond the wheel would be taken for
        // one of the turn before.
        let last = self.tick.saturating_add(SLOTS - 1);
        let tick = (deadline / SLOT_SECONDS).clamp(self.tick, last);
        if let Some(slot) = self.slots.get_mut((tick % SLOTS) as usize) {
            push(slot, key);
            self.records += 1;
        }
        tick
    }

    /// Turns the wheel to `now` and hands out the records on the way, each with the tick it was filed
    /// under. Those of the present slot are handed out each time.
    pub(super) fn turn(&mut self, now: u32) -> Vec<(u32, u128)> {
        let present = (now / SLOT_SECONDS).max(self.tick);
        // After a pause longer than a turn, one turn meets every record.
        let last = present.min(self.tick.saturating_add(SLOTS - 1));
        let mut due = Vec::new();
        for tick in self.tick..=last {
            let slot = self.slots.get_mut((tick % SLOTS) as usize);
            let records = slot.map(std::mem::take).unwrap_or_default();
            due.extend(records.into_iter().map(|key| (tick, key)));
        }
        self.records -= due.len();
        self.tick = present;
        due
    }

    /// Forgets every record.
    pub(super) fn clear(&mut self) {
        self.slots.fill(Vec::new());
        self.records = 0;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let records: usize = self.slots.iter().map(Vec::capacity).sum();
        size_of_val(&*self.slots) + records * size_of::<u128>()
    }
}

/// A slot grows by a quarter, not by half its final size: there are many, and they live long.
fn push(slot: &mut Vec<u128>, key: u128) {
    if slot.len() == slot.capacity() {
        slot.reserve_exact((slot.capacity() / 4).max(4));
    }
    slot.push(key);
}

/// How finely expiry is planned. Being found depends on the deadline itself, not on this.
const SLOT_SECONDS: u32 = 5;
/// Twenty-one minutes: the usual lifetime, fifteen minutes and grace, fits in one turn.
const SLOTS: u32 = 256;
