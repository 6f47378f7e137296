//! An open socket of an engine: its counters, the groups that it has joined, its drops.

use std::{
    fmt, io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use socket2::Socket;

use super::{
    open::{self, OpenSocket, SocketOptions},
    plan::{ALL_NICS, Role, SocketPlan},
    settings::ListenSettings,
    shared_drops::{Asked, Part},
};
use crate::{
    datagram::Class,
    error::{Error, Result},
    lock::lock,
    nics::NicId,
    platform,
    stats::{NicCounters, StatsTable},
    sys::{
        drop_count::DropCount,
        options::{self, PacketInfo},
        process::Opener,
        shard::Shard,
    },
};

/// One socket of an engine: where the engine listens, and for what.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// for socket in engine.handle().sockets() {
///     println!("{socket}"); // lo: 127.0.0.1:41234: unicast
/// }
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketInfo {
    /// The NIC that it listens for; `None` for all of them.
    pub nic: Option<NicId>,
    /// The address and port that it is bound to.
    pub address: SocketAddrV4,
    /// What it hears.
    pub hears: Hears,
    /// Whether it is bound to the NIC's device. Then it hears no other NIC.
    pub is_device_bound: bool,
}

/// What a socket of an engine hears; see [`SocketInfo`].
///
/// ```
/// use nicring::{Class, Hears};
///
/// assert_eq!(Hears::Class(Class::Group).to_string(), "group");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hears {
    /// The datagrams of one class.
    Class(Class),
    /// The datagrams of every class.
    EveryClass,
    /// Nothing: it sends, or it keeps the host in groups.
    Nothing,
}

impl fmt::Display for Hears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => class.fmt(f),
            Self::EveryClass => f.pad("every class"),
            Self::Nothing => f.pad("nothing (sends, or keeps groups)"),
        }
    }
}

impl fmt::Display for SocketInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nic = self.nic.as_ref().map_or_else(|| ALL_NICS.into(), NicId::to_string);
        let device = if self.is_device_bound { ", bound to the device" } else { "" };
        write!(f, "{nic}: {}{device}: {}", self.address, self.hears)
    }
}

/// A socket that could not be opened. What it was to hear on its NIC stays unheard.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// for failed in engine.handle().failed_nics() {
///     eprintln!("not heard: {failed}"); // names the NIC, the cause and the remedy
/// }
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailedNic {
    /// The NIC that the socket was for; `None` for all of them.
    pub nic: Option<NicId>,
    /// The address and port that it was to be bound to.
    pub address: SocketAddrV4,
    /// The cause and the remedy.
    pub error: Arc<Error>,
}

impl FailedNic {
    pub(crate) fn new(nic: Option<NicId>, address: SocketAddrV4, error: Error) -> Self {
        Self { nic, address, error: Arc::new(error) }
    }
}

impl fmt::Display for FailedNic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// What came of [`ListenSocket::follow`]: groups, each with the index of the NIC.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    pub joined: Vec<(Ipv4Addr, u32)>,
    pub left: Vec<(Ipv4Addr, u32)>,
    pub failed: Vec<(Ipv4Addr, Error)>,
}

static OPENED_COUNT: AtomicU32 = AtomicU32::new(0);

/// An open socket of an engine.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    pub socket: Socket,
    #[allow(dead_code, reason = "nothing but on Windows")]
    pub packet_info: PacketInfo,
    pub plan: SocketPlan,
    pub port: u16,
    pub counters: Arc<NicCounters>,
    /// How much it may queue, as the kernel counts bytes; of a socket that hears.
    pub recv_buffer_bytes: usize,
    /// No other socket of this process has this number.
    pub number: u32,
    /// The groups that it has joined by now, each with the index of the NIC.
    joins: Mutex<Vec<(Ipv4Addr, u32)>>,
    drops: DropCount,
    /// If other shards hear the rest of what it hears.
    part: Option<Part>,
    /// Whether the kernel drops what the engine's filter does not keep.
    pub has_filter: bool,
    opener: Opener,
}

impl ListenSocket {
    /// Opens a socket for an engine; see [`open::open`]. It has joined no group yet.
    pub fn open(
        plan: &SocketPlan,
        port: u16,
        settings: &ListenSettings,
        stats: &StatsTable,
        beside: &[&Socket],
    ) -> Result<Self> {
        let filter = settings.filter.as_deref();
        let is_part = settings.shard != Shard::ONLY;
        let has_part = plan.is_broadcast() && (is_part || filter.is_some());
        let sends_to_groups = |multicast_loop| (settings.multicast_ttl, multicast_loop);
        let multicast = match plan.role {
            Role::Send { multicast_loop } => Some(sends_to_groups(multicast_loop)),
            _ if platform::HAS_SENDERS => None,
            _ => Some(sends_to_groups(settings.multicast_loop)),
        };
        let with = SocketOptions {
            is_shared: !settings.is_exclusive(port),
            // Where only the sockets that hear can send, only the guard of what is queued keeps
            // answers from broadcast addresses.
            may_broadcast: multicast.is_some(),
            recv_buffer_bytes: plan.hears().then_some(settings.recv_buffer_bytes),
            send_buffer_bytes: plan.sends().then_some(settings.send_buffer_bytes),
            requested: settings.requested,
            part: has_part.then_some((filter, settings.shard)),
            multicast,
            wants_drop_counts: false,
        };
        let counters = match &plan.nic {
            Some(nic) => stats.nic(nic.index, &nic.name),
            None => stats.unattributed(),
        };
        let open = open::open(plan, port, &with, beside)?;
        let nic = plan.nic.as_ref().map(|nic| (nic.index, nic.predecessor_count));
        let key = (SocketAddrV4::new(plan.address, open.port), nic);
        let mut socket = Self::new(open, plan.clone(), counters);
        if socket.has_filter {
            // Most of its drops are what the filter does not keep, and nobody knows which.
            socket.counters.hides_drops.store(true, Relaxed);
        } else if has_part && is_part {
            let drops = &settings.shared_drops;
            socket.part = Some(drops.join(key, settings.shard, &socket.counters));
        }
        Ok(socket)
    }

