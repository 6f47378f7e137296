//! Socket filters: programs of classic BPF by which the kernel drops what a socket is not to hear,
//! before it is queued.
//!
//! The program runs after the kernel has chosen the socket (socket(7), SO_ATTACH_FILTER). It
//! returns how many bytes of a datagram are kept: all, or none. For UDP its offsets begin at the
//! UDP header, and `SKF_NET_OFF` at the IP header (linux/filter.h), whatever options that has. What
//! it drops counts among the drops of the socket.

use std::io;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD,
    BPF_LEN, BPF_MISC, BPF_MUL, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
};
use socket2::{SockFilter, Socket};

use crate::{
    filter::{Filter, Pattern},
    nics::Subnet,
    sys::shard::{MULTIPLIERS, SHIFT, Shard},
};

/// One instruction: code, the jumps if true and if false, and a constant (linux/bpf_common.h).
pub(crate) type Instruction = (u16, u8, u8, u32);

/// Where the IP header begins: `SKF_NET_OFF`, and in it the source address (RFC 791).
const SOURCE_ADDRESS: u32 = (libc::SKF_NET_OFF + 12) as u32;
/// The first field of the UDP header (RFC 768).
const SOURCE_PORT: u32 = 0;
const KEEP: u32 = u32::MAX;
const DROP: u32 = 0;

/// Where the payload begins (RFC 768).
const PAYLOAD: u32 = 8;
/// So many instructions take 4 KiB, and what the kernel translates them to about twice that, of the
/// memory that a socket may have for its options (net.core.optmem_max: 20 KiB on older kernels).
const LEN_MAX: usize = 500;
/// A failed comparison jumps over the rest of its pattern, at most 255 instructions.
const PATTERN_LEN_MAX: usize = 80;

/// A program that keeps what a filter keeps ([`Filter::keeps`]) and a shard hears
/// ([`Shard::hears`]). `None` if it were too long.
pub(crate) fn program(filter: Option<&Filter>, shard: Shard) -> Option<Vec<Instruction>> {
    let mut program = Vec::new();
    if let Some(filter) = filter {
        if filter.patterns.iter().any(|pattern| pattern.bytes.len() > PATTERN_LEN_MAX) {
            return None;
        }
        filter.ignored.iter().for_each(|subnet| program.extend(drop_subnet(*subnet)));
        program.extend(keep_patterns(&filter.patterns));
    }
    if shard != Shard::ONLY {
        program.extend(keep_part(shard));
    }
    program.push(run(&[BPF_RET, BPF_K], KEEP));
    (program.len() <= LEN_MAX).then_some(program)
}

/// Linux 3.7; the libc crate does not name it.
const BPF_MOD: u32 = 0x90;

fn code(parts: &[u32]) -> u16 {
    parts.iter().fold(0, |code, part| code | *part as u16)
}

fn run(parts: &[u32], value: u32) -> Instruction {
    (code(parts), 0, 0, value)
}

/// Compares the accumulator; jumps over so many instructions if it is equal, and if it is not.
fn jump_equal(value: u32, if_so: u8, if_not: u8) -> Instruction {
    (code(&[BPF_JMP, BPF_JEQ, BPF_K]), if_so, if_not, value)
}

/// Drops what comes from a subnet.
fn drop_subnet(subnet: Subnet) -> [Instruction; 4] {
    let mask = u32::MAX.checked_shl(32 - u32::from(subnet.prefix_len())).unwrap_or(0);
    [
        run(&[BPF_LD, BPF_W, BPF_ABS], SOURCE_ADDRESS),
        run(&[BPF_ALU, BPF_AND, BPF_K], mask),
        jump_equal(subnet.network().to_bits(), 0, 1),
        run(&[BPF_RET, BPF_K], DROP),
    ]
}

