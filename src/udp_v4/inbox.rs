//! What has been received and not yet been taken, and how it comes in.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{io::Interest, net::UdpSocket, task::coop};

use super::{
    RecvDetails, RecvMeta,
    platform::{self, Scratch},
    ready::Ready,
};
use crate::{admit::Message, drops::DropCount, meta::Class};

/// After so many errors in a row a socket is left alone until it is ready anew.
const ERROR_COUNT_MAX: u32 = 8;
/// The queue gives memory beyond this back as soon as it is empty.
const KEPT_BYTES: usize = 64 << 10;

thread_local! {
    /// Where the kernel writes to: one for the bundles of a thread, because dozens of bundles with
    /// whole datagrams' room each would hold too much.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// An address at which the bundle hears unicast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub iface_ip: Ipv4Addr,
    pub netmask: Ipv4Addr,
    pub broadcast: Option<Ipv4Addr>,
    pub ifindex: u32,
}

/// A socket that is received from.
#[derive(Debug)]
pub(super) struct Entry {
    sock: Arc<UdpSocket>,
    bound: Ipv4Addr,
    iface_ip: Ipv4Addr,
    ifindex: u32,
    /// `None` for a socket that hears several.
    class: Option<Class>,
    drops: DropCount,
    /// Position in `nic_drop_counts`.
    nic: usize,
    waker: Waker,
    error_count: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    entries: Vec<Entry>,
    homes: Vec<Home>,
    /// For each NIC, by its index and where that is unknown by its address, the drops so far.
    nic_drop_counts: Vec<((u32, Ipv4Addr), u64)>,
    queue: VecDeque<Queued>,
    payloads: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    details: RecvDetails,
    start: usize,
    len: usize,
}

impl Inbox {
    pub fn new(homes: Vec<Home>) -> Self {
        Self { homes, ..Self::default() }
    }

    /// Adds a socket; it counts as ready until it has been tried.
    pub fn add(
        &mut self,
        sock: Arc<UdpSocket>,
        bound: Ipv4Addr,
        (iface_ip, ifindex): (Ipv4Addr, u32),
        class: Option<Class>,
        ready: &Arc<Ready>,
    ) {
        let key = (ifindex, if ifindex == 0 { iface_ip } else { Ipv4Addr::UNSPECIFIED });
        let known = self.nic_drop_counts.iter().position(|counted| counted.0 == key);
        let nic = known.unwrap_or_else(|| {
            self.nic_drop_counts.push((key, 0));
            self.nic_drop_counts.len() - 1
        });
        let socket = self.entries.len();
        self.entries.push(Entry {
            sock,
            bound,
            iface_ip,
            ifindex,
            class,
            drops: DropCount::default(),
            nic,
            waker: ready.waker(socket),
            error_count: 0,
        });
        ready.push_and_wake(socket);
    }

    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Moves the oldest datagram into `buf`, as far as it fits.
    pub fn take(&mut self, buf: &mut [u8]) -> Option<RecvDetails> {
        let Queued { mut details, start, len } = self.queue.pop_front()?;
        let copied_len = len.min(buf.len());
        buf[..copied_len].copy_from_slice(&self.payloads[start..start + copied_len]);
        details.meta.n = copied_len;
        details.is_truncated |= copied_len < len;
        if self.queue.is_empty() {
            self.payloads.clear();
            self.payloads.shrink_to(KEPT_BYTES);
        }
        Some(details)
    }

    /// Receives a bounded number of datagrams from a ready socket, and sees to it that the socket
    /// is ready again or wakes.
    ///
    /// # Errors
    ///
    /// Only that the runtime which the socket belongs to is gone. What is wrong with one NIC must
    /// neither fail nor stall the others.
    pub fn receive(&mut self, socket: usize, ready: &Ready) -> io::Result<()> {
        let received = SCRATCH.with_borrow_mut(|scratch| {
            let received = scratch.receive(&self.entries[socket].sock);
            if let Ok((count, _)) = received {
                self.keep(socket, scratch, count);
            }
            received
        });
        let entry = &mut self.entries[socket];
        let may_have_more = match received {
            Ok((_, may_have_more)) => {
                entry.error_count = 0;
                may_have_more
            }
            Err(error) => {
                tracing::debug!(%error, iface_ip = %entry.iface_ip, "receiving");
                entry.error_count += 1;
                entry.error_count < ERROR_COUNT_MAX
            }
        };
        if may_have_more {
            ready.push(socket);
            return Ok(());
        }
        if entry.error_count >= ERROR_COUNT_MAX {
            entry.error_count = 0;
            // Tells tokio to wait for the next event, whatever the socket says now.
            let would_block = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
            let _ = entry.sock.try_io(Interest::READABLE, would_block);
        }
        // The task pays for datagrams; refused here, the socket would be tried again for nothing.
        let register = poll_fn(|cx| entry.sock.poll_recv_ready(cx));
        let register = pin!(coop::unconstrained(register));
        match register.poll(&mut Context::from_waker(&entry.waker)) {
            Poll::Pending => Ok(()),
            Poll::Ready(result) => {
                ready.push(socket);
                result
            }
        }
    }

