//! Flow control of a channel: how much may be sent, and when what was received is acknowledged. `[MS-RPCH] 3.2.1.1.5`

use crate::rpch::rts::Ack;

/// Room both ends of the lab advertise, in bytes.
pub(super) const WINDOW: u32 = 64 << 10;

/// The sender's side of one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    window: u32,
    available: u32,
    sent: u32,
}

impl Sending {
    pub(super) fn new(window: u32) -> Self {
        Self {
            window,
            available: window,
            sent: 0,
        }
    }

    /// Takes room for a PDU of so many bytes; false where there is none now. One larger than the whole window
    /// goes when everything before it has arrived.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > self.available && self.available < self.window {
            return false;
        }
        self.available = self.available.saturating_sub(bytes);
        self.sent = self.sent.wrapping_add(bytes);
        true
    }

    /// The receiver has come so far. An acknowledgement of what was never sent changes nothing.
    pub(super) fn acknowledged(&mut self, ack: &Ack) {
        let under_way = self.sent.wrapping_sub(ack.bytes_received);
        if let Some(available) = ack.available.checked_sub(under_way)
            && available <= self.window
        {
            self.available = available;
        }
    }

    /// Bytes of PDUs sent on the channel.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }
}

/// The receiver's side of one channel. Whatever arrives is consumed at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiving {
    window: u32,
    received: u32,
    acknowledged: u32,
}

impl Receiving {
    pub(super) fn new(window: u32) -> Self {
        Self {
            window,
            received: 0,
            acknowledged: 0,
        }
    }

    /// A PDU of so many bytes was consumed. After every half window the sender is told: bytes received, and room.
    /// `[MS-RPCH] 3.2.1.4.1.1` leaves the threshold open.
    pub(super) fn consumed(&mut self, bytes: usize) -> Option<(u32, u32)> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.received = self.received.wrapping_add(bytes);
        if self.received.wrapping_sub(self.acknowledged) < self.window / 2 {
            return None;
        }
        self.acknowledged = self.received;
        Some((self.received, self.window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpch::Cookie;

    fn ack(bytes_received: u32, available: u32) -> Ack {
        Ack {
            bytes_received,
            available,
            channel: Cookie([0; 16]),
        }
    }

    #[test]
    fn nobody_sends_more_than_the_other_has_room_for() {
        let mut sending = Sending::new(10_000);

        assert!(sending.takes(5_840));
        assert!(!sending.takes(5_840));
        // Everything arrived: the whole window is free again.
        sending.acknowledged(&ack(5_840, 10_000));
        assert!(sending.takes(5_840));
        // An old acknowledgement does not count what is under way.
        sending.acknowledged(&ack(5_840, 10_000));
        assert!(!sending.takes(5_840));
        assert_eq!(sending.sent(), 2 * 5_840);
    }

    #[test]
    fn an_acknowledgement_that_cannot_be_changes_nothing() {
        let mut sending = Sending::new(10_000);
        assert!(sending.takes(9_000));

        sending.acknowledged(&ack(9_000, 20_000));
        assert!(!sending.takes(2_000));
        sending.acknowledged(&ack(20_000, 10_000));
        assert!(!sending.takes(2_000));
    }

    #[test]
    fn half_a_window_received_is_acknowledged_once() {
        let mut receiving = Receiving::new(65_536);

        let acks: Vec<_> = (0..12).filter_map(|_| receiving.consumed(5_840)).collect();

        // Six fragments are 35,040 bytes, the first that reach 32,768.
        assert_eq!(acks, [(35_040, 65_536), (70_080, 65_536)]);
    }
}
