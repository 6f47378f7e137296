//! The settings of an engine.

use std::{sync::Arc, time::Duration};

use super::{async_engine::AsyncEngine, choose::Backend, core::Core, run::Engine, shards::Shards};
use crate::{
    datagram::PAYLOAD_LEN_MAX,
    error::{Error, Result},
    filter::Filter,
    nics::NicFilter,
    path::{
        BackendSettings, DELAY_MAX_DEFAULT, Join, Listen, ListenSettings, OnFailedNic, Unicast,
    },
    platform,
    sys::{options, shard::Shard},
};

impl Engine {
    /// Settings to open an engine with.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Settings of an engine. Only the port has no default.
///
/// ```
/// use nicring::{Engine, Unicast};
///
/// let engine = Engine::builder()
///     .port(0)                             // an unused one; 5076 for PVA, 5064 for CA
///     .nic("127.0.0.1")                    // all NICs unless some are named
///     .join([224, 0, 0, 128])
///     .unicast(Unicast::Take)
///     .recv_buffer_bytes(4 << 20)
///     .open()?;
/// println!("{} on port {}", engine.handle().backend(), engine.ports()[0]);
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    listen: ListenSettings,
    backend: Backend,
    sizes: BackendSettings,
    tick: Option<Duration>,
    shard_count: usize,
    pins_shards: bool,
    /// What is wrong with the first filter that could not be read, and of which setting it is.
    bad_filter: Option<(&'static str, String)>,
}

/// Only datagrams end a wait for more of them early. A stop, or a send by a handle, takes effect
/// after it.
const DELAY_LIMIT: Duration = Duration::from_millis(100);
const LIST_NICS_MIN: Duration = Duration::from_millis(10);
/// Each makes a copy of every broadcast in the kernel.
const SHARD_COUNT_MAX: usize = 64;
const SPIN_MAX: Duration = Duration::from_secs(1);

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: ListenSettings::default(),
            backend: Backend::Auto,
            sizes: BackendSettings {
                buffer_bytes: 2048,
                buffer_count: 1024,
                batch_max: 256,
                replies_max: 1024,
                delay_max: DELAY_MAX_DEFAULT,
                spin: Duration::ZERO,
                uses_gso: true,
            },
            tick: None,
            shard_count: 1,
            pins_shards: false,
            bad_filter: None,
        }
    }
}

