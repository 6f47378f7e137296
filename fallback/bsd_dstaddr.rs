//! FreeBSD, OpenBSD and DragonFly: IP_RECVDSTADDR and IP_RECVIF; the egress cannot be told.

use std::net::Ipv4Addr;

use nix::sys::socket::{ControlMessage, ControlMessageOwned};

use crate::{admit::Message, route::Egress};

pub(super) const RECEIVED_BYTES: usize = 256;

pub(super) fn decode(control: &ControlMessageOwned, message: &mut Message) {
    match control {
        ControlMessageOwned::Ipv4RecvDstAddr(destination) => {
            message.destination = Ipv4Addr::from(destination.s_addr.to_ne_bytes());
        }
        ControlMessageOwned::Ipv4RecvIf(link) => message.ifindex = link.sdl_index.into(),
        _ => {}
    }
}

/// A socket that is bound to its address sends from it; IP_SENDSRCADDR is for the others, which
/// have no single one.
pub(super) fn with_egress<T>(_egress: Egress, send: impl FnOnce(&[ControlMessage<'_>]) -> T) -> T {
    send(&[])
}