    /// The socket for all who need it.
    pub fn shared(self) -> Arc<Self> {
        let socket = Arc::new(self);
        if let Some(part) = &socket.part {
            let asked: Arc<dyn Asked> = Arc::clone(&socket) as _;
            part.opened(Arc::downgrade(&asked));
        }
        socket
    }

    pub(super) fn new(open: OpenSocket, plan: SocketPlan, counters: Arc<NicCounters>) -> Self {
        let granted = |socket: &Socket| socket.recv_buffer_size().unwrap_or(0);
        Self {
            recv_buffer_bytes: if plan.hears() { granted(&open.socket) } else { 0 },
            socket: open.socket,
            packet_info: open.packet_info,
            port: open.port,
            counters,
            number: OPENED_COUNT.fetch_add(1, Relaxed),
            joins: Mutex::default(),
            plan,
            drops: DropCount::default(),
            part: None,
            has_filter: open.has_filter,
            opener: Opener::this(),
        }
    }

    /// Joins and leaves groups until it has joined exactly `joins`. Loses no datagram meanwhile.
    pub fn follow(&self, joins: &[(Ipv4Addr, u32)]) -> Followed {
        let mut joined = lock(&self.joins);
        if let Some(part) = self.part.as_ref().filter(|_| *joined != joins) {
            part.changes(!joins.is_empty());
        }
        let mut followed = Followed::default();
        joined.retain(|join| {
            let stays = joins.contains(join);
            if !stays {
                followed.left.push(*join);
                // If the NIC is gone, the membership is gone with it, and leaving fails.
                let nic = options::membership(join.1, self.plan.address);
                let _ = self.socket.leave_multicast_v4_n(&join.0, &nic);
            }
            stays
        });
        for &join in joins {
            if joined.contains(&join) {
                continue;
            }
            match open::join_group(&self.socket, join, self.plan.address) {
                Ok(()) => {
                    joined.push(join);
                    followed.joined.push(join);
                }
                Err(source) => {
                    let error = self.failed("joining the group of", source);
                    followed.failed.push((join.0, error));
                }
            }
        }
        followed
    }

    /// The error for an operation on this socket that failed.
    pub fn failed(&self, operation: &'static str, source: io::Error) -> Error {
        let address = SocketAddrV4::new(self.plan.address, self.port);
        Error::Socket { operation, nic: self.plan.nic_name(), address, source }
    }

    /// Notes the kernel's cumulative drop count of this socket, as told by a control message or by
    /// `SO_MEMINFO`.
    pub fn note_drop_count(&self, drop_count: u32) {
        let added_count = self.drops.note(drop_count);
        if added_count == 0 || self.has_filter {
            return;
        }
        if let Some(part) = &self.part {
            // Most were dropped by the filter.
            part.note_dropped(added_count);
        } else {
            self.counters.kernel_drop_count.fetch_add(u64::from(added_count), Relaxed);
        }
    }

    /// Counts a datagram that it received, if others hear the rest.
    #[inline]
    pub fn note_received(&self) {
        if let Some(part) = &self.part {
            part.note_received(1);
        }
    }

    /// Asks the kernel for drops that no datagram has told of yet.
    pub fn refresh_drop_count(&self) {
        if let Some((drop_count, has_queued)) = options::kernel_drops(&self.socket) {
            self.note_drop_count(drop_count);
            if let Some(part) = &self.part {
                part.note_queued(has_queued);
            }
        }
    }

    /// What the user sees of it, by a plan with its key.
    pub fn info_as(&self, plan: &SocketPlan) -> SocketInfo {
        SocketInfo {
            nic: plan.nic.clone(),
            address: SocketAddrV4::new(plan.address, self.port),
            hears: match plan.role {
                Role::Hear(class) => Hears::Class(class),
                Role::HearRest => Hears::Class(Class::Unicast),
                Role::HearAll | Role::Unjudged => Hears::EveryClass,
                Role::Send { .. } | Role::Reply | Role::Spare(_) | Role::Join => Hears::Nothing,
            },
            is_device_bound: plan.is_device_bound,
        }
    }
}

impl Asked for ListenSocket {
    fn refresh_drop_count(&self) {
        Self::refresh_drop_count(self);
    }
}

/// How many datagrams a socket may have queued: as many as fit the largest receive buffer.
const QUEUED_COUNT_MAX: u64 = 1 << 20;

/// Counts what nobody will receive any more.
impl Drop for ListenSocket {
    fn drop(&mut self) {
        // An adopted socket lives on with its owner, and that of a forked child with its parent.
        let is_last = self.plan.role != Role::Unjudged && self.opener.is_this();
        if !self.plan.hears() || !is_last {
            return;
        }
        if let Some(part) = &self.part {
            // By its part it cannot be asked any more.
            self.refresh_drop_count();
            part.changes(false);
        }
        let mut left_count = 0;
        let mut byte = [MaybeUninit::uninit(); 1];
        while left_count < QUEUED_COUNT_MAX {
            match self.socket.recv(&mut byte) {
                Ok(_) => left_count += 1,
                Err(error) if platform::is_longer_than_the_buffer(&error) => left_count += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.counters.left_count.fetch_add(left_count, Relaxed);
        if let Some(part) = &self.part {
            part.note_received(left_count);
            part.note_queued(false);
        }
    }
}

impl fmt::Display for ListenSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info_as(&self.plan).fmt(f)
    }
}
