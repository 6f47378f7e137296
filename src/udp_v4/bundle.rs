//! The bundle of sockets itself.

use std::{
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket},
    sync::{Arc, Mutex},
};

use socket2::SockRef;

use super::{
    IfaceMap, NicSocket, RecvBatch, RecvDetails, RecvMeta,
    feed::{Feed, ReceivedBy},
    inbox::Inbox,
    open::{self, Opened, Ports},
    ready::Ready,
    receive::Receive,
    ring,
};
use crate::{
    engine::{self, Backend},
    lock::lock,
    nics::{Nics, longest_prefix},
    path::FailedNic,
    sys::options::{self, Requested},
};

/// A bundle of UDP sockets, one per class of destination and IPv4 NIC, used as one socket.
///
/// All methods take `&self`; many tasks may receive and send at once. A receive future that is
/// dropped loses no datagram. Dropping the bundle frees its ports before the drop returns, unless a
/// clone of a [`NicSocket::sock`] lives on. With io_uring, the drop waits until the ring has let go
/// of the sockets, for at most 2 s. After that it logs an error. See [the module](super) for the
/// table of methods.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use nicring::udp_v4::AsyncUdpV4;
///
/// let server = AsyncUdpV4::bind_single([127, 0, 0, 1].into(), 0, false)?;
/// let client = AsyncUdpV4::bind_ephemeral_same_port(true)?;
/// client.send_to(b"search", server.local_addrs()[0]).await?;
/// let mut buf = [0; 1500];
/// let meta = server.recv_with_meta(&mut buf).await?;
/// server.send_via(b"found", meta.src, meta.iface_ip).await?;
/// let (len, _) = client.recv_from(&mut buf).await?;
/// assert_eq!(&buf[..len], b"found");
/// # Ok::<(), std::io::Error>(())
/// # }).map(drop)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AsyncUdpV4 {
    sockets: Vec<NicSocket>,
    feed: Arc<Feed>,
    failed: Vec<FailedNic>,
    /// The NICs that it was bound on.
    nics: Nics,
    is_shared: bool,
    /// The groups that it has joined, with the sockets that hear them.
    groups: Mutex<Vec<(Ipv4Addr, Vec<NicSocket>)>>,
}

impl AsyncUdpV4 {
    /// Binds `port` on every NIC that is up, loopback included, and shares it with other programs.
    /// Port 0 binds an unused port per address, for unicast only.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if no NIC can be bound. The failure of a single NIC is logged, and
    /// [`AsyncUdpV4::failed_nics`] returns it.
    pub fn bind(port: u16, broadcast: bool) -> io::Result<Self> {
        Self::bind_with_map(&IfaceMap::try_new()?, port, broadcast)
    }

    /// As [`AsyncUdpV4::bind`], without the loopback NIC.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::bind`].
    pub fn bind_non_loopback(port: u16, broadcast: bool) -> io::Result<Self> {
        let map = IfaceMap::try_new()?;
        let nics = map.nics().iter().filter(|nic| nic.is_up && !nic.is_loopback).cloned().collect();
        Self::bind_on(nics, Ports::of(port), broadcast)
    }

    /// As [`AsyncUdpV4::bind`], on the NICs of a snapshot.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::bind`].
    pub fn bind_with_map(map: &IfaceMap, port: u16, broadcast: bool) -> io::Result<Self> {
        Self::bind_on(up(map), Ports::of(port), broadcast)
    }

    /// Binds the same unused port on every NIC that is up, and shares it with no other program.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if no NIC can be bound, or only loopback although there are other NICs.
    pub fn bind_ephemeral_same_port(broadcast: bool) -> io::Result<Self> {
        Self::bind_ephemeral_same_port_with_map(&IfaceMap::try_new()?, broadcast)
    }

    /// As [`AsyncUdpV4::bind_ephemeral_same_port`], on the NICs of a snapshot.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::bind_ephemeral_same_port`].
    pub fn bind_ephemeral_same_port_with_map(map: &IfaceMap, broadcast: bool) -> io::Result<Self> {
        Self::bind_on(up(map), Ports::UnusedSame, broadcast)
    }

