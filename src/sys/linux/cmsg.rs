//! Control messages of Linux, decoded and written by safe code.
//!
//! The layout is that of cmsg(3): a length that counts the header, a level, a type, then the data.
//! Each message is aligned to the size of a pointer.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use crate::datagram::{Arrival, Egress, KernelTime};

const ALIGNMENT: usize = size_of::<usize>();
const HEADER_LEN: usize = size_of::<usize>() + 2 * size_of::<i32>();
const PKTINFO_LEN: usize = 12;

/// Room for IP_PKTINFO, SO_RXQ_OVFL, IP_TTL, IP_TOS and SO_TIMESTAMPNS, with some to spare.
pub(crate) const RECEIVED_BYTES: usize = 160;

/// `SO_TIMESTAMPNS_NEW` (linux/asm-generic/socket.h), which the libc crate does not name: the form
/// that 32-bit systems with a 64-bit time use.
const SO_TIMESTAMPNS_NEW: i32 = 64;

const fn aligned(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

fn bytes<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Writes into `arrival` what `control` tells. Unknown messages are passed over, and a message
/// whose length makes no sense ends the list.
#[inline]
pub(crate) fn decode(mut control: &[u8], arrival: &mut Arrival) {
    while let (Some(len), Some(level), Some(kind)) = (
        bytes(control, 0).map(usize::from_ne_bytes),
        bytes(control, ALIGNMENT).map(i32::from_ne_bytes),
        bytes(control, ALIGNMENT + 4).map(i32::from_ne_bytes),
    ) {
        let Some(data) = control.get(HEADER_LEN..len) else {
            return;
        };
        decode_one(level, kind, data, arrival);
        control = control.get(aligned(len)..).unwrap_or_default();
    }
}

fn decode_one(level: i32, kind: i32, data: &[u8], arrival: &mut Arrival) {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            if let (Some(ifindex), Some(destination)) = (bytes(data, 0), bytes::<4>(data, 8)) {
                arrival.ifindex = i32::from_ne_bytes(ifindex).max(0) as u32;
                arrival.destination = Ipv4Addr::from(destination);
            }
        }
        (libc::IPPROTO_IP, libc::IP_TTL) => {
            let ttl = bytes(data, 0).map(i32::from_ne_bytes);
            arrival.ttl = ttl.and_then(|ttl| u8::try_from(ttl).ok());
        }
        (libc::IPPROTO_IP, libc::IP_TOS) => arrival.tos = data.first().copied(),
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
            if let Some(drop_count) = bytes(data, 0) {
                arrival.drop_count = u32::from_ne_bytes(drop_count);
            }
        }
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS | SO_TIMESTAMPNS_NEW) => {
            arrival.kernel_time = timespec(data).and_then(KernelTime::new).or(arrival.kernel_time);
        }
        _ => {}
    }
}

/// A time since 1970, with 64-bit or, on old 32-bit systems, 32-bit fields.
fn timespec(data: &[u8]) -> Option<Duration> {
    let (seconds, nanoseconds) = if data.len() >= 16 {
        let field = |at| bytes(data, at).map(i64::from_ne_bytes);
        (field(0)?, field(8)?)
    } else {
        let field = |at| bytes(data, at).map(i32::from_ne_bytes).map(i64::from);
        (field(0)?, field(4)?)
    };
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|&n| n < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
}

const PKTINFO_BYTES: usize = aligned(HEADER_LEN + PKTINFO_LEN);
const TTL_BYTES: usize = aligned(HEADER_LEN + size_of::<i32>());
const SEGMENT_BYTES: usize = aligned(HEADER_LEN + size_of::<u16>());
const SENT_BYTES: usize = PKTINFO_BYTES + TTL_BYTES + SEGMENT_BYTES;

/// The control messages for sendmsg(2): IP_PKTINFO if the egress names an interface or a source,
/// IP_TTL (Linux 3.13) if it names a time to live, UDP_SEGMENT for a run of segments. Empty
/// otherwise.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendControl {
    bytes: [u8; SENT_BYTES],
    len: usize,
}

impl SendControl {
    pub fn new(egress: Egress, segment_len: Option<u16>) -> Self {
        let mut control = Self { bytes: [0; SENT_BYTES], len: 0 };
        if egress.ifindex.is_some() || egress.source.is_some() {
            // struct in_pktinfo: the interface, the source address, the header's address (unused).
            let ifindex = egress.ifindex.unwrap_or(0).to_ne_bytes();
            let source = egress.source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
            let info = [ifindex, source, [0; 4]];
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info.as_flattened());
        }
        if let Some(ttl) = egress.ttl {
            // For groups too: it comes before IP_MULTICAST_TTL.
            control.push(libc::IPPROTO_IP, libc::IP_TTL, &i32::from(ttl).to_ne_bytes());
        }
        if let Some(segment_len) = segment_len {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment_len.to_ne_bytes());
        }
        control
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let start = self.len;
        let mut at = start;
        let mut put = |field: &[u8]| {
            self.bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&(HEADER_LEN + data.len()).to_ne_bytes());
        put(&level.to_ne_bytes());
        put(&kind.to_ne_bytes());
        put(data);
        self.len = start + aligned(HEADER_LEN + data.len());
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Decodes an IPv4 socket address as the kernel writes it (ip(7)). Returns 0.0.0.0:0 if `name` is
/// none.
#[inline]
pub(crate) fn source(name: &[u8]) -> SocketAddrV4 {
    let family = bytes(name, 0).map(u16::from_ne_bytes);
    let is_ipv4 = family == Some(libc::AF_INET as u16);
    let fields = bytes(name, 2).map(u16::from_be_bytes).zip(bytes::<4>(name, 4));
    let (port, address) = fields.filter(|_| is_ipv4).unwrap_or_default();
    SocketAddrV4::new(address.into(), port)
}