    fn keep(&mut self, socket: usize, scratch: &Scratch, count: usize) {
        let entry = &self.entries[socket];
        let nic_drop_count = &mut self.nic_drop_counts[entry.nic].1;
        if count == platform::COUNT_MAX {
            // The queue was long. What the last datagrams hide, the socket tells at once.
            if let Some(drop_count) = platform::drop_count(&entry.sock) {
                *nic_drop_count += u64::from(entry.drops.note(drop_count));
            }
        }
        for index in 0..count {
            let (message, payload) = scratch.message(index);
            *nic_drop_count += u64::from(entry.drops.note(message.drop_count));
            let details = RecvDetails {
                meta: meta(entry, &self.homes, &message),
                class: entry.class,
                is_truncated: message.is_truncated,
                drop_count: *nic_drop_count,
            };
            let start = self.payloads.len();
            self.payloads.extend_from_slice(payload);
            self.queue.push_back(Queued { details, start, len: payload.len() });
        }
    }
}

fn meta(entry: &Entry, homes: &[Home], message: &Message) -> RecvMeta {
    let told = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
    let ifindex = if message.ifindex == 0 { entry.ifindex } else { message.ifindex };
    let dst_ip = told(message.destination).or_else(|| entry.class.and_then(|_| told(entry.bound)));
    let iface_ip = match entry.class {
        None | Some(Class::Unicast) => entry.iface_ip,
        Some(_) => home(homes, ifindex, *message.source.ip(), dst_ip).unwrap_or(entry.iface_ip),
    };
    RecvMeta {
        n: 0,
        src: SocketAddr::V4(message.source),
        dst_ip,
        ifindex: (ifindex != 0).then_some(ifindex),
        iface_ip,
    }
}

/// The address of a NIC from which to answer what came as a broadcast or to a group: in the
/// sender's subnet, else the one whose broadcast was addressed, else the first.
fn home(
    homes: &[Home],
    ifindex: u32,
    source: Ipv4Addr,
    destination: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let of_nic = || homes.iter().filter(move |home| home.ifindex == ifindex);
    super::longest_prefix(of_nic(), source, |home| (home.iface_ip, home.netmask))
        .or_else(|| of_nic().find(|home| destination.is_some() && home.broadcast == destination))
        .or_else(|| of_nic().next())
        .map(|home| home.iface_ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_told_of_the_address_that_can_answer_it() {
        let row = |address: [u8; 4], prefix_len: u32, ifindex| {
            let netmask = Ipv4Addr::from_bits(u32::MAX << (32 - prefix_len));
            let own = crate::NicAddress::new(address.into(), netmask);
            Home { iface_ip: own.address, netmask, broadcast: own.broadcast, ifindex }
        };
        let homes =
            [row([10, 1, 0, 1], 24, 2), row([10, 2, 0, 1], 24, 2), row([10, 1, 0, 2], 24, 3)];
        let told = |ifindex, source: [u8; 4], destination: [u8; 4]| {
            home(&homes, ifindex, source.into(), Some(destination.into())).map(|ip| ip.octets())
        };
        assert_eq!(told(2, [10, 2, 0, 9], [255; 4]), Some([10, 2, 0, 1]));
        assert_eq!(told(2, [172, 16, 0, 9], [10, 2, 0, 255]), Some([10, 2, 0, 1]));
        assert_eq!(told(2, [172, 16, 0, 9], [255; 4]), Some([10, 1, 0, 1]));
        assert_eq!(told(3, [10, 1, 0, 9], [255; 4]), Some([10, 1, 0, 2]));
        assert_eq!(told(4, [10, 1, 0, 9], [255; 4]), None);
    }
}
