//! What the kernel tells of links, of addresses, and of its table `local`, which decides what it
//! delivers to sockets: rtnetlink(7).
//!
//! A netlink message is a header, a body of fixed length, and attributes. Of bodies and attributes
//! only what is needed here is read, so that no kernel's additions can disturb.
#![allow(unsafe_code)]

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlaBuffer,
    NlasIterator,
};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
            send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// A link is there, or has changed.
    Link(Link),
    /// The link with this index has gone.
    LinkGone(u32),
    Address(Address),
    Route(Route),
    /// An address or a route has gone.
    Gone,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// `IFF_UP` and others, netdevice(7).
    pub flags: u32,
    /// The hardware address.
    pub hardware_address: Vec<u8>,
}

/// An IPv4 address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub index: u32,
    pub local: Ipv4Addr,
    /// As `local`, but for a point-to-point address: then it is the peer's.
    pub address: Ipv4Addr,
    pub prefix_len: u8,
    pub broadcast: Option<Ipv4Addr>,
}

/// A route of the table `local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub index: u32,
    pub destination: Ipv4Addr,
    pub prefix_len: u8,
    pub is_broadcast: bool,
}

/// What to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Links,
    Addresses,
    /// The routes of the table `local` that lead to this host.
    LocalRoutes,
}

/// The longest message that the kernel sends: it fills at most 32 KiB (`netlink_recvmsg`).
const BUFFER_BYTES: usize = 64 << 10;
/// Room for the news of some thousand links that come or go at once.
const NEWS_BYTES: usize = 1 << 20;
/// How often to list again what has changed while it was listed.
const LIST_ATTEMPT_MAX: usize = 8;

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence_number: u32,
}

