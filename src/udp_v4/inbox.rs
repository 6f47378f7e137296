//! The datagrams that were received and not yet taken, and how a task receives them.

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

use socket2::SockRef;
use tokio::{io::Interest, net::UdpSocket, task::coop};

use super::{RecvDetails, RecvMeta, ready::Ready, scratch::Scratch};
use crate::{
    datagram::{Arrival, Class},
    nics::{Nic, Nics},
    path::ERROR_COUNT_MAX,
    sys::{
        drop_count::DropCount,
        options::{self, PacketInfo},
    },
};

/// When the queue becomes empty, it frees the memory beyond this.
const KEPT_BYTES: usize = 64 << 10;
const KEPT_COUNT: usize = KEPT_BYTES / size_of::<Kept>();
/// When a bundle holds this many bytes of payloads and metadata, the ring stops receiving for it
/// until three quarters of them have been taken.
const QUEUE_BYTES_MAX: usize = 1 << 20;
const QUEUE_BYTES_LOW: usize = QUEUE_BYTES_MAX / 4;

thread_local! {
    /// The memory that the kernel writes to. All bundles of a thread share it: with dozens of
    /// bundles, one each would take too much memory.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A socket of the bundle.
#[derive(Debug)]
struct BundleSocket {
    sock: Arc<UdpSocket>,
    packet_info: PacketInfo,
    bound: Ipv4Addr,
    iface_ip: Ipv4Addr,
    ifindex: u32,
    /// `None` for a socket that hears several classes.
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
    entries: Vec<BundleSocket>,
    /// The addresses at which the bundle hears unicast.
    own: Nics,
    /// The drops so far, per NIC. The key is the NIC's index, or its address where that is unknown.
    nic_drop_counts: Vec<((u32, Ipv4Addr), u64)>,
    queue: VecDeque<Kept>,
    /// The payloads of `queue`, one after the other.
    payloads: VecDeque<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    details: RecvDetails,
    len: usize,
}

impl Inbox {
    /// `own` are the addresses at which the bundle hears unicast.
    pub fn new(own: Nics) -> Self {
        Self { own, ..Self::default() }
    }

    /// Adds a socket and returns its number.
    pub fn add(
        &mut self,
        (sock, packet_info): (Arc<UdpSocket>, PacketInfo),
        bound: Ipv4Addr,
        (iface_ip, ifindex): (Ipv4Addr, u32),
        class: Option<Class>,
        ready: &Arc<Ready>,
    ) -> usize {
        let key = (ifindex, if ifindex == 0 { iface_ip } else { Ipv4Addr::UNSPECIFIED });
        let known = self.nic_drop_counts.iter().position(|counted| counted.0 == key);
        let nic = known.unwrap_or_else(|| {
            self.nic_drop_counts.push((key, 0));
            self.nic_drop_counts.len() - 1
        });
        let socket = self.entries.len();
        self.entries.push(BundleSocket {
            sock,
            packet_info,
            bound,
            iface_ip,
            ifindex,
            class,
            drops: DropCount::default(),
            nic,
            waker: ready.waker(socket),
            error_count: 0,
        });
        socket
    }

    /// How many sockets there are.
    pub fn socket_count(&self) -> usize {
        self.entries.len()
    }

    /// Drops all sockets and all datagrams.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The length of the oldest payload, in bytes.
    pub fn next_len(&self) -> Option<usize> {
        self.queue.front().map(|queued| queued.len)
    }

    /// Moves the oldest datagram into `buf`, as far as it fits.
    pub fn take(&mut self, buf: &mut [u8]) -> Option<RecvDetails> {
        let Kept { mut details, len } = self.queue.pop_front()?;
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
            // The next payloads then lie in one piece.
            self.payloads.clear();
            self.payloads.shrink_to(KEPT_BYTES);
            self.queue.shrink_to(KEPT_COUNT);
        }
        Some(details)
    }

    fn queue_bytes(&self) -> usize {
        self.payloads.len() + self.queue.len() * size_of::<Kept>()
    }

    /// Whether a paused feeder may go on.
    pub fn has_room(&self) -> bool {
        self.queue_bytes() <= QUEUE_BYTES_LOW
    }

    /// Receives a bounded number of datagrams from a ready socket. Afterwards the socket is in
    /// `ready` again, or its waker waits for the next event.
    ///
    /// # Errors
    ///
    /// Only if the runtime that the socket belongs to is gone. Trouble with one NIC must neither
    /// fail nor stall the others.
    pub fn receive(&mut self, socket: usize, ready: &Ready) -> io::Result<()> {
        let received = SCRATCH.with_borrow_mut(|scratch| {
            let entry = &self.entries[socket];
            let received = scratch.receive(&entry.sock, &entry.packet_info);
            let count = received.as_ref().map_or(0, |received| received.0);
            if matches!(received, Ok((_, true))) {
                // The queue was long.
                self.ask_for_drops(socket);
            }
            for index in 0..count {
                let (arrival, payload) = scratch.datagram(index);
                self.keep(socket, &arrival, payload);
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
            // Makes tokio wait for the next event, whatever the socket's state is now.
            let would_block = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
            let _ = entry.sock.try_io(Interest::READABLE, would_block);
        }
        // No coop budget here: `Receive::poll` pays it per datagram. If tokio refused here, the
        // socket would be tried again for nothing.
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

    /// Puts a datagram of a socket into the queue.
    pub fn keep(&mut self, socket: usize, arrival: &Arrival, payload: &[u8]) {
        let entry = &self.entries[socket];
        let nic_drop_count = &mut self.nic_drop_counts[entry.nic].1;
        *nic_drop_count += u64::from(entry.drops.note(arrival.drop_count));
        let details = RecvDetails {
            meta: meta(entry, &self.own, arrival),
            class: entry.class,
            is_truncated: arrival.is_truncated,
            drop_count: *nic_drop_count,
            kernel_time: arrival
                .kernel_time
                .map(|time| SystemTime::UNIX_EPOCH + time.since_epoch()),
        };
        self.payloads.extend(payload);
        self.queue.push_back(Kept { details, len: payload.len() });
    }

    /// Asks the kernel for the drops of a socket. A datagram reports only the drops before it
    /// entered the socket's queue. If that queue was long, it can have dropped more since.
    pub fn ask_for_drops(&mut self, socket: usize) {
        let entry = &self.entries[socket];
        if let Some(drop_count) = options::kernel_drop_count(&SockRef::from(&*entry.sock)) {
            self.nic_drop_counts[entry.nic].1 += u64::from(entry.drops.note(drop_count));
        }
    }
}

/// Used by the ring.
#[allow(dead_code, reason = "only Linux has it")]
impl Inbox {
    pub fn socket(&self, socket: usize) -> &UdpSocket {
        &self.entries[socket].sock
    }

    /// Whether the feeder has to pause.
    pub fn is_full(&self) -> bool {
        self.queue_bytes() >= QUEUE_BYTES_MAX
    }
}

fn meta(entry: &BundleSocket, own: &Nics, arrival: &Arrival) -> RecvMeta {
    let told = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
    let ifindex = if arrival.ifindex == 0 { entry.ifindex } else { arrival.ifindex };
    let dst_ip = told(arrival.destination).or_else(|| entry.class.and_then(|_| told(entry.bound)));
    let asked = dst_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let iface_ip = match entry.class {
        None | Some(Class::Unicast) => entry.iface_ip,
        Some(_) => {
            let source = |nic: &Nic| nic.source_for(*arrival.source.ip(), asked);
            own.by_index(ifindex).and_then(source).unwrap_or(entry.iface_ip)
        }
    };
    RecvMeta {
        n: 0,
        src: SocketAddr::V4(arrival.source),
        dst_ip,
        ifindex: (ifindex != 0).then_some(ifindex),
        iface_ip,
    }
}
