//! macOS and NetBSD: IP_PKTINFO, as on Linux.

use std::net::Ipv4Addr;

use nix::{
    libc,
    sys::socket::{ControlMessage, ControlMessageOwned},
};

use crate::datagram::{Arrival, Egress};

pub(super) const RECEIVED_BYTES: usize = 128;

pub(super) fn decode(control: &ControlMessageOwned, arrival: &mut Arrival) {
    if let ControlMessageOwned::Ipv4PacketInfo(info) = control {
        arrival.ifindex = info.ipi_ifindex as u32;
        arrival.destination = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
    }
}

pub(super) fn with_egress<T>(
    egress: Egress,
    _bound: Ipv4Addr,
    send: impl FnOnce(&[ControlMessage<'_>]) -> T,
) -> T {
    if egress.ifindex.is_none() && egress.source.is_none() {
        return send(&[]);
    }
    let source = egress.source.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let info = libc::in_pktinfo {
        ipi_ifindex: egress.ifindex.unwrap_or(0) as _,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    send(&[ControlMessage::Ipv4PacketInfo(&info)])
}
