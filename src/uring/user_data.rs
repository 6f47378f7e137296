//! The 64 bits that go to the kernel with a request and come back with its completions. They say
//! which request a completion belongs to.

/// Which request: its kind, and what distinguishes it from others of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserData {
    /// The receive of a slot. The generation tells it from late completions of the socket that was
    /// in the slot before.
    Receive { slot: u16, generation: u32 },
    /// The sending of a run of datagrams: the flight of its outbox, and the index of its first
    /// datagram.
    Send { flight: u16, index: u32 },
    /// The watch on the descriptor that wakes the engine.
    Wake,
    /// The watch on the descriptor that tells news of the NICs.
    News,
    /// A cancellation.
    Cancel,
}

const KIND_SHIFT: u32 = 56;
const HIGH_SHIFT: u32 = 32;

/// Generations count modulo this.
pub(super) const GENERATION_COUNT: u32 = 1 << 24;

impl UserData {
    pub fn encode(self) -> u64 {
        let pack = |kind: u64, high: u32, low: u32| {
            kind << KIND_SHIFT | u64::from(high) << HIGH_SHIFT | u64::from(low)
        };
        match self {
            Self::Receive { slot, generation } => pack(1, generation, slot.into()),
            Self::Send { flight, index } => pack(2, flight.into(), index),
            Self::Wake => pack(3, 0, 0),
            Self::Cancel => pack(4, 0, 0),
            Self::News => pack(5, 0, 0),
        }
    }

    /// `None` for what [`UserData::encode`] never returns.
    pub fn decode(user_data: u64) -> Option<Self> {
        let high = (user_data >> HIGH_SHIFT) as u32 & (GENERATION_COUNT - 1);
        let low = user_data as u32;
        let decoded = match user_data >> KIND_SHIFT {
            1 => Self::Receive { slot: low as u16, generation: high },
            2 => Self::Send { flight: high as u16, index: low },
            3 => Self::Wake,
            4 => Self::Cancel,
            5 => Self::News,
            _ => return None,
        };
        (decoded.encode() == user_data).then_some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(a: u16, b in 0..GENERATION_COUNT, c: u32) {
            for user_data in [
                UserData::Receive { slot: a, generation: b },
                UserData::Send { flight: a, index: c },
                UserData::Wake,
                UserData::News,
                UserData::Cancel,
            ] {
                prop_assert_eq!(UserData::decode(user_data.encode()), Some(user_data));
            }
        }

        #[test]
        fn what_was_never_encoded_is_nothing(bits: u64) {
            if let Some(user_data) = UserData::decode(bits) {
                prop_assert_eq!(user_data.encode(), bits);
            }
        }
    }
}
