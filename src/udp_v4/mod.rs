//! `AsyncUdpV4` and its types: the public API of the module `net` of `epics-base-rs` 0.18.3.
//! Programs written for that module run on nicring's sockets.
//!
//! To replace the module in a copy of that crate, let its files re-export these types: `pub use
//! nicring::udp_v4::{AsyncUdpV4, NicSocket, RecvMeta, ...};`. This module was written from scratch
//! against the signatures of that crate.
//!
//! # What listens
//!
//! Each address of each NIC that is up has one socket for unicast. Each NIC also has sockets that
//! are bound to its device: one per subnet broadcast (on loopback 127.255.255.255), one for
//! 255.255.255.255, and one per joined group. Where sockets cannot be bound to devices, one socket
//! per class hears for all NICs. On Windows, the sockets for unicast hear everything.
//! [`NicSocket::rx_only_bcast`] marks the sockets from which nothing is sent.
//!
//! A socket bound to an address receives all unicast to that address. Programs bound to 0.0.0.0 at
//! the same port then receive none of it.
//!
//! # How it receives
//!
//! Each receive takes a datagram from a queue of the bundle. Dropping a receive future and making
//! it again needs no system call and no allocation, and takes about 80 ns, however many sockets
//! there are. Payloads of up to 65,507 bytes are received whole. [`AsyncUdpV4::with_backend`] or
//! the environment variable `NICRING_BACKEND` chooses what fills the queue:
//!
//! - **Readiness** ([`Backend::Portable`](crate::Backend::Portable), the default). Ready sockets
//!   take turns. The receiving task takes up to 16 datagrams per system call from each (`recvmmsg`;
//!   one datagram per system call on systems other than Linux). A bundle holds at most 1 MiB. Each
//!   thread that receives has 1 MiB to receive into; only the part that datagrams have filled takes
//!   memory.
//! - **io_uring** ([`Backend::IoUring`](crate::Backend::IoUring), Linux). One thread and one ring
//!   serve all bundles of the process, each from its first receive on. The thread ends one second
//!   after the last bundle. Receiving needs no tokio runtime. Datagrams come in the order of their
//!   arrival. When a bundle holds 1 MiB, the ring stops receiving for it: further datagrams wait in
//!   the sockets until three quarters of the 1 MiB have been taken. Before that takes effect, up to
//!   8 MiB of 65,507-byte payloads may come at once. The ring has 4 MiB of buffers; only the part
//!   that datagrams have filled takes memory. Where io_uring is refused or fails, bundles go on by
//!   readiness, and a warning says why.
//!
//! Readiness is the default because it takes half to two thirds of the ring's CPU time at full
//! speed (0.43 to 0.69 in `compare` with 4 and 16 NICs on two processors, Linux 6.18). At low rates
//! it takes no more than the ring. With the ring, a datagram passes from one thread to another, and
//! it also wakes tokio's thread, which watches the same sockets. Nothing that was measured is
//! faster by the ring ([the tables](crate::guide::measured#asyncudpv4-readiness-or-the-ring)).
//!
//! Code that reads a [`NicSocket::sock`] directly competes with the bundle once the bundle has
//! received. With io_uring, use it only for sending and options from then on.
//!
//! # The methods, and what differs from `epics-base-rs` 0.18.3
//!
//! All methods work on Linux, macOS, the BSDs and Windows. The table names what only one system
//! has.
//!
//! | method | what it does | what differs |
//! |---|---|---|
//! | [`bind`](AsyncUdpV4::bind) | a port on every NIC that is up | hears 255.255.255.255 and 127.255.255.255; one socket per address and device, so an alias does not double datagrams; a NIC that fails is logged as a warning and returned by [`failed_nics`](AsyncUdpV4::failed_nics); a failed enumeration is an error; port 0 opens no sockets for broadcasts, because nobody could know their port, and is shared with nobody |
//! | [`bind_non_loopback`](AsyncUdpV4::bind_non_loopback) | the same without loopback | by the interface's flag, not by its address |
//! | [`bind_with_map`](AsyncUdpV4::bind_with_map) | the same on a snapshot's NICs | NICs that are down are left out |
//! | [`bind_ephemeral_same_port`](AsyncUdpV4::bind_ephemeral_same_port), [`.._with_map`](AsyncUdpV4::bind_ephemeral_same_port_with_map) | one unused port on every NIC | hears broadcasts; never takes a port that another program holds: the whole bundle is tried again on another port |
//! | [`bind_single`](AsyncUdpV4::bind_single) | one address, unicast only | port 0 is shared with nobody |
//! | [`ifaces`](AsyncUdpV4::ifaces) | the sockets | more of them with `rx_only_bcast`; fixed at binding, as before |
//! | [`local_addrs`](AsyncUdpV4::local_addrs) | where unicast is heard | broadcast addresses are left out |
//! | [`send_to`](AsyncUdpV4::send_to) | sends by [`pick_nic`](AsyncUdpV4::pick_nic) | `AddrNotAvailable` if the NIC has lost its address |
//! | [`send_via`](AsyncUdpV4::send_via), [`send_via_ifindex`](AsyncUdpV4::send_via_ifindex) | sends from an address, from a NIC | the same |
//! | [`fanout_to`](AsyncUdpV4::fanout_to) | sends from every NIC | once per NIC, not once per address; no NIC waits for another |
//! | [`pick_nic`](AsyncUdpV4::pick_nic) | the NIC for a destination | the longest prefix, then the system's route, instead of the first match and the first NIC |
//! | [`recv_with_meta`](AsyncUdpV4::recv_with_meta), [`recv_from`](AsyncUdpV4::recv_from) | one datagram of any NIC | NICs take turns; an error of one NIC does not fail a receive; `dst_ip` and `ifindex` are the kernel's |
//! | [`recv_with_meta_with_drops`](AsyncUdpV4::recv_with_meta_with_drops) | the same with the drops (Linux) | one count per NIC over all its sockets; it never decreases |
//! | [`recv_from_with_drop_count`](AsyncUdpV4::recv_from_with_drop_count) | the same, shorter | from every NIC, not only from the first socket |
//! | [`set_recv_buffer_size`](AsyncUdpV4::set_recv_buffer_size) | room for bursts | beyond the system's limit where allowed; a warning where the system gave less; see [`recv_buffer_sizes`](AsyncUdpV4::recv_buffer_sizes) |
//! | [`set_multicast_ttl_v4`](AsyncUdpV4::set_multicast_ttl_v4) | how far groups reach | |
//! | [`enable_so_rxq_ovfl`](AsyncUdpV4::enable_so_rxq_ovfl) | asks for drop counts (Linux) | an error if every socket refused; the bundle counts without it too |
//! | [`join_multicast_v4`](AsyncUdpV4::join_multicast_v4) | joins a group on every NIC | the group is really heard; joining twice is no error |
//! | [`enable_so_rxq_ovfl_for_socket`], [`recv_from_with_drop_count_socket`] | the same for a caller's socket (Linux) | |
//! | [`bind_loopback_mcast`] | the group 224.0.0.128 on loopback | port 0 never takes a port that other programs share |
//! | [`IfaceMap::new`], [`refresh`](IfaceMap::refresh), [`refresh_if_stale`](IfaceMap::refresh_if_stale) | the interfaces | a failure leaves 127.0.0.1, or the old snapshot, instead of nothing; [`try_new`](IfaceMap::try_new) and [`try_refresh`](IfaceMap::try_refresh) return it |
//! | [`spawn_refresh`](IfaceMap::spawn_refresh) | refreshes once per period | a period of zero does not panic |
//! | [`all`](IfaceMap::all), [`up_non_loopback`](IfaceMap::up_non_loopback), [`by_index`](IfaceMap::by_index) | the snapshot | broadcasts follow from the mask; [`IfaceDiff`] compares two snapshots |
//! | [`route_to`](IfaceMap::route_to) | the interface whose link an address is on | the longest prefix instead of the first match |
//! | [`recv_with_details`](AsyncUdpV4::recv_with_details), [`enable_kernel_time`](AsyncUdpV4::enable_kernel_time) | new: class, truncation, drops in 64 bits, the kernel's time of receipt (Linux) | |
//! | [`with_backend`](AsyncUdpV4::with_backend), [`backend`](AsyncUdpV4::backend) | new: readiness or io_uring | |
//! | [`recv_batch`](AsyncUdpV4::recv_batch) | new: all available datagrams at once, into memory that is reused | |
//!
//! This API cannot follow NICs that appear while a bundle is open, because its types have no room
//! for them, nor hear subnets that are local as a whole (127.0.0.7, for example): each socket has
//! an address of its own. Bind a new bundle, or use [`Engine`](crate::Engine).