/// Goes on with what one of the patterns matches; drops the rest, if there is any pattern.
fn keep_patterns(patterns: &[Pattern]) -> Vec<Instruction> {
    // From the last one back, because each jumps over those behind it when it matches.
    let mut program = Vec::new();
    if !patterns.is_empty() {
        program.push(run(&[BPF_RET, BPF_K], DROP));
    }
    for pattern in patterns.iter().rev() {
        let behind = program.len() as u32;
        let mut of_pattern = match_pattern(pattern);
        of_pattern.push(run(&[BPF_JMP, BPF_JA], behind));
        of_pattern.append(&mut program);
        program = of_pattern;
    }
    program
}

/// Goes on where the pattern matches; jumps over the instruction behind itself where it does not.
fn match_pattern(pattern: &Pattern) -> Vec<Instruction> {
    // A load beyond the end of a datagram would end the program, and drop what another matches.
    let has_len = (code(&[BPF_JMP, BPF_JGE, BPF_K]), 0, 0, PAYLOAD + pattern.len_min());
    let mut program = vec![run(&[BPF_LD, BPF_W, BPF_LEN], 0), has_len];
    for byte in &pattern.bytes {
        program.push(run(&[BPF_LD, BPF_B, BPF_ABS], PAYLOAD + u32::from(byte.at)));
        program.push(run(&[BPF_ALU, BPF_AND, BPF_K], byte.mask.into()));
        program.push(jump_equal(byte.value.into(), 0, 0));
    }
    let len = program.len();
    for (at, (code, _, if_not, _)) in program.iter_mut().enumerate() {
        if u32::from(*code & 0x07) == BPF_JMP {
            *if_not = (len - at) as u8; // over the rest, and one more
        }
    }
    program
}

/// Goes on with what a shard hears; drops the rest.
fn keep_part(shard: Shard) -> [Instruction; 10] {
    let [first, second] = MULTIPLIERS;
    [
        run(&[BPF_LD, BPF_W, BPF_ABS], SOURCE_ADDRESS),
        run(&[BPF_MISC, BPF_TAX], 0),
        run(&[BPF_LD, BPF_H, BPF_ABS], SOURCE_PORT),
        run(&[BPF_ALU, BPF_MUL, BPF_K], first),
        run(&[BPF_ALU, BPF_XOR, BPF_X], 0),
        run(&[BPF_ALU, BPF_MUL, BPF_K], second),
        run(&[BPF_ALU, BPF_RSH, BPF_K], SHIFT),
        run(&[BPF_ALU, BPF_MOD, BPF_K], shard.count.into()),
        jump_equal(shard.index.into(), 1, 0),
        run(&[BPF_RET, BPF_K], DROP),
    ]
}

