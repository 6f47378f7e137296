//! Which datagrams are of interest at all, by where they come from and how they begin.

use std::net::Ipv4Addr;

use crate::nics::Subnet;

/// Which datagrams an engine hands out; see [`Builder::filter`](crate::Builder::filter).
///
/// On Linux the kernel drops what a filter does not keep of the broadcasts and groups, before it is
/// queued (classic BPF, socket(7), `SO_ATTACH_FILTER`). Of unicasts, on other systems, where a
/// filter is longer than 500 instructions or a pattern than 80 bytes, and where the kernel grants
/// no memory for it (net.core.optmem_max), the engine drops it
/// ([`Counts::filtered_count`](crate::Counts::filtered_count)). The verdict is the same, but that
/// the engine sees no more of a payload than fits a buffer
/// ([`Builder::buffer_bytes`](crate::Builder::buffer_bytes)).
///
/// ```
/// use nicring::{Filter, Pattern};
///
/// // Only Who-Is of BACnet, and nothing from a subnet whose controllers are none of ours.
/// let who_is = Pattern::new().byte(0, 0x81).byte(6, 0x10).byte(7, 0x08);
/// let filter = Filter::new().payload(who_is).ignore("192.0.2.0/24".parse()?);
/// let from = "198.51.100.7".parse()?;
/// assert!(filter.keeps(from, &[0x81, 0x0b, 0, 8, 1, 0, 0x10, 0x08]));
/// assert!(!filter.keeps(from, b"anything else"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    /// One of them has to match; if there is none, every payload is kept.
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) ignored: Vec<Subnet>,
}

impl Filter {
    /// Keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps payloads of this pattern, besides those of other patterns.
    pub fn payload(mut self, pattern: Pattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Drops what comes from this subnet.
    pub fn ignore(mut self, subnet: Subnet) -> Self {
        self.ignored.push(subnet);
        self
    }

    /// Whether it keeps a datagram from `source` with this payload.
    #[must_use]
    pub fn keeps(&self, source: Ipv4Addr, payload: &[u8]) -> bool {
        let is_ignored = self.ignored.iter().any(|subnet| subnet.contains(source));
        let matches = |pattern: &Pattern| pattern.matches(payload);
        !is_ignored && (self.patterns.is_empty() || self.patterns.iter().any(matches))
    }
}

/// How a payload looks: what some of its bytes are. One that is too short to have them all is of no
/// such pattern.
///
/// ```
/// use nicring::Pattern;
///
/// let pattern = Pattern::new().byte(0, 0xca).bits(2, 0x01, 0x00);
/// assert!(pattern.matches(&[0xca, 2, 0x80]) && !pattern.matches(&[0xca, 2, 0x81]));
/// assert!(!pattern.matches(&[0xca]));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Pattern {
    pub(crate) bytes: Vec<Masked>,
}

/// Some bits of the byte at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Masked {
    pub at: u16,
    pub mask: u8,
    pub value: u8,
}

impl Pattern {
    /// Every payload, however short.
    pub fn new() -> Self {
        Self::default()
    }

    /// The byte at this offset has this value.
    pub fn byte(self, at: u16, value: u8) -> Self {
        self.bits(at, 0xff, value)
    }

    /// The bits of `mask` in the byte at this offset are those of `value`.
    pub fn bits(mut self, at: u16, mask: u8, value: u8) -> Self {
        self.bytes.push(Masked { at, mask, value: value & mask });
        self
    }

    /// Whether a payload is of this pattern.
    #[must_use]
    pub fn matches(&self, payload: &[u8]) -> bool {
        let matches = |masked: &Masked| {
            let byte = payload.get(usize::from(masked.at));
            byte.is_some_and(|byte| byte & masked.mask == masked.value)
        };
        self.bytes.iter().all(matches)
    }

    /// How long a payload must be to have all the bytes.
    #[allow(dead_code, reason = "for the filters that only Linux has")]
    pub(crate) fn len_min(&self) -> u32 {
        self.bytes.iter().map(|masked| u32::from(masked.at) + 1).max().unwrap_or(0)
    }
}