mod bundle;
mod feed;
#[cfg(target_os = "linux")]
mod foreign;
#[cfg(not(target_os = "linux"))]
#[path = "foreign_absent.rs"]
mod foreign;
mod iface_map;
mod inbox;
mod loopback;
mod open;
mod ready;
mod receive;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(not(target_os = "linux"))]
#[path = "ring/absent.rs"]
mod ring;
mod scratch;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use tokio::net::UdpSocket;

pub use bundle::AsyncUdpV4;
pub use iface_map::{IfaceDiff, IfaceInfo, IfaceMap};
pub use loopback::{ORIGIN_TAG_MCAST_GROUP, bind_loopback_mcast};
pub use receive::RecvBatch;

use crate::{datagram::Class, sys::options};

/// The metadata of a received datagram. Its payload is in the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RecvMeta {
    /// How many bytes of the caller's buffer the payload fills.
    pub n: usize,
    /// The source: the sender's address and port.
    pub src: SocketAddr,
    /// The destination address; `None` where the system does not report it.
    pub dst_ip: Option<Ipv4Addr>,
    /// The index of the interface on which it arrived; `None` where the system does not report it.
    pub ifindex: Option<u32>,
    /// The address from which to answer. For unicast it is the destination; for a broadcast or a
    /// group it is the NIC's address in the source's subnet.
    pub iface_ip: Ipv4Addr,
}

