//! The part of the datagrams that a shard hears, where several share the work.

use std::net::SocketAddrV4;

/// One of several engines that share the datagrams among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    pub index: u16,
    pub count: u16,
}

/// Odd numbers whose bits are spread: by Knuth's multiplicative hashing, and from MurmurHash3.
#[allow(dead_code, reason = "for the filters that only Linux has")]
pub(crate) const MULTIPLIERS: [u32; 2] = [0x9E37_79B1, 0x85EB_CA6B];
/// The upper bits of a product depend on all bits of its factors.
#[allow(dead_code, reason = "for the filters that only Linux has")]
pub(crate) const SHIFT: u32 = 16;

impl Shard {
    /// There is no other.
    pub const ONLY: Self = Self { index: 0, count: 1 };

    /// Whether it hears the broadcasts and groups that come from `source`. One of the shards does.
    /// The kernel decides by the same rule ([`socket_filter`](crate::sys::linux::socket_filter)).
    #[allow(dead_code, reason = "for tests: the kernel decides")]
    pub fn hears(self, source: SocketAddrV4) -> bool {
        let [first, second] = MULTIPLIERS;
        let mixed = u32::from(source.port()).wrapping_mul(first) ^ source.ip().to_bits();
        let hash = mixed.wrapping_mul(second) >> SHIFT;
        hash % u32::from(self.count) == u32::from(self.index)
    }
}
