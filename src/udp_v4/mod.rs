//! `AsyncUdpV4` and its kin: the public API of `epics-base-rs` 0.18.3's module `net`, so that
//! programs written for it run on nicring's sockets.
//!
//! To replace the module in a copy of that crate, let its files re-export these types: `pub use
//! nicring::udp_v4::{AsyncUdpV4, NicSocket, RecvMeta, ...};`. Written from scratch against its
//! signatures.
//!
//! # What listens
//!
//! For each address of each NIC that is up one socket for unicast, and for each NIC, bound to its
//! device, one for each subnet's broadcast (on loopback 127.255.255.255), one for
//! 255.255.255.255, and one for each joined group. Where sockets cannot be bound to devices one
//! socket a class hears for all NICs; on Windows the sockets for unicast hear everything.
//! [`NicSocket::rx_only_bcast`] marks those from which nothing is sent. A socket bound to an
//! address takes all unicast there from programs bound to 0.0.0.0 at the same port.
//!
//! # How it receives
//!
//! Each receive takes a datagram from a queue of the bundle. To drop a receive future and make it
//! again makes no system call, allocates nothing, and takes about 80 ns, however many sockets there
//! are. Datagrams of up to 65,507 bytes are received whole. What fills the queue is up to
//! [`AsyncUdpV4::with_backend`], or the environment variable `NICRING_BACKEND`:
//!
//! - **Readiness** ([`Backend::Portable`](crate::Backend::Portable), the default). Ready sockets
//!   take turns; each gives the task that receives up to 16 datagrams a system call (`recvmmsg`;
//!   one elsewhere than on Linux). A bundle holds at most 1 MiB, and each thread that receives has
//!   1 MiB to receive into, of which only what datagrams have filled takes memory.
//! - **io_uring** ([`Backend::IoUring`](crate::Backend::IoUring), Linux). One thread and one ring
//!   serve all bundles of the process, from the first receive of each; the thread ends a second
//!   after the last bundle. They need no tokio runtime to receive. Datagrams come in the order of
//!   their arrival. A bundle that holds 1 MiB is let be, and its datagrams wait in their sockets,
//!   until three quarters were taken; of 65,507-byte ones up to 8 MiB may come at once before.
//!   The ring has 4 MiB of buffers, of which only what datagrams have filled takes memory. Where it
//!   is refused, or fails, bundles go on by readiness, and a warning says why.
//!
//! Readiness is the default because it takes half to two thirds of the ring's CPU time at full
//! speed (0.43 to 0.69 in `compare` with 4 and 16 NICs on two processors, Linux 6.18), and no more
//! where little comes: with the ring a datagram passes from one thread to another, and wakes
//! tokio's as well, which watches the same sockets.
//!
//! Who reads a [`NicSocket::sock`] directly competes with the bundle once that has received; with
//! io_uring it is for sending and options from then on.
//!
//! # The methods, and what differs from `epics-base-rs` 0.18.3
//!
//! All work on Linux, macOS, the BSDs and Windows; what one system alone has is said.
//!
//! | method | what it does | what differs |
//! |---|---|---|
//! | [`bind`](AsyncUdpV4::bind) | a port on every NIC that is up | hears 255.255.255.255 and 127.255.255.255; one socket an address and device, so that an alias doubles nothing; a NIC that fails is logged as a warning and told by [`failed_nics`](AsyncUdpV4::failed_nics); a failed enumeration is an error; port 0 opens no sockets for broadcasts, whose port nobody could know, and shares with nobody |
//! | [`bind_non_loopback`](AsyncUdpV4::bind_non_loopback) | the same without loopback | by the interface's flag, not by its address |
//! | [`bind_with_map`](AsyncUdpV4::bind_with_map) | the same on a snapshot's NICs | NICs that are down are left out |
//! | [`bind_ephemeral_same_port`](AsyncUdpV4::bind_ephemeral_same_port), [`.._with_map`](AsyncUdpV4::bind_ephemeral_same_port_with_map) | one unused port on every NIC | hears broadcasts; never a port that a stranger holds: the whole bundle is tried anew |
//! | [`bind_single`](AsyncUdpV4::bind_single) | one address, unicast alone | port 0 shares with nobody |
//! | [`ifaces`](AsyncUdpV4::ifaces) | the sockets | more of them with `rx_only_bcast`; fixed at binding, as before |
//! | [`local_addrs`](AsyncUdpV4::local_addrs) | where unicast is heard | broadcast addresses are left out |
//! | [`send_to`](AsyncUdpV4::send_to) | sends by [`pick_nic`](AsyncUdpV4::pick_nic) | `AddrNotAvailable` where the address has left its NIC |
//! | [`send_via`](AsyncUdpV4::send_via), [`send_via_ifindex`](AsyncUdpV4::send_via_ifindex) | sends from an address, from a NIC | the same |
//! | [`fanout_to`](AsyncUdpV4::fanout_to) | sends from every NIC | once a NIC, not once an address; no NIC waits for another |
//! | [`pick_nic`](AsyncUdpV4::pick_nic) | the NIC for a destination | the longest prefix, then the system's route, instead of the first match and the first NIC |
//! | [`recv_with_meta`](AsyncUdpV4::recv_with_meta), [`recv_from`](AsyncUdpV4::recv_from) | one datagram of any NIC | NICs take turns; an error of one fails no receive; `dst_ip` and `ifindex` are the kernel's (Linux; elsewhere those of the socket) |
//! | [`recv_with_meta_with_drops`](AsyncUdpV4::recv_with_meta_with_drops) | the same and the drops (Linux) | one count a NIC over all its sockets, which never goes back |
//! | [`recv_from_with_drop_count`](AsyncUdpV4::recv_from_with_drop_count) | the same, shorter | from every NIC, not from the first socket alone |
//! | [`set_recv_buffer_size`](AsyncUdpV4::set_recv_buffer_size) | room for bursts | beyond the system's limit where allowed; a warning where it gave less; see [`recv_buffer_sizes`](AsyncUdpV4::recv_buffer_sizes) |
//! | [`set_multicast_ttl_v4`](AsyncUdpV4::set_multicast_ttl_v4) | how far groups reach | |
//! | [`enable_so_rxq_ovfl`](AsyncUdpV4::enable_so_rxq_ovfl) | asks for drop counts (Linux) | an error if every socket refused; the bundle counts without it too |
//! | [`join_multicast_v4`](AsyncUdpV4::join_multicast_v4) | joins a group on every NIC | the group is really heard; joining twice is no error |
//! | [`enable_so_rxq_ovfl_for_socket`], [`recv_from_with_drop_count_socket`] | the same for a socket of the caller's (Linux) | |
//! | [`bind_loopback_mcast`] | the group 224.0.0.128 on loopback | port 0 never finds a port that strangers share |
//! | [`IfaceMap::new`], [`refresh`](IfaceMap::refresh), [`refresh_if_stale`](IfaceMap::refresh_if_stale) | the interfaces | a failure leaves 127.0.0.1, or the old snapshot, instead of nothing; [`try_new`](IfaceMap::try_new) and [`try_refresh`](IfaceMap::try_refresh) tell it |
//! | [`spawn_refresh`](IfaceMap::spawn_refresh) | refreshes by the clock | a period of zero does not panic |
//! | [`all`](IfaceMap::all), [`up_non_loopback`](IfaceMap::up_non_loopback), [`by_index`](IfaceMap::by_index) | the snapshot | broadcasts follow from the mask; snapshots compare, and [`IfaceDiff`] tells what changed |
//! | [`route_to`](IfaceMap::route_to) | the interface on whose link an address is | the longest prefix instead of the first match |
//! | [`recv_with_details`](AsyncUdpV4::recv_with_details), [`enable_kernel_time`](AsyncUdpV4::enable_kernel_time) | new: class, truncation, drops in 64 bits, the kernel's time of receipt (Linux) | |
//! | [`with_backend`](AsyncUdpV4::with_backend), [`backend`](AsyncUdpV4::backend) | new: readiness or io_uring | |
//! | [`recv_batch`](AsyncUdpV4::recv_batch) | new: all that is there at once, into memory that is used again | |
//!
//! Not to be had in this API, because its types leave no room: NICs that come while a bundle is
//! open (bind a new one). [`Engine`](crate::Engine) has it.

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