    /// Binds one address of this host, for unicast only. Port 0 binds an unused port.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if no NIC has the address; otherwise the system's error from binding it.
    pub fn bind_single(iface_ip: Ipv4Addr, port: u16, broadcast: bool) -> io::Result<Self> {
        let nics = IfaceMap::try_new()?.nics();
        let Some(nic) = nics.owner(iface_ip) else {
            let text = format!("no NIC has the address {iface_ip}");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
        };
        let mut only = nic.clone();
        only.addresses.retain(|own| own.address == iface_ip);
        let nics = Nics::from_iter([only]);
        let opened = open::open_single(&nics, iface_ip, port, broadcast)?;
        Self::new(vec![opened], Vec::new(), nics, port != 0)
    }

    fn bind_on(nics: Nics, ports: Ports, broadcast: bool) -> io::Result<Self> {
        let (opened, failed) = open::open_all(&nics, ports, broadcast)?;
        Self::new(opened, failed, nics, matches!(ports, Ports::Shared(_)))
    }

    fn new(
        opened: Vec<Opened>,
        failed: Vec<FailedNic>,
        nics: Nics,
        is_shared: bool,
    ) -> io::Result<Self> {
        let ready = Arc::new(Ready::default());
        let mut inbox = Inbox::new(open::own_addresses(&nics, &opened));
        let listen = |opened| {
            let (nic, socket) = listen(&mut inbox, opened, &ready);
            ready.push(socket);
            nic
        };
        let sockets = opened.into_iter().map(listen).collect();
        let received_by = received_by(engine::resolve_here(Backend::Auto)?);
        Ok(Self {
            sockets,
            feed: Feed::new(inbox, ready, received_by),
            failed,
            nics,
            is_shared,
            groups: Mutex::default(),
        })
    }

    /// Chooses how the bundle receives; call it before the first receive. [`Backend::IoUring`]
    /// receives with io_uring, [`Backend::Portable`] by readiness. [`Backend::Auto`], the default,
    /// is what the environment variable `NICRING_BACKEND` names, and readiness if that names
    /// nothing else.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use nicring::{Backend, udp_v4::AsyncUdpV4};
    ///
    /// let bundle = AsyncUdpV4::bind_single([127, 0, 0, 1].into(), 0, false)?;
    /// let bundle = bundle.with_backend(Backend::Portable)?;
    /// assert_eq!(bundle.backend(), Backend::Portable);
    /// # Ok::<(), std::io::Error>(())
    /// # }).map(drop)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If io_uring was asked for and does not work here, or if `NICRING_BACKEND` names no backend;
    /// `InvalidInput` if the bundle has already received.
    pub fn with_backend(self, backend: Backend) -> io::Result<Self> {
        let received_by = received_by(engine::resolve_here(backend)?);
        if matches!(received_by, ReceivedBy::FeederToCome(_)) {
            ring::check()?;
        }
        if self.feed.state().is_in_use {
            let text = "the bundle has received already: choose its backend before";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.feed.state().received_by = received_by;
        Ok(self)
    }

    /// The backend by which the bundle receives. Before its first receive: the one that it will
    /// try.
    pub fn backend(&self) -> Backend {
        self.feed.state().backend()
    }

    /// The sockets, NIC by NIC; those of joined groups are not among them.
    pub fn ifaces(&self) -> &[NicSocket] {
        &self.sockets
    }

    /// The sockets that could not be opened, each with the cause.
    pub fn failed_nics(&self) -> &[FailedNic] {
        &self.failed
    }

    /// The addresses at which unicast is heard, in the order of [`AsyncUdpV4::ifaces`].
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.senders().filter_map(|nic| nic.sock.local_addr().ok()).collect()
    }

    fn senders(&self) -> impl Iterator<Item = &NicSocket> {
        self.sockets.iter().filter(|nic| !nic.rx_only_bcast)
    }

