//! Socket filters: programs of classic BPF by which the kernel drops what a socket is not to hear,
//! before it is queued.
//!
//! The program runs after the kernel has chosen the socket (socket(7), SO_ATTACH_FILTER). It
//! returns how many bytes of a datagram are kept: all, or none. For UDP its offsets begin at the
//! UDP header, and `SKF_NET_OFF` at the IP header (linux/filter.h), whatever options that has. What
//! it drops counts among the drops of the socket.

use std::io;

use socket2::{SockFilter, Socket};

use crate::sys::shard::{MULTIPLIERS, SHIFT, Shard};

/// One instruction: code, the jumps if true and if false, and a constant (linux/bpf_common.h).
pub(crate) type Instruction = (u16, u8, u8, u32);

/// Where the IP header begins: `SKF_NET_OFF`, and in it the source address (RFC 791).
const SOURCE_ADDRESS: u32 = (libc::SKF_NET_OFF + 12) as u32;
/// The first field of the UDP header (RFC 768).
const SOURCE_PORT: u32 = 0;
const KEEP: u32 = u32::MAX;
const DROP: u32 = 0;

/// A program that keeps what a shard hears ([`Shard::hears`]).
pub(crate) fn program(shard: Shard) -> Vec<Instruction> {
    use libc::{
        BPF_ABS, BPF_ALU, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MISC, BPF_MUL, BPF_RET,
        BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
    };
    /// Linux 3.7; the libc crate does not name it.
    const BPF_MOD: u32 = 0x90;
    let code = |parts: &[u32]| parts.iter().fold(0, |code, part| code | *part as u16);
    let run = |parts: &[u32], value: u32| (code(parts), 0, 0, value);
    let [first, second] = MULTIPLIERS;
    vec![
        run(&[BPF_LD, BPF_W, BPF_ABS], SOURCE_ADDRESS),
        run(&[BPF_MISC, BPF_TAX], 0),
        run(&[BPF_LD, BPF_H, BPF_ABS], SOURCE_PORT),
        run(&[BPF_ALU, BPF_MUL, BPF_K], first),
        run(&[BPF_ALU, BPF_XOR, BPF_X], 0),
        run(&[BPF_ALU, BPF_MUL, BPF_K], second),
        run(&[BPF_ALU, BPF_RSH, BPF_K], SHIFT),
        run(&[BPF_ALU, BPF_MOD, BPF_K], shard.count.into()),
        (code(&[BPF_JMP, BPF_JEQ, BPF_K]), 0, 1, shard.index.into()),
        run(&[BPF_RET, BPF_K], KEEP),
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
    use std::{
        net::{Ipv4Addr, SocketAddrV4, UdpSocket},
        time::Duration,
    };

    use super::*;

    /// The kernel and the rule in Rust agree, and each source has exactly one shard.
    #[test]
    fn the_kernel_keeps_what_the_rule_says() {
        for count in [2, 3, 4, 7] {
            let shards: Vec<_> = (0..count).map(|index| Shard { index, count }).collect();
            let sockets: Vec<UdpSocket> = shards
                .iter()
                .map(|shard| {
                    let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::DGRAM);
                    let socket = Socket::new(domain, kind, None).unwrap();
                    attach(&socket, &program(*shard)).unwrap();
                    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
                    socket.bind(&any.into()).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    socket.into()
                })
                .collect();
            for number in 0..100 {
                let own = Ipv4Addr::new(127, 0, number, 1 + number);
                let client = UdpSocket::bind((own, 0)).unwrap();
                let std::net::SocketAddr::V4(source) = client.local_addr().unwrap() else {
                    panic!("it is of IPv4")
                };
                for (shard, socket) in shards.iter().zip(&sockets) {
                    client.send_to(&[number], socket.local_addr().unwrap()).unwrap();
                    // On loopback it is there, or was dropped, when `send_to` returns.
                    socket.set_nonblocking(true).unwrap();
                    let heard = socket.recv(&mut [0]).is_ok();
                    assert_eq!(heard, shard.hears(source), "{source} by {shard:?}");
                }
                assert_eq!(shards.iter().filter(|shard| shard.hears(source)).count(), 1);
            }
        }
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