/// Encodes an IPv4 socket address as the kernel reads it (ip(7)).
pub(crate) fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nobody() -> Arrival {
        Arrival::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))
    }

    fn encoded(messages: &[(i32, i32, &[u8])]) -> Vec<u8> {
        let mut control = Vec::new();
        for (level, kind, data) in messages {
            control.extend((HEADER_LEN + data.len()).to_ne_bytes());
            control.extend(level.to_ne_bytes());
            control.extend(kind.to_ne_bytes());
            control.extend(*data);
            // The kernel leaves in the padding what was there before.
            control.resize(aligned(control.len()), 0xaa);
        }
        control
    }

    #[test]
    fn everything_that_was_asked_for_is_decoded() {
        let mut pktinfo = 7i32.to_ne_bytes().to_vec();
        pktinfo.extend([192, 0, 2, 1, 192, 0, 2, 255]);
        let mut time = 1_700_000_000i64.to_ne_bytes().to_vec();
        time.extend(5i64.to_ne_bytes());
        let control = encoded(&[
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &time),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()),
            (libc::SOL_SOCKET, 9999, &[1, 2, 3]),
            (libc::IPPROTO_IP, libc::IP_TTL, &64i32.to_ne_bytes()),
            (libc::IPPROTO_IP, libc::IP_TOS, &[0xb8]),
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &pktinfo),
        ]);
        let mut arrival = nobody();
        decode(&control, &mut arrival);
        assert_eq!(arrival.destination, Ipv4Addr::new(192, 0, 2, 255));
        assert_eq!((arrival.ifindex, arrival.drop_count), (7, 9));
        assert_eq!((arrival.ttl, arrival.tos), (Some(64), Some(0xb8)));
        let time = KernelTime::new(Duration::new(1_700_000_000, 5));
        assert_eq!(arrival.kernel_time, time);
    }

    #[test]
    fn what_is_written_is_what_is_decoded() {
        let egress = Egress::by_nic(3).with_source(Ipv4Addr::new(10, 1, 0, 1)).with_ttl(255);
        for segment_len in [None, Some(700)] {
            let control = SendControl::new(egress, segment_len);
            let mut arrival = nobody();
            decode(control.as_bytes(), &mut arrival);
            assert_eq!(arrival.ifindex, 3);
        }
        assert!(SendControl::new(Egress::default(), None).as_bytes().is_empty());
    }

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let source = [10, 1, 0, 1];
        let egress = Egress::by_nic(3).with_source(source.into());
        let info = [3u32.to_ne_bytes(), source, [0; 4]].concat();
        let pktinfo = (libc::IPPROTO_IP, libc::IP_PKTINFO, &info[..]);
        let segment_len = 700u16.to_ne_bytes();
        let ttl = 7i32.to_ne_bytes();
        let ttl = (libc::IPPROTO_IP, libc::IP_TTL, &ttl[..]);
        let segment = (libc::SOL_UDP, libc::UDP_SEGMENT, &segment_len[..]);
        let rows = [
            (egress, None, encoded(&[pktinfo])),
            (egress, Some(700), encoded(&[pktinfo, segment])),
            (Egress::default(), Some(700), encoded(&[segment])),
            (egress.with_ttl(7), Some(700), encoded(&[pktinfo, ttl, segment])),
        ];
        for (egress, segment_len, expected) in rows {
            let control = SendControl::new(egress, segment_len);
            let padding = |byte: &u8| if *byte == 0xaa { 0 } else { *byte };
            let expected: Vec<u8> = expected.iter().map(padding).collect();
            assert_eq!(control.as_bytes(), expected);
        }
    }

    #[test]
    fn a_message_cut_short_tells_nothing_and_ends_the_list() {
        let control = encoded(&[
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &11u32.to_ne_bytes()),
        ]);
        for len in 0..control.len() {
            let mut arrival = nobody();
            decode(&control[..len], &mut arrival);
            assert!([0, 9, 11].contains(&arrival.drop_count), "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(control: Vec<u8>, name: Vec<u8>) {
            decode(&control, &mut nobody());
            source(&name);
        }
    }
}