/// A [`RecvMeta`], and the metadata that it has no fields for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RecvDetails {
    /// What every receive returns.
    pub meta: RecvMeta,
    /// The class of the destination; `None` on Windows.
    pub class: Option<Class>,
    /// Whether the payload was longer than the caller's buffer.
    pub is_truncated: bool,
    /// How many datagrams all sockets of its NIC have dropped so far because their queues were
    /// full.
    pub drop_count: u64,
    /// When the kernel received it; `None` unless [`AsyncUdpV4::enable_kernel_time`] asked for it.
    pub kernel_time: Option<SystemTime>,
}

/// A socket of a bundle and the NIC that it is for.
pub struct NicSocket {
    /// The socket. What is read from it directly is lost to the bundle.
    pub sock: Arc<UdpSocket>,
    /// The NIC's address, even if the socket is bound to a broadcast address.
    pub iface_ip: Ipv4Addr,
    /// The NIC's index; 0 where the socket is for several NICs or the system reports none.
    pub ifindex: u32,
    /// The mask of the address's subnet.
    pub netmask: Ipv4Addr,
    /// The broadcast address of that subnet; `None` for loopback.
    pub broadcast: Option<Ipv4Addr>,
    /// Whether the NIC is a loopback interface.
    pub is_loopback: bool,
    /// Whether the socket hears only broadcasts or a group. Nothing is sent from it then.
    pub rx_only_bcast: bool,
}

impl fmt::Debug for NicSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NicSocket")
            .field("iface_ip", &self.iface_ip)
            .field("ifindex", &self.ifindex)
            .field("netmask", &self.netmask)
            .field("broadcast", &self.broadcast)
            .field("is_loopback", &self.is_loopback)
            .field("rx_only_bcast", &self.rx_only_bcast)
            .field("local_addr", &self.sock.local_addr().ok())
            .finish()
    }
}

/// Asks the kernel to report with each datagram of `sock` how many it has dropped. Linux only; does
/// nothing elsewhere.
///
/// # Errors
///
/// The system's error.
pub fn enable_so_rxq_ovfl_for_socket(sock: &UdpSocket) -> io::Result<()> {
    options::request_drop_counts(sock)
}

/// Receives one datagram of `sock`, IPv4 or IPv6. Returns its length, its source and the drops so
/// far, which are 0 if nobody asked for them. It keeps nothing, so it mixes with other ways to read
/// the same socket.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use nicring::udp_v4::{enable_so_rxq_ovfl_for_socket, recv_from_with_drop_count_socket};
///
/// let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
/// enable_so_rxq_ovfl_for_socket(&socket)?;
/// socket.send_to(b"to itself", socket.local_addr()?).await?;
/// let mut buf = [0; 64];
/// let (len, source, drop_count) = recv_from_with_drop_count_socket(&socket, &mut buf).await?;
/// assert_eq!((len, source, drop_count), (9, socket.local_addr()?, 0));
/// # Ok::<(), std::io::Error>(())
/// # }).map(drop)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The system's error.
pub async fn recv_from_with_drop_count_socket(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    foreign::recv_with_drops(sock, buf).await
}