    /// Sends `buf` to `dest` from the NIC that [`AsyncUdpV4::pick_nic`] chooses.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for IPv6; `AddrNotAvailable` if the NIC has lost its address; otherwise the
    /// system's error.
    pub async fn send_to(&self, buf: &[u8], dest: SocketAddr) -> io::Result<usize> {
        let SocketAddr::V4(v4) = dest else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an IPv6 destination"));
        };
        send(self.pick_nic(*v4.ip())?, buf, dest).await
    }

    /// Sends from the address `iface_ip`.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if no socket has the address, or its NIC has lost it; otherwise the
    /// system's error.
    pub async fn send_via(
        &self,
        buf: &[u8],
        dest: SocketAddr,
        iface_ip: Ipv4Addr,
    ) -> io::Result<usize> {
        let nic = self.senders().find(|nic| nic.iface_ip == iface_ip);
        send(nic.ok_or_else(|| no_socket(&format!("at {iface_ip}")))?, buf, dest).await
    }

    /// Sends from the first address of the NIC with this index.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::send_via`].
    pub async fn send_via_ifindex(
        &self,
        buf: &[u8],
        dest: SocketAddr,
        ifindex: u32,
    ) -> io::Result<usize> {
        let nic = self.senders().find(|nic| nic.ifindex == ifindex && ifindex != 0);
        send(nic.ok_or_else(|| no_socket(&format!("of interface {ifindex}")))?, buf, dest).await
    }

    /// Sends once from each NIC except loopback, and returns from how many. No NIC waits for
    /// another: one whose send queue is full is skipped. If no NIC took the datagram, the first of
    /// those is waited for.
    ///
    /// # Errors
    ///
    /// The last NIC's error if all failed; `Other` if there is no NIC but loopback.
    pub async fn fanout_to(&self, buf: &[u8], dest: SocketAddr) -> io::Result<usize> {
        let mut sent_count = 0;
        let mut blocked = None;
        let mut last_error = io::Error::other("fanout: there is no NIC but loopback");
        for (position, nic) in self.sockets.iter().enumerate() {
            let has_had_turn = |earlier: &NicSocket| {
                earlier.ifindex == nic.ifindex && nic.ifindex != 0 && !earlier.rx_only_bcast
            };
            if nic.is_loopback
                || nic.rx_only_bcast
                || self.sockets[..position].iter().any(has_had_turn)
            {
                continue;
            }
            match SockRef::from(&*nic.sock).send_to(buf, &dest.into()) {
                Ok(_) => sent_count += 1,
                Err(error) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        blocked = blocked.or(Some(nic));
                    }
                    tracing::debug!(%error, iface_ip = %nic.iface_ip, %dest, "fanout");
                    last_error = error;
                }
            }
        }
        match blocked {
            _ if sent_count > 0 => Ok(sent_count),
            Some(nic) => send(nic, buf, dest).await.map(|_| 1),
            None => Err(last_error),
        }
    }

    /// Receives one datagram from any NIC. A payload that is longer than `buf` is truncated.
    ///
    /// # Errors
    ///
    /// Only if the tokio runtime in which the bundle was bound is gone.
    pub async fn recv_with_meta(&self, buf: &mut [u8]) -> io::Result<RecvMeta> {
        Ok(self.recv_with_details(buf).await?.meta)
    }

    /// As [`AsyncUdpV4::recv_with_meta`], but returns only the length and the source.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::recv_with_meta`].
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let meta = self.recv_with_meta(buf).await?;
        Ok((meta.n, meta.src))
    }

    /// As [`AsyncUdpV4::recv_with_meta_with_drops`], but returns only the length, the source and
    /// the drops.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::recv_with_meta`].
    pub async fn recv_from_with_drop_count(
        &self,
        buf: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, u32)> {
        let (meta, drop_count) = self.recv_with_meta_with_drops(buf).await?;
        Ok((meta.n, meta.src, drop_count))
    }

    /// As [`AsyncUdpV4::recv_with_meta`], with the drop count of the NIC: how many datagrams all
    /// its sockets have dropped because their queues were full, modulo 2^32. Linux only; 0
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::recv_with_meta`].
    pub async fn recv_with_meta_with_drops(&self, buf: &mut [u8]) -> io::Result<(RecvMeta, u32)> {
        let details = self.recv_with_details(buf).await?;
        Ok((details.meta, details.drop_count as u32))
    }

    /// As [`AsyncUdpV4::recv_with_meta`], with everything that is known of the datagram.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::recv_with_meta`].
    pub async fn recv_with_details(&self, buf: &mut [u8]) -> io::Result<RecvDetails> {
        let mut receive = Receive::new(&self.feed);
        poll_fn(|cx| receive.poll(cx, |inbox| inbox.take(buf))).await
    }

    /// Receives the datagrams that are available, at least one and at most `count_max`, and returns
    /// how many. They replace the contents of `batch`. This costs less per datagram than one
    /// receive each.
    ///
    /// # Errors
    ///
    /// As [`AsyncUdpV4::recv_with_meta`]; `InvalidInput` if `count_max` is 0.
    pub async fn recv_batch(&self, batch: &mut RecvBatch, count_max: usize) -> io::Result<usize> {
        if count_max == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a batch of no datagrams"));
        }
        batch.clear();
        let mut receive = Receive::new(&self.feed);
        poll_fn(|cx| receive.poll(cx, |inbox| batch.fill(inbox, count_max))).await
    }

    /// The socket from which [`AsyncUdpV4::send_to`] sends to `dest`. The first of these that
    /// exists is taken: the one with the longest prefix that holds `dest`; loopback for
    /// 127.0.0.0/8; the one at the source address of the system's route; one with a mask of /0; the
    /// first that is not loopback; the first of all.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if there is no socket to send from.
    pub fn pick_nic(&self, dest: Ipv4Addr) -> io::Result<&NicSocket> {
        longest_prefix(self.senders(), dest, |nic| (nic.iface_ip, nic.netmask))
            .or_else(|| self.senders().find(|nic| dest.is_loopback() && nic.is_loopback))
            .or_else(|| {
                let source = route_source(dest)?;
                self.senders().find(|nic| nic.iface_ip == source)
            })
            .or_else(|| self.senders().find(|nic| nic.netmask.is_unspecified()))
            .or_else(|| self.senders().find(|nic| !nic.is_loopback))
            .or_else(|| self.senders().next())
            .ok_or_else(|| no_socket("to send from"))
    }

    /// Asks for a receive buffer of `size` bytes per socket, beyond the system's limit where the
    /// process may do so. [`AsyncUdpV4::recv_buffer_sizes`] returns what the system gave.
    ///
    /// # Errors
    ///
    /// The last socket's error if all refused.
    pub fn set_recv_buffer_size(&self, size: usize) -> io::Result<()> {
        self.set("set_recv_buffer_size", |nic| {
            let socket = SockRef::from(&*nic.sock);
            options::resize_recv_buffer(&socket, size)?;
            let (given, iface_ip) = (socket.recv_buffer_size()?, nic.iface_ip);
            if given < size {
                tracing::warn!(given, size, %iface_ip, "a smaller receive buffer");
            }
            Ok(())
        })
    }

    /// How many bytes each socket can queue, as the system counts them, in the order of
    /// [`AsyncUdpV4::ifaces`].
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn recv_buffer_sizes(&self) -> io::Result<Vec<usize>> {
        self.sockets.iter().map(|nic| SockRef::from(&*nic.sock).recv_buffer_size()).collect()
    }

    /// Sets the time to live of datagrams to groups, 1 to 255. Every router takes 1 from it; with
    /// 1, the datagrams stay on the link.
    ///
    /// # Errors
    ///
    /// The last socket's error if all refused.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        self.set("set_multicast_ttl_v4", |nic| nic.sock.set_multicast_ttl_v4(ttl))
    }

    /// Asks the kernel to report with each datagram how many it has dropped. Linux only; does
    /// nothing elsewhere.
    ///
    /// # Errors
    ///
    /// The last socket's error if all refused.
    pub fn enable_so_rxq_ovfl(&self) -> io::Result<()> {
        self.set("enable_so_rxq_ovfl", |nic| options::request_drop_counts(&*nic.sock))
    }

    /// Asks the kernel to report when it received each datagram ([`RecvDetails::kernel_time`]).
    /// This holds for the sockets that exist now, not for those of groups joined later. Linux only;
    /// changes nothing elsewhere.
    ///
    /// # Errors
    ///
    /// The last socket's error if all refused.
    pub fn enable_kernel_time(&self) -> io::Result<()> {
        self.set("enable_kernel_time", |nic| {
            let requested = Requested { arrival: true, time: true, ..Requested::default() };
            options::request_control_messages(&SockRef::from(&*nic.sock), requested)
        })
    }

    /// Sets an option of every socket, those of joined groups included.
    fn set(
        &self,
        option: &'static str,
        set: impl Fn(&NicSocket) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut set_count = 0;
        let mut last_error = None;
        let groups = lock(&self.groups);
        let of_groups = groups.iter().flat_map(|joined| &joined.1);
        for nic in self.sockets.iter().chain(of_groups) {
            match set(nic) {
                Ok(()) => set_count += 1,
                Err(error) => {
                    tracing::debug!(%error, iface_ip = %nic.iface_ip, option, "refused");
                    last_error = Some(error);
                }
            }
        }
        last_error.filter(|_| set_count == 0).map_or(Ok(()), Err)
    }

    /// Joins a group on every NIC except loopback, and hears it at the bundle's port.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `group` is not a multicast address; `Other` if there is no NIC but
    /// loopback; the last NIC's error if all failed.
    pub fn join_multicast_v4(&self, group: Ipv4Addr) -> io::Result<()> {
        if !group.is_multicast() {
            let text = format!("{group} is no multicast group");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut groups = lock(&self.groups);
        if groups.iter().any(|joined| joined.0 == group) {
            return Ok(());
        }
        let mut joined = Vec::new();
        let mut last_error = io::Error::other("joining a group: there is no NIC but loopback");
        for (nics, port) in self.nics_by_port() {
            for opened in open::open_group(&nics, group, port, self.is_shared)? {
                match opened {
                    Ok(opened) => joined.push(self.listen(opened)),
                    Err(error) => {
                        tracing::warn!(%error, %group, port, "a NIC does not hear the group");
                        last_error = error.into();
                    }
                }
            }
        }
        if joined.is_empty() {
            return Err(last_error);
        }
        groups.push((group, joined));
        if let Some(feeder) = self.feed.state().feeder() {
            feeder.call(&self.feed);
        }
        Ok(())
    }

    fn listen(&self, opened: Opened) -> NicSocket {
        let mut state = self.feed.state();
        let (nic, socket) = listen(&mut state.inbox, opened, &self.feed.ready);
        if !state.is_fed() {
            self.feed.ready.push_and_wake(socket);
        }
        nic
    }

    /// The NICs that are not loopback, grouped by the port of their first socket.
    fn nics_by_port(&self) -> Vec<(Nics, u16)> {
        let mut by_port: Vec<(Vec<_>, u16)> = Vec::new();
        for nic in self.nics.iter().filter(|nic| !nic.is_loopback) {
            let socket = self.senders().find(|socket| nic.owns(socket.iface_ip));
            let bound = socket.and_then(|socket| socket.sock.local_addr().ok());
            let Some(port) = bound.map(|bound| bound.port()) else {
                continue;
            };
            match by_port.iter_mut().find(|known| known.1 == port) {
                Some(known) => known.0.push(nic.clone()),
                None => by_port.push((vec![nic.clone()], port)),
            }
        }
        by_port.into_iter().map(|(nics, port)| (Nics::from_iter(nics), port)).collect()
    }
}

