//! What a batch keeps of a datagram beside its payload.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroU64,
    time::Duration,
};

use super::class::Class;

/// What the kernel told about one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Unspecified where the kernel told none.
    pub source: SocketAddrV4,
    /// Unspecified where the platform does not tell.
    pub destination: Ipv4Addr,
    /// 0 where the platform does not tell.
    pub ifindex: u32,
    /// Drops of the socket so far. 0 if there was none, if the platform does not tell, or if the
    /// socket does not request the count with each datagram.
    pub drop_count: u32,
    pub kernel_time: Option<KernelTime>,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub is_truncated: bool,
    /// Whether control messages were cut off.
    pub is_control_truncated: bool,
}

impl Arrival {
    pub fn from(source: SocketAddrV4) -> Self {
        Self {
            source,
            destination: Ipv4Addr::UNSPECIFIED,
            ifindex: 0,
            drop_count: 0,
            kernel_time: None,
            ttl: None,
            tos: None,
            is_truncated: false,
            is_control_truncated: false,
        }
    }
}

/// Nanoseconds since 1970. It takes 8 bytes, a [`Duration`] takes 16, and a [`Record`] has only 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelTime(NonZeroU64);

impl KernelTime {
    /// `None` for 1970 itself, and for times after the year 2554.
    #[allow(dead_code, reason = "only Linux tells the time")]
    pub fn new(since_epoch: Duration) -> Option<Self> {
        let nanoseconds = u64::try_from(since_epoch.as_nanos()).ok()?;
        NonZeroU64::new(nanoseconds).map(Self)
    }

    pub fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0.get())
    }
}

/// Where the payload lies: a buffer's number, and the bytes in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    pub buffer: u16,
    pub start: u32,
    pub len: u32,
}

/// Names one socket of an engine. The slot alone does not: after a rescan another socket may be in
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SocketKey {
    pub slot: u16,
    /// No other socket of this process has this number.
    pub number: u32,
}

/// Where a question came in. Its answers leave by a sender for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The port that was asked.
    pub port: u16,
    /// The interface that it arrived on, 0 where unknown.
    pub ifindex: u32,
}

/// A [`Datagram`](super::Datagram) without its payload, as a batch keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub arrival: Arrival,
    pub span: Span,
    #[allow(dead_code, reason = "for the ring of AsyncUdpV4")]
    pub heard_by: SocketKey,
    pub port: u16,
    pub class: Class,
    /// 0 where unknown.
    pub nic: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_fills_one_cache_line() {
        assert_eq!(size_of::<Record>(), 64);
    }

    #[test]
    fn a_time_is_kept_to_the_nanosecond() {
        let time = Duration::new(1_700_000_000, 5);
        assert_eq!(KernelTime::new(time).map(KernelTime::since_epoch), Some(time));
        assert_eq!(KernelTime::new(Duration::ZERO), None);
        assert_eq!(KernelTime::new(Duration::MAX), None);
    }
}