impl Builder {
    /// Listens on this UDP port too. An engine serves several ports with one ring. 0 stands for a
    /// port that nobody uses ([`Engine::ports`] tells which).
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.listen.ports.push(port);
        self
    }

    /// Listens on these UDP ports too, as [`Builder::port`] does on one.
    ///
    /// ```
    /// let builder = nicring::Engine::builder().ports([5064, 5076]);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.listen.ports.extend(ports);
        self
    }

    /// Hears this multicast group too: on every chosen NIC and at every port, unless the [`Join`]
    /// says where.
    #[must_use]
    pub fn join(mut self, group: impl Into<Join>) -> Self {
        self.listen.joins.push(group.into());
        self
    }

    /// Listens on the NICs, or at the addresses, that `filter` names; on all NICs unless called. A
    /// filter that cannot be read is an error when the engine is opened.
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    ///
    /// let builder = nicring::Engine::builder().port(5064).nic("eth0").nic(Ipv4Addr::LOCALHOST);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn nic(mut self, filter: impl TryInto<NicFilter, Error: Into<Error>>) -> Self {
        let filter = self.read("nic", filter);
        self.listen.chosen.extend(filter);
        self
    }

    /// Does not listen on the NICs, or at the addresses, that `filter` names; see [`Builder::nic`].
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(5064).exclude_nic("docker*");
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn exclude_nic(mut self, filter: impl TryInto<NicFilter, Error: Into<Error>>) -> Self {
        let filter = self.read("exclude_nic", filter);
        self.listen.excluded.extend(filter);
        self
    }

    fn read(
        &mut self,
        setting: &'static str,
        filter: impl TryInto<NicFilter, Error: Into<Error>>,
    ) -> Option<NicFilter> {
        let read = NicFilter::read(filter);
        read.map_err(|reason| _ = self.bad_filter.get_or_insert((setting, reason))).ok()
    }

    /// Waits for chosen NICs that are not there yet, or not up. Unless called, opening fails if one
    /// of them is not there.
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(5076).nic("eth7").wait_for_nics();
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn wait_for_nics(mut self) -> Self {
        self.listen.waits_for_nics = true;
        self
    }

    /// Keeps to the NICs and addresses that there are when the engine opens, until
    /// [`Handle::rescan`](crate::Handle::rescan). Unless called, an engine follows them as they
    /// come and go: on Linux as soon as the kernel tells (rtnetlink(7)), elsewhere by
    /// [`Builder::list_nics_every`].
    #[must_use]
    pub fn fixed_nics(mut self) -> Self {
        self.listen.follows_nics = false;
        self
    }

    /// Where the system does not tell of NICs that come and go (all but Linux), lists them at this
    /// interval, 10 ms or more; 2 s unless called, and [`Duration::MAX`] for never.
    #[must_use]
    pub fn list_nics_every(mut self, interval: Duration) -> Self {
        self.listen.list_nics_every = interval;
        self
    }

    /// Which sockets hear the datagrams; [`Listen::Auto`] unless called.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen.listen = listen;
        self
    }

    /// Whether unicasts are heard; [`Unicast::Take`] unless called.
    #[must_use]
    pub fn unicast(mut self, unicast: Unicast) -> Self {
        self.listen.unicast = unicast;
        self
    }

    /// Leaves the unicasts to the addresses that `filter` names to other servers of this host, as
    /// [`Unicast::Leave`] does for all addresses.
    ///
    /// ```
    /// // An IOC of this host has 192.0.2.7:5064.
    /// let builder = nicring::Engine::builder().port(5064).leave_unicast("192.0.2.7");
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn leave_unicast(mut self, filter: impl TryInto<NicFilter, Error: Into<Error>>) -> Self {
        let filter = self.read("leave_unicast", filter);
        self.listen.left.extend(filter);
        self
    }

    /// What to do about a socket that cannot be opened; [`OnFailedNic::Warn`] unless called.
    #[must_use]
    pub fn on_failed_nic(mut self, on_failed_nic: OnFailedNic) -> Self {
        self.listen.on_failed_nic = on_failed_nic;
        self
    }

    /// How far what is sent to groups travels: the time to live of its IP header, 1 unless called,
    /// which no router passes on. With 0 it stays on this host. An
    /// [`Egress`](crate::Egress::ttl) may say otherwise for one datagram. Answers go to hosts, and
    /// are not concerned.
    ///
    /// ```
    /// // RFC 6762 (section 11) has all of mDNS sent with 255.
    /// let builder = nicring::Engine::builder().port(5353).multicast_ttl(255);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn multicast_ttl(mut self, ttl: u8) -> Self {
        self.listen.multicast_ttl = ttl;
        self
    }

    /// Whether programs of this host hear what is sent to groups, the engine among them; yes unless
    /// called. An [`Egress`](crate::Egress::multicast_loop) may say otherwise for one datagram.
    ///
    /// On Windows this is about what is heard: an engine that says no hears nothing that this host
    /// sends to its groups ([the table of platforms](crate::platforms)).
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(1900).multicast_loop(false);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn multicast_loop(mut self, is_heard_here: bool) -> Self {
        self.listen.multicast_loop = is_heard_here;
        self
    }

    /// Refuses to share the port with other sockets.
    ///
    /// Unless called, a second server of the same user takes about half of the unicasts, and a
    /// server of another user may take all of them. On Windows this does not keep out a program of
    /// the same user that sets SO_REUSEADDR later ([the table of platforms](crate::platforms)).
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.listen.is_exclusive = true;
        self
    }

    /// How many bytes each socket may queue, as `SO_RCVBUF` counts them (a short datagram counts
    /// as about 800); 1 MiB unless called. More than `net.core.rmem_max` needs CAP_NET_ADMIN.
    #[must_use]
    pub fn recv_buffer_bytes(mut self, bytes: usize) -> Self {
        self.listen.recv_buffer_bytes = bytes;
        self
    }

    /// How many bytes each sender may have under way, as `SO_SNDBUF` counts them (a short datagram
    /// counts as about 800); 4 MiB unless called. More than `net.core.wmem_max` needs
    /// CAP_NET_ADMIN.
    ///
    /// Answers to hosts that are gone wait in the kernel for three seconds each, and while they do
    /// they take room from the answers to others. 4 MiB carry 1,700 such answers per second. Where
    /// they are refused, spare senders help ([the guide](crate::guide#the-way-of-a-reply)).
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.listen.send_buffer_bytes = bytes;
        self
    }

    /// Asks the kernel when it received each datagram (`SO_TIMESTAMPNS`, Linux only).
    #[must_use]
    pub fn kernel_time(mut self) -> Self {
        self.listen.requested.time = true;
        self
    }

    /// Asks the kernel for the time to live of each datagram ([`Datagram::ttl`], `IP_RECVTTL`,
    /// Linux only).
    ///
    /// [`Datagram::ttl`]: crate::Datagram::ttl
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(5353).recv_ttl();
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn recv_ttl(mut self) -> Self {
        self.listen.requested.ttl = true;
        self
    }

    /// Asks the kernel for the type of service of each datagram ([`Datagram::tos`], `IP_RECVTOS`,
    /// Linux only).
    ///
    /// [`Datagram::tos`]: crate::Datagram::tos
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(5076).recv_tos();
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn recv_tos(mut self) -> Self {
        self.listen.requested.tos = true;
        self
    }

    /// Hands out datagrams from 0.0.0.0 too: hosts that have no address yet send so (DHCP). Unless
    /// called they are guarded, because no answer reaches 0.0.0.0. Answer by
    /// [`Batch::send`](crate::Batch::send) to 255.255.255.255, by the NIC that heard it.
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(67).allow_unspecified_source();
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn allow_unspecified_source(mut self) -> Self {
        self.listen.allows_unspecified_source = true;
        self
    }

    /// The backend; [`Backend::Auto`] unless called.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// How many payload bytes a buffer holds, 64 to 65,507; 2,048 unless called. A longer
    /// datagram is truncated, marked and counted. More costs memory alone: at 65,507, a storm and
    /// SEARCH took 0.99 to 1.01 of the CPU time, and 1,024 buffers 66 MiB (benches/README.md).
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.sizes.buffer_bytes = bytes;
        self
    }

    /// How many buffers the io_uring backend receives into, 1 to 32,768, rounded up to a power of
    /// two; 1,024 unless called. When all are lent, datagrams wait in their sockets.
    #[must_use]
    pub fn buffer_count(mut self, count: usize) -> Self {
        self.sizes.buffer_count = count;
        self
    }

    /// How many datagrams a batch holds at most, 1 to 32,768; 256 unless called.
    #[must_use]
    pub fn batch_max(mut self, count: usize) -> Self {
        self.sizes.batch_max = count;
        self
    }

    /// How many replies a batch can queue, 1 to 32,768; 1,024 unless called. Their payloads share
    /// 256 bytes per reply, but not less than 131,014 bytes.
    #[must_use]
    pub fn replies_max(mut self, count: usize) -> Self {
        self.sizes.replies_max = count;
        self
    }

    /// How long an answer may wait, so that the thread wakes less: up to 100 ms, 100 µs unless
    /// called, and zero for not at all.
    ///
    /// Waking up is most of what a datagram costs. So the engine waits for a fuller batch, though
    /// only where it expects four datagrams or more within this time, where clients do not send
    /// less because of it, and no longer than half of the receive buffers last in a burst: more
    /// than 455 µs takes more than 1 MiB ([`Builder::recv_buffer_bytes`]). While it waits, the
    /// engine may notice [`Handle::stop`](crate::Handle::stop), and send what a
    /// [`Handle`](crate::Handle) queues, late by this time. On Windows, NetBSD and OpenBSD,
    /// whose sleeps take 15 ms and longer, it does not wait. [The guide](crate::guide#delay) tells
    /// more.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// // Clients of Channel Access wait for an answer for 32 ms and longer.
    /// let builder = nicring::Engine::builder().port(5064).delay_max(Duration::from_millis(1));
    /// let builder = builder.recv_buffer_bytes(4 << 20);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn delay_max(mut self, time: Duration) -> Self {
        self.sizes.delay_max = time;
        self
    }

    /// Looks for datagrams for `time`, up to 1 s, before the thread sleeps; not at all unless
    /// called.
    ///
    /// Where few datagrams come, most of the delay of an answer is the wake-up of a sleeping
    /// processor. Spinning saves this delay and costs processor time. io_uring only; see
    /// [the guide](crate::guide#spinning).
    #[must_use]
    pub fn spin(mut self, time: Duration) -> Self {
        self.sizes.spin = time;
        self
    }

    /// Whether replies to one client that are equally long may leave by one `sendmsg`
    /// (`UDP_SEGMENT`, generic segmentation offload, Linux only); yes unless called. Where a
    /// kernel, a device or a firewall refuses that, they leave one by one by themselves.
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(5076).gso(false);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn gso(mut self, uses_gso: bool) -> Self {
        self.sizes.uses_gso = uses_gso;
        self
    }

    /// Calls the handler of [`Engine::run`] at least this often, with an empty batch if nothing
    /// came. The time runs from the last tick; one may be late by a datagram's handling. For
    /// something periodic, tick several times per period, and keep the next time in the handler.
    #[must_use]
    pub fn tick(mut self, every: Duration) -> Self {
        self.tick = Some(every);
        self
    }

    /// Hands out only what the filter keeps. On Linux the kernel drops the rest of the broadcasts
    /// and groups before it is queued, which costs next to nothing; what is lost in full receive
    /// buffers cannot be told from that ([`Counts::kernel_drop_count`] is `None`).
    ///
    /// [`Counts::kernel_drop_count`]: crate::Counts::kernel_drop_count
    ///
    /// ```
    /// use nicring::{Engine, Filter, Pattern};
    ///
    /// let filter = Filter::new().payload(Pattern::new().byte(0, 0xca));
    /// let builder = Engine::builder().port(5076).filter(filter);
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.listen.filter = Some(Arc::new(filter));
        self
    }

    /// How many engines share the work, 1 to 64; 1 unless called. More than one is opened by
    /// [`Builder::open_shards`].
    #[must_use]
    pub fn shards(mut self, count: usize) -> Self {
        self.shard_count = count;
        self
    }

    /// Keeps each shard's thread on a processor of its own, of those that this process may use
    /// (sched_setaffinity(2), Linux only). Unless called the scheduler may move them.
    ///
    /// ```
    /// let builder = nicring::Engine::builder().port(5076).shards(2).pin_shards();
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn pin_shards(mut self) -> Self {
        self.pins_shards = true;
        self
    }

    /// Opens the sockets and the backend.
    ///
    /// # Errors
    ///
    /// If a setting is invalid, if the NICs cannot be listed, if a socket cannot be opened, or if
    /// the backend that was asked for cannot be used.
    pub fn open(self) -> Result<Engine> {
        self.check_single()?;
        let tick = self.tick;
        Ok(Engine::new(self.open_core()?, tick))
    }

    /// Opens [`Builder::shards`] engines that share the work. They share their ports with each
    /// other, and so with other programs of this user.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`]; also if the port is to be exclusive, or [`Listen::Wildcard`] was asked
    /// for.
    pub fn open_shards(mut self) -> Result<Shards> {
        self.check()?;
        // Others may open clones of this builder.
        self.listen.shared_drops = Arc::default();
        let count = if platform::HAS_SOCKET_FILTERS { self.shard_count } else { 1 };
        if count > 1 {
            if self.listen.is_exclusive {
                let reason = "shards share their port: leave out Builder::exclusive, or open one";
                return Err(Error::setting("shards", reason));
            }
            let failed = |source| Error::Backend { operation: "asking for an unused port", source };
            let (mut chosen, mut kept) = (Vec::new(), Vec::new());
            let named = self.listen.ports.clone();
            for port in self.listen.ports.iter_mut().filter(|port| **port == 0) {
                while named.contains(port) {
                    let (unused, socket) = options::unused_port().map_err(failed)?;
                    *port = unused;
                    kept.push(socket); // so that no port is chosen twice
                }
                chosen.push(*port);
            }
            drop(kept);
            self.listen.joins.iter_mut().for_each(|join| join.follow_ports(&chosen));
        }
        let engine = |index| {
            let mut one = self.clone();
            one.listen.shard = Shard { index, count: count as u16 };
            Ok(Engine::new(one.open_core()?, self.tick))
        };
        let engines: Result<Vec<_>> = (0..count as u16).map(engine).collect();
        Ok(Shards::new(engines?, self.pins_shards))
    }

    /// Opens an engine for async tasks, of any runtime.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`]; also if the thread of the engine cannot be started.
    pub fn open_async(self) -> Result<AsyncEngine> {
        self.check_single()?;
        AsyncEngine::start(self.open_core()?)
    }

    fn check_single(&self) -> Result<()> {
        self.check()?;
        if self.shard_count == 1 {
            return Ok(());
        }
        let reason = format!(
            "each of {} shards has a handler of its own: open them by Builder::open_shards",
            self.shard_count
        );
        Err(Error::setting("shards", reason))
    }

    fn open_core(self) -> Result<Core> {
        self.check()?;
        Core::open(self.listen, self.backend, &self.sizes)
    }

    fn check(&self) -> Result<()> {
        let in_range = |setting, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let reason = format!("{value} is not between {min} and {max}");
            Err(Error::setting(setting, reason))
        };
        if let Some((setting, reason)) = &self.bad_filter {
            return Err(Error::setting(setting, reason.as_str()));
        }
        if self.listen.ports.is_empty() {
            let reason = "none given: name at least one with Builder::port";
            return Err(Error::setting("port", reason));
        }
        let mut fixed: Vec<u16> =
            self.listen.ports.iter().copied().filter(|port| *port != 0).collect();
        fixed.sort_unstable();
        if let Some(twice) = fixed.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::setting("port", format!("{} is given twice", twice[0])));
        }
        self.listen.joins.iter().try_for_each(|join| self.check_join(join))?;
        in_range("shards", self.shard_count, 1, SHARD_COUNT_MAX)?;
        in_range("buffer_bytes", self.sizes.buffer_bytes, 64, PAYLOAD_LEN_MAX)?;
        in_range("buffer_count", self.sizes.buffer_count, 1, 32_768)?;
        in_range("batch_max", self.sizes.batch_max, 1, 32_768)?;
        in_range("replies_max", self.sizes.replies_max, 1, 32_768)?;
        in_range("recv_buffer_bytes", self.listen.recv_buffer_bytes, 1, 1 << 30)?;
        in_range("send_buffer_bytes", self.listen.send_buffer_bytes, 1, 1 << 30)?;
        if self.sizes.delay_max > DELAY_LIMIT {
            let reason = format!(
                "{:?} is longer than {DELAY_LIMIT:?}: clients would ask again before they are \
                 answered; give 1 ms or so, or zero for no delay",
                self.sizes.delay_max
            );
            return Err(Error::setting("delay_max", reason));
        }
        if self.sizes.spin > SPIN_MAX {
            let reason = format!("{:?} is longer than {SPIN_MAX:?}", self.sizes.spin);
            return Err(Error::setting("spin", reason));
        }
        if self.listen.list_nics_every < LIST_NICS_MIN {
            let reason = format!("shorter than {LIST_NICS_MIN:?}: listing the NICs takes time");
            return Err(Error::setting("list_nics_every", reason));
        }
        if !self.listen.left.is_empty() && self.listen.listen == Listen::Wildcard {
            let reason = "a wildcard socket takes all unicasts: use Listen::Class";
            return Err(Error::setting("leave_unicast", reason));
        }
        if self.tick.is_some_and(|tick| tick.is_zero()) {
            return Err(Error::setting("tick", "zero: expected a time to wait"));
        }
        Ok(())
    }

    fn check_join(&self, join: &Join) -> Result<()> {
        let stray_port = join.stray_port(&self.listen.ports);
        let reason = match (&join.bad_filter, stray_port) {
            (Some(reason), _) => reason.clone(),
            (None, _) if !join.group.is_multicast() => {
                format!("{} is no multicast group: expected 224.0.0.0/4", join.group)
            }
            (None, Some(port)) => {
                format!("{join} at port {port}, which is not listened on: add Builder::port")
            }
            (None, None) => return Ok(()),
        };
        Err(Error::setting("join", reason))
    }
}