impl Drop for AsyncUdpV4 {
    fn drop(&mut self) {
        self.feed.close();
    }
}

/// The state before the first receive.
fn received_by(backend: Backend) -> ReceivedBy {
    match backend {
        Backend::IoUring => ReceivedBy::FeederToCome(ring::attach),
        Backend::Auto | Backend::Portable => ReceivedBy::Tasks,
    }
}

/// Adds a socket to the inbox; returns it with its number there.
fn listen(inbox: &mut Inbox, opened: Opened, ready: &Arc<Ready>) -> (NicSocket, usize) {
    let Opened { nic, packet_info, bound, class } = opened;
    let at = (nic.iface_ip, nic.ifindex);
    let socket = inbox.add((Arc::clone(&nic.sock), packet_info), *bound.ip(), at, class, ready);
    (nic, socket)
}

fn up(map: &IfaceMap) -> Nics {
    map.nics().iter().filter(|nic| nic.is_up).cloned().collect()
}

async fn send(nic: &NicSocket, buf: &[u8], dest: SocketAddr) -> io::Result<usize> {
    match nic.sock.send_to(buf, dest).await {
        Err(error) if has_left(nic.iface_ip) => Err(no_socket(&format!(
            "at {} any more, which has left its NIC ({error})",
            nic.iface_ip
        ))),
        result => result,
    }
}

/// Whether no NIC has this address any more.
fn has_left(address: Ipv4Addr) -> bool {
    let bound = StdUdpSocket::bind((address, 0));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn no_socket(which: &str) -> io::Error {
    let text = format!("the bundle has no socket {which}");
    io::Error::new(io::ErrorKind::AddrNotAvailable, text)
}

/// The source address of the system's route to `dest`. Connecting a UDP socket sends nothing.
fn route_source(dest: Ipv4Addr) -> Option<Ipv4Addr> {
    const ANY_PORT: u16 = 9;
    let socket = StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((dest, ANY_PORT)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(source) => Some(*source.ip()),
        SocketAddr::V6(_) => None,
    }
}
