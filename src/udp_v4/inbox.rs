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
    time::SystemTime,
};

use tokio::{io::Interest, net::UdpSocket, task::coop};

use super::{
    RecvDetails, RecvMeta,
    platform::{self, Scratch},
    ready::Ready,
    ring::Hub,
};
use crate::{admit::Message, drops::DropCount, meta::Class};

/// After so many errors in a row a socket is left alone until it is ready anew.
const ERROR_COUNT_MAX: u32 = 8;
/// The queue gives memory beyond this back as soon as it is empty.
const KEPT_BYTES: usize = 64 << 10;
const KEPT_COUNT: usize = KEPT_BYTES / size_of::<Queued>();
/// From so many bytes on, payloads and what is told of them, the ring receives nothing more for the
/// bundle, until three quarters of them have been taken.
const QUEUE_BYTES_MAX: usize = 1 << 20;
const QUEUE_BYTES_LOW: usize = QUEUE_BYTES_MAX / 4;

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

/// Who moves datagrams from the sockets to the inbox.
#[derive(Debug, Default)]
pub(super) enum Via {
    /// The tasks that receive, from sockets that are ready.
    #[default]
    Tasks,
    /// The ring, from the first receive on.
    RingToCome,
    /// The thread of the ring.
    Ring(Arc<Hub>),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub via: Via,
    /// Whether the queue was full, so that the ring lets the sockets be.
    pub is_paused: bool,
    /// Whether anybody has received; then it is too late to choose how.
    pub is_in_use: bool,
    entries: Vec<Entry>,
    homes: Vec<Home>,
    /// For each NIC, by its index and where that is unknown by its address, the drops so far.
    nic_drop_counts: Vec<((u32, Ipv4Addr), u64)>,
    queue: VecDeque<Queued>,
    /// Those of `queue`, one after the other.
    payloads: VecDeque<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    details: RecvDetails,
    len: usize,
}

impl Inbox {
    pub fn new(homes: Vec<Home>) -> Self {
        Self { homes, ..Self::default() }
    }

    /// Adds a socket; read by tasks it counts as ready until it has been tried.
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
        if !self.is_read_by_ring() {
            ready.push_and_wake(socket);
        }
    }

    pub fn is_read_by_ring(&self) -> bool {
        matches!(self.via, Via::Ring(_))
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How long the oldest datagram is.
    pub fn next_len(&self) -> Option<usize> {
        self.queue.front().map(|queued| queued.len)
    }

    /// Moves the oldest datagram into `buf`, as far as it fits.
    pub fn take(&mut self, buf: &mut [u8]) -> Option<RecvDetails> {
        let Queued { mut details, len } = self.queue.pop_front()?;
        let copied_len = len.min(buf.len());
        let (first, second) = self.payloads.as_slices();
        let from_first_len = copied_len.min(first.len());
        let (start, end) = buf[..copied_len].split_at_mut(from_first_len);
        start.copy_from_slice(&first[..from_first_len]);
        end.copy_from_slice(&second[..end.len()]);
        self.payloads.drain(..len);
        details.meta.n = copied_len;
        details.is_truncated |= copied_len < len;
        if self.queue.is_empty() {
            // So that the next payloads lie in one piece.
            self.payloads.clear();
            self.payloads.shrink_to(KEPT_BYTES);
            self.queue.shrink_to(KEPT_COUNT);
        }
        Some(details)
    }

    fn queue_bytes(&self) -> usize {
        self.payloads.len() + self.queue.len() * size_of::<Queued>()
    }

    /// The ring to go on with, if it was told to pause and there is room again.
    pub fn resume(&mut self) -> Option<&Arc<Hub>> {
        if !self.is_paused || self.queue_bytes() > QUEUE_BYTES_LOW {
            return None;
        }
        self.is_paused = false;
        match &self.via {
            Via::Ring(hub) => Some(hub),
            Via::Tasks | Via::RingToCome => None,
        }
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
            let count = received.as_ref().map_or(0, |received| received.0);
            if matches!(received, Ok((_, true))) {
                // A long queue.
                self.ask_for_drops(socket);
            }
            for index in 0..count {
                let (message, payload) = scratch.message(index);
                self.keep(socket, &message, payload);
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

    /// Keeps a datagram of a socket.
    pub fn keep(&mut self, socket: usize, message: &Message, payload: &[u8]) {
        let entry = &self.entries[socket];
        let nic_drop_count = &mut self.nic_drop_counts[entry.nic].1;
        *nic_drop_count += u64::from(entry.drops.note(message.drop_count));
        let details = RecvDetails {
            meta: meta(entry, &self.homes, message),
            class: entry.class,
            is_truncated: message.is_truncated,
            drop_count: *nic_drop_count,
            kernel_time: message.kernel_time.map(|since| SystemTime::UNIX_EPOCH + since),
        };
        self.payloads.extend(payload);
        self.queue.push_back(Queued { details, len: payload.len() });
    }

    /// Asks a socket for its drops. A datagram tells those before it came into the queue: where
    /// the queue was long, the last ones hide some.
    pub fn ask_for_drops(&mut self, socket: usize) {
        let entry = &self.entries[socket];
        if let Some(drop_count) = platform::drop_count(&entry.sock) {
            self.nic_drop_counts[entry.nic].1 += u64::from(entry.drops.note(drop_count));
        }
    }
}

/// For the ring.
#[allow(dead_code, reason = "only Linux has it")]
impl Inbox {
    /// Lets the tasks receive; the caller wakes them.
    pub fn read_by_tasks(&mut self, ready: &Ready) {
        (self.via, self.is_paused) = (Via::Tasks, false);
        (0..self.entries.len()).for_each(|socket| ready.push(socket));
    }

    /// How many sockets there are.
    pub fn socket_count(&self) -> usize {
        self.entries.len()
    }

    /// A socket, and the class that it hears.
    pub fn socket(&self, socket: usize) -> (&UdpSocket, Option<Class>) {
        let entry = &self.entries[socket];
        (&entry.sock, entry.class)
    }

    /// The queue is full: notes it, and says so.
    pub fn pause_if_full(&mut self) -> bool {
        self.is_paused |= self.queue_bytes() >= QUEUE_BYTES_MAX;
        self.is_paused
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