/// Has the kernel drop what the program does not keep. Before the socket is bound, so that nothing
/// else is ever queued.
pub(crate) fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    let filter = |&(code, jt, jf, k): &Instruction| SockFilter::new(code, jt, jf, k);
    socket.attach_filter(&program.iter().map(filter).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    /// A socket on loopback. What is sent there is there, or was dropped, when `send_to` returns.
    fn filtered(filter: Option<&Filter>, shard: Shard) -> UdpSocket {
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::DGRAM);
        let socket = Socket::new(domain, kind, None).unwrap();
        attach(&socket, &program(filter, shard).unwrap()).unwrap();
        socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    }

    fn source_of(client: &UdpSocket) -> SocketAddrV4 {
        match client.local_addr().unwrap() {
            std::net::SocketAddr::V4(source) => source,
            other => panic!("{other} is not of IPv4"),
        }
    }

    /// The kernel and the rule in Rust agree, and each source has exactly one shard.
    #[test]
    fn the_kernel_keeps_what_the_rule_says() {
        for count in [2, 3, 4, 7] {
            let shards: Vec<_> = (0..count).map(|index| Shard { index, count }).collect();
            let sockets: Vec<_> = shards.iter().map(|shard| filtered(None, *shard)).collect();
            for number in 0..100 {
                let own = Ipv4Addr::new(127, 0, number, 1 + number);
                let client = UdpSocket::bind((own, 0)).unwrap();
                let source = source_of(&client);
                for (shard, socket) in shards.iter().zip(&sockets) {
                    client.send_to(&[number], socket.local_addr().unwrap()).unwrap();
                    let heard = socket.recv(&mut [0]).is_ok();
                    assert_eq!(heard, shard.hears(source), "{source} by {shard:?}");
                }
                assert_eq!(shards.iter().filter(|shard| shard.hears(source)).count(), 1);
            }
        }
    }

    fn filters() -> impl Strategy<Value = Filter> {
        // Few values, so that much matches.
        let byte = (0..12u16, prop::sample::select(vec![0xff, 0x01, 0xf0]), 0..4u8);
        let pattern = prop::collection::vec(byte, 0..4).prop_map(|bytes| {
            let bits = |pattern: Pattern, (at, mask, value)| pattern.bits(at, mask, value);
            bytes.into_iter().fold(Pattern::new(), bits)
        });
        let subnet = (1..4u8, 8..=32u8)
            .prop_map(|(last, len)| Subnet::new(Ipv4Addr::new(127, 0, last, 1), len).unwrap());
        let parts = (prop::collection::vec(pattern, 0..4), prop::collection::vec(subnet, 0..3));
        parts.prop_map(|(patterns, ignored)| Filter { patterns, ignored })
    }

    proptest! {
        #[test]
        fn the_kernel_keeps_what_the_filter_keeps(
            filter in filters(),
            (count, index) in (1..4u16).prop_flat_map(|count| (Just(count), 0..count)),
            asked in prop::collection::vec((1..4u8, prop::collection::vec(0..4u8, 0..14)), 1..8),
        ) {
            let shard = Shard { index, count };
            let socket = filtered(Some(&filter), shard);
            for (last, payload) in asked {
                let client = UdpSocket::bind((Ipv4Addr::new(127, 0, last, 1), 0)).unwrap();
                client.send_to(&payload, socket.local_addr().unwrap()).unwrap();
                let heard = socket.recv(&mut [0; 16]).is_ok();
                let source = source_of(&client);
                let expected = filter.keeps(*source.ip(), &payload) && shard.hears(source);
                prop_assert_eq!(heard, expected, "{:?} from {} by {:?}", payload, source, filter);
            }
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_no_program_and_drops_no_shard() {
        let subnet = |number: u32| Subnet::of_host(Ipv4Addr::from_bits(0x0A00_0000 + number));
        let with = |count| (0..count).map(subnet).fold(Filter::new(), Filter::ignore);
        let shard = Shard { index: 1, count: 2 };
        assert!(program(Some(&with(120)), shard).is_some_and(|program| program.len() < LEN_MAX));
        assert!(program(Some(&with(130)), shard).is_none());
        let long = (0..=80).fold(Pattern::new(), |pattern, at| pattern.byte(at, 1));
        assert!(program(Some(&Filter::new().payload(long)), shard).is_none());
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::DGRAM);
        let socket = Socket::new(domain, kind, None).unwrap();
        use crate::sys::options::hear_part;
        assert!(!hear_part(&socket, Some(&with(1000)), shard).unwrap(), "it is not in force");
        assert!(hear_part(&socket, Some(&with(1)), shard).unwrap());
    }

    #[test]
    fn senders_spread_evenly() {
        let count = 4;
        let shards: Vec<_> = (0..count).map(|index| Shard { index, count }).collect();
        // One host with many ports, many hosts with one port, and both.
        let sources: [&dyn Fn(u32) -> SocketAddrV4; 3] = [
            &|number| SocketAddrV4::new([10, 1, 0, 9].into(), 32_768 + number as u16),
            &|number| SocketAddrV4::new(Ipv4Addr::from_bits(0x0A01_0000 + number), 5064),
            &|number| {
                let port = 40_000 + (number * 7 % 1000) as u16;
                SocketAddrV4::new(Ipv4Addr::from_bits(0x0A01_0000 + number / 4), port)
            },
        ];
        for (number, source) in sources.into_iter().enumerate() {
            for shard in &shards {
                let heard = (0..8000).filter(|number| shard.hears(source(*number))).count();
                assert!((1800..2200).contains(&heard), "{heard} of 8000 by {shard:?}, {number}");
            }
        }
    }
}