/// What is known of a received datagram; its payload is in the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RecvMeta {
    /// How many bytes of the caller's buffer it fills.
    pub n: usize,
    /// Who sent it.
    pub src: SocketAddr,
    /// The address that it was sent to; `None` where the system does not tell.
    pub dst_ip: Option<Ipv4Addr>,
    /// The interface on which it arrived; `None` where the system does not tell.
    pub ifindex: Option<u32>,
    /// The address from which to answer: the one that was asked; for a broadcast or a group that
    /// of the NIC in whose subnet the sender is.
    pub iface_ip: Ipv4Addr,
}

/// A [`RecvMeta`] and what it has no room for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RecvDetails {
    /// What every receive tells.
    pub meta: RecvMeta,
    /// The class of the destination; `None` on Windows.
    pub class: Option<Class>,
    /// Whether it was longer than the caller's buffer.
    pub is_truncated: bool,
    /// How many datagrams all sockets of its NIC have dropped so far for want of room.
    pub drop_count: u64,
    /// When the kernel received it; `None` unless [`AsyncUdpV4::enable_kernel_time`] asked for it.
    pub kernel_time: Option<SystemTime>,
}

/// A socket of a bundle and the NIC that it is for.
pub struct NicSocket {
    /// The socket. What is read from it directly is lost to the bundle.
    pub sock: Arc<UdpSocket>,
    /// The NIC's address; not what the socket is bound to if that is a broadcast address.
    pub iface_ip: Ipv4Addr,
    /// The NIC's index, 0 where the socket is for several or the system tells none.
    pub ifindex: u32,
    /// The mask of the address's subnet.
    pub netmask: Ipv4Addr,
    /// The broadcast address of that subnet; `None` for loopback.
    pub broadcast: Option<Ipv4Addr>,
    /// Whether the NIC is a loopback interface.
    pub is_loopback: bool,
    /// Whether the socket hears broadcasts alone; nothing is sent from it then.
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

/// Asks the kernel to tell with each datagram of `sock` how many it has dropped. Linux only;
/// elsewhere there is nothing to ask for.
///
/// # Errors
///
/// What the system says.
pub fn enable_so_rxq_ovfl_for_socket(sock: &UdpSocket) -> io::Result<()> {
    options::request_drop_counts(sock)
}

/// Receives one datagram of `sock`, IPv4 or IPv6, and keeps nothing: mixes with other ways to read
/// the same socket. Tells length, sender, and the drops so far, 0 where nobody asked for them.
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
/// What the system says.
pub async fn recv_from_with_drop_count_socket(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    foreign::recv_with_drops(sock, buf).await
}
