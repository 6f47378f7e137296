//! FreeBSD, OpenBSD and DragonFly: IP_RECVDSTADDR, IP_RECVIF and IP_SENDSRCADDR. None of them
//! chooses the interface by which a datagram leaves.

use std::net::Ipv4Addr;

use nix::{
    libc,
    sys::socket::{ControlMessage, ControlMessageOwned},
};

use crate::datagram::{Arrival, Egress};

pub(super) const RECEIVED_BYTES: usize = 256;

pub(super) fn decode(control: &ControlMessageOwned, arrival: &mut Arrival) {
    match control {
        ControlMessageOwned::Ipv4RecvDstAddr(destination) => {
            arrival.destination = Ipv4Addr::from(destination.s_addr.to_ne_bytes());
        }
        ControlMessageOwned::Ipv4RecvIf(link) => arrival.ifindex = link.sdl_index.into(),
        _ => {}
    }
}

/// Sets the source only on a wildcard socket. A socket that is `bound` to an address sends from it,
/// and the system refuses IP_SENDSRCADDR there
/// ([ip(4)](https://man.freebsd.org/cgi/man.cgi?query=ip&sektion=4)).
pub(super) fn with_egress<T>(
    egress: Egress,
    bound: Ipv4Addr,
    send: impl FnOnce(&[ControlMessage<'_>]) -> T,
) -> T {
    match egress.source {
        Some(source) if bound.is_unspecified() => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
            send(&[ControlMessage::Ipv4SendSrcAddr(&source)])
        }
        _ => send(&[]),
    }
}