impl Netlink {
    /// A socket that asks.
    pub fn open() -> io::Result<Self> {
        let netlink = Self::new(0, SockFlag::empty())?;
        // The kernel answers at once. A sandbox that only pretends to know netlink may not.
        setsockopt(&netlink.socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
        // Before Linux 4.20 the kernel lists the routes of all tables, and ignores the rest.
        let _ = netlink.check_requests_strictly();
        Ok(netlink)
    }

    /// A socket that is told of changes.
    pub fn subscribe() -> io::Result<Self> {
        let group = |number: libc::c_uint| 1 << (number - 1);
        let groups = group(libc::RTNLGRP_LINK)
            | group(libc::RTNLGRP_IPV4_IFADDR)
            | group(libc::RTNLGRP_IPV4_ROUTE);
        let netlink = Self::new(groups, SockFlag::SOCK_NONBLOCK)?;
        if setsockopt(&netlink.socket, sockopt::RcvBufForce, &NEWS_BYTES).is_err() {
            setsockopt(&netlink.socket, sockopt::RcvBuf, &NEWS_BYTES)?;
        }
        netlink.ignore_other_tables()?;
        Ok(netlink)
    }

    fn new(groups: u32, flags: SockFlag) -> io::Result<Self> {
        let flags = flags | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES], sequence_number: 0 })
    }

    fn check_requests_strictly(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the pointer is to a local that outlives the call, with its own size. The kernel
        // reads it during the call only.
        let status = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_GET_STRICT_CHK,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        Errno::result(status)?;
        Ok(())
    }

    /// Makes the kernel keep the news of other tables to itself: a router's change all the time.
    fn ignore_other_tables(&self) -> io::Result<()> {
        let jump_if_equal = |to, jt, jf| {
            socket2::SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ) as u16, jt, jf, to)
        };
        let load_byte = |at| {
            socket2::SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, at)
        };
        let ret = |bytes| socket2::SockFilter::new(libc::BPF_RET as u16, 0, 0, bytes);
        // The low byte of the message's type. All types that are known are below 256.
        let kind = if cfg!(target_endian = "little") { 4 } else { 5 };
        socket2::SockRef::from(&self.socket).attach_filter(&[
            load_byte(kind),
            jump_if_equal(libc::RTM_NEWROUTE.into(), 1, 0),
            jump_if_equal(libc::RTM_DELROUTE.into(), 0, 2),
            load_byte((HEADER_BYTES + ROUTE_TABLE) as u32),
            jump_if_equal(libc::RT_TABLE_LOCAL.into(), 0, 1),
            ret(u32::MAX),
            ret(0),
        ])
    }

    /// Lists what there is.
    pub fn list(&mut self, list: List) -> io::Result<Vec<Message>> {
        for _ in 0..LIST_ATTEMPT_MAX {
            self.request(list)?;
            let mut items = Vec::new();
            if self.take_list(|message| items.push(message))? {
                return Ok(items);
            }
        }
        Err(io::Error::other("the kernel's lists of links and addresses change without a pause"))
    }

    fn request(&mut self, list: List) -> io::Result<()> {
        self.sequence_number += 1;
        let mut request = [0; HEADER_BYTES + LINK_BYTES + 8];
        let (kind, len) = match list {
            List::Links => {
                // Without statistics, which nobody here looks at.
                let attribute = &mut request[HEADER_BYTES + LINK_BYTES..];
                attribute[..2].copy_from_slice(&8u16.to_ne_bytes());
                attribute[2..4].copy_from_slice(&libc::IFLA_EXT_MASK.to_ne_bytes());
                attribute[4..].copy_from_slice(&libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
                (libc::RTM_GETLINK, LINK_BYTES + 8)
            }
            List::Addresses => {
                request[HEADER_BYTES] = libc::AF_INET as u8;
                (libc::RTM_GETADDR, ADDRESS_BYTES)
            }
            List::LocalRoutes => {
                request[HEADER_BYTES] = libc::AF_INET as u8;
                request[HEADER_BYTES + ROUTE_TABLE] = libc::RT_TABLE_LOCAL;
                (libc::RTM_GETROUTE, ROUTE_BYTES)
            }
        };
        let request = &mut request[..HEADER_BYTES + len];
        let mut header = NetlinkBuffer::new(&mut *request);
        header.set_length((HEADER_BYTES + len) as u32);
        header.set_message_type(kind);
        header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
        header.set_sequence_number(self.sequence_number);
        header.set_port_number(0);
        send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes the answer to a request. Returns whether nothing changed meanwhile.
    fn take_list(&mut self, mut each: impl FnMut(Message)) -> io::Result<bool> {
        let mut is_consistent = true;
        loop {
            let len = receive(&self.socket, &mut self.buffer)?;
            for part in parts(&self.buffer[..len]) {
                if part.sequence_number() != self.sequence_number {
                    continue;
                }
                is_consistent &= part.flags() & NLM_F_DUMP_INTR == 0;
                match part.message_type() {
                    NLMSG_DONE => return is_whole(&part).map(|()| is_consistent),
                    NLMSG_ERROR => {
                        let errno = errno(&part).unwrap_or(libc::EBADMSG);
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    _ => {}
                }
                if let Some(message) = parse(&part) {
                    each(message);
                }
            }
        }
    }

    /// Takes the news that have come. Returns whether none was lost.
    pub fn take_news(&mut self, mut each: impl FnMut(Message)) -> io::Result<bool> {
        let mut is_complete = true;
        loop {
            match receive(&self.socket, &mut self.buffer) {
                Ok(len) => {
                    parts(&self.buffer[..len]).filter_map(|part| parse(&part)).for_each(&mut each)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_complete),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // netlink(7): more came than the socket had room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_complete = false,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?)
}

/// The lengths of `struct nlmsghdr` and of the bodies `ifinfomsg`, `ifaddrmsg` and `rtmsg`.
const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const ROUTE_BYTES: usize = 12;
/// Where `struct rtmsg` has the table and the type.
const ROUTE_TABLE: usize = 4;
const ROUTE_TYPE: usize = 7;

/// The messages in a buffer.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let part = NetlinkBuffer::new_checked(bytes).ok()?;
        let (len, all) = (part.length() as usize, bytes);
        bytes = all.get(len.next_multiple_of(4)..).unwrap_or_default();
        NetlinkBuffer::new_checked(&all[..len]).ok()
    })
}

/// The error of a message that ends a list.
fn errno(part: &NetlinkBuffer<&[u8]>) -> Option<i32> {
    Some(-i32::from_ne_bytes(*part.payload().first_chunk()?))
}

/// Whether a list was not broken off.
fn is_whole(done: &NetlinkBuffer<&[u8]>) -> io::Result<()> {
    match errno(done).unwrap_or(0) {
        // ENOENT: there is no such routing table, because no address was ever configured.
        ..=0 | libc::ENOENT => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `None` for what is of no interest here.
fn parse(part: &NetlinkBuffer<&[u8]>) -> Option<Message> {
    let body = part.payload();
    match part.message_type() {
        libc::RTM_NEWLINK => parse_link(body).map(Message::Link),
        libc::RTM_DELLINK => parse_link(body).map(|link| Message::LinkGone(link.index)),
        libc::RTM_NEWADDR => parse_address(body).map(Message::Address),
        libc::RTM_NEWROUTE => parse_route(body).map(Message::Route),
        libc::RTM_DELADDR | libc::RTM_DELROUTE => Some(Message::Gone),
        _ => None,
    }
}

fn parse_link(body: &[u8]) -> Option<Link> {
    // A bridge tells of its ports too, as another family: such a message says nothing of the link.
    let (family, attributes) = split(body, LINK_BYTES)?;
    if i32::from(family) != libc::AF_UNSPEC {
        return None;
    }
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        flags: u32_at(body, 8)?,
        hardware_address: Vec::new(),
    };
    for (kind, value) in attributes {
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_ADDRESS => link.hardware_address = value.to_vec(),
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let (family, attributes) = split(body, ADDRESS_BYTES)?;
    if i32::from(family) != libc::AF_INET {
        return None;
    }
    let (mut local, mut address, mut broadcast) = (None, None, None);
    for (kind, value) in attributes {
        match kind {
            libc::IFA_LOCAL => local = ipv4(value),
            libc::IFA_ADDRESS => address = ipv4(value),
            libc::IFA_BROADCAST => broadcast = ipv4(value),
            _ => {}
        }
    }
    let local = local.or(address)?;
    let address = address.unwrap_or(local);
    let prefix_len = body[1].min(32);
    Some(Address { index: u32_at(body, 4)?, local, address, prefix_len, broadcast })
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let (family, attributes) = split(body, ROUTE_BYTES)?;
    let is_broadcast = body[ROUTE_TYPE] == libc::RTN_BROADCAST;
    let is_ours = body[ROUTE_TABLE] == libc::RT_TABLE_LOCAL
        && (is_broadcast || body[ROUTE_TYPE] == libc::RTN_LOCAL);
    if i32::from(family) != libc::AF_INET || !is_ours {
        return None;
    }
    let (mut destination, mut index) = (Ipv4Addr::UNSPECIFIED, 0);
    for (kind, value) in attributes {
        match kind {
            libc::RTA_DST => destination = ipv4(value)?,
            libc::RTA_OIF => index = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(Route { index, destination, prefix_len: body[1].min(32), is_broadcast })
}

/// The address family of a body, and the attributes behind it, each with its kind.
fn split(body: &[u8], len: usize) -> Option<(u8, impl Iterator<Item = (u16, &[u8])>)> {
    let (fixed, attributes) = body.split_at_checked(len)?;
    let attributes = NlasIterator::new(attributes).map_while(Result::ok);
    Some((fixed[0], attributes.map(kind_and_value)))
}

fn kind_and_value(attribute: NlaBuffer<&[u8]>) -> (u16, &[u8]) {
    let len = usize::from(attribute.length());
    (attribute.kind(), &attribute.into_inner()[4..len])
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(list: List) -> Vec<Message> {
        Netlink::open().unwrap().list(list).unwrap()
    }

    #[test]
    fn the_kernel_lists_lo_with_its_address_and_its_routes() {
        let is_lo = |message: &Message| matches!(message, Message::Link(link) if link.name == "lo");
        let links = list(List::Links);
        let Some(Message::Link(lo)) = links.iter().find(|message| is_lo(message)) else {
            panic!("no lo in {links:?}");
        };
        assert_ne!(lo.flags & libc::IFF_LOOPBACK as u32, 0);
        let (local, index) = (Ipv4Addr::LOCALHOST, lo.index);
        let address = Address { index, local, address: local, prefix_len: 8, broadcast: None };
        assert!(list(List::Addresses).contains(&Message::Address(address)));
        let routes = list(List::LocalRoutes);
        for (destination, prefix_len, is_broadcast) in [
            ([127, 0, 0, 1], 32, false),
            ([127, 0, 0, 0], 8, false),
            ([127, 255, 255, 255], 32, true),
        ] {
            let destination = destination.into();
            let route = Route { index, destination, prefix_len, is_broadcast };
            assert!(routes.contains(&Message::Route(route)), "{route:?} in {routes:?}");
        }
    }

    #[test]
    fn a_bridge_port_that_leaves_its_bridge_is_no_link_that_has_gone() {
        let mut message = vec![0; HEADER_BYTES + LINK_BYTES];
        message[..4].copy_from_slice(&32u32.to_ne_bytes());
        message[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
        message[HEADER_BYTES + 4..][..4].copy_from_slice(&7u32.to_ne_bytes());
        let parsed = |message: &[u8]| -> Vec<Message> {
            parts(message).filter_map(|part| parse(&part)).collect()
        };
        assert_eq!(parsed(&message), [Message::LinkGone(7)]);
        message[HEADER_BYTES] = libc::AF_BRIDGE as u8;
        assert_eq!(parsed(&message), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(
            kind in prop::sample::select(vec![libc::RTM_NEWLINK, libc::RTM_NEWADDR,
                libc::RTM_NEWROUTE, libc::RTM_DELLINK, NLMSG_DONE]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            len: u8,
        ) {
            if bytes.len() >= 6 {
                bytes[..4].copy_from_slice(&u32::from(len).to_ne_bytes());
                bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            }
            parts(&bytes).for_each(|part| drop(parse(&part)));
        }
    }
}
