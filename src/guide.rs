//! How it works, in five minutes. No code, only this page.
//!
//! What was measured and tried stands in [`measured`]; what holds on which system in
//! [the table of platforms](crate::platforms).
//!
//! # The life of a datagram
//!
//! ```text
//!   NIC ──► socket ──► ring ──► buffer ──► batch ──► handler
//!    ▲                  ▲                               │
//!    │                  └──────── outbox ◄── reply ◄────┘
//!    └───────────────────────────────┘
//! ```
//!
//! 1. A frame arrives on a **NIC**. The kernel queues the datagram at the one **socket** that hears
//!    its destination ([below](#one-socket-per-class-and-nic)).
//! 2. On that socket an **arm** waits in the **ring**: one multishot `recvmsg`
//!    ([io_uring_prep_recvmsg_multishot(3)](https://man7.org/linux/man-pages/man3/io_uring_prep_recvmsg_multishot.3.html),
//!    Linux 6.0). The kernel takes a **buffer** and writes into it who sent the datagram, where to,
//!    and the payload. No system call is made for it.
//! 3. The engine's thread wakes and takes what all sockets received, at once. It makes a record of
//!    each datagram: source, destination, class, NIC. A datagram that no answer can be right for
//!    (port 0; an unspecified, multicast or 255.255.255.255 source) is counted and dropped. The
//!    records are the **batch**. Nothing was copied and nothing allocated.
//! 4. The **handler** reads payloads where the kernel put them, and writes **replies** into the
//!    batch's **outbox**, each with its **egress**: the NIC and the source address that it leaves
//!    by ([below](#the-way-of-a-reply)).
//! 5. The next turn gives the buffers back and makes one system call, `io_uring_enter`. It sends
//!    all replies and waits for the next datagrams. The kernel reads the replies from the outbox
//!    itself.
//!
//! The portable backend has the same five steps. It receives by readiness (`epoll` on Linux) and
//! `recvmmsg`, and sends by `sendmmsg`. What happens to a record, to a reply and to the counters is
//! the same code.
//!
//! # One socket per class and NIC
//!
//! | socket | bound to | to the device | hears |
//! |---|---|---|---|
//! | unicast | each address of the host | no | unicast to it, from outside and from this host |
//! | rest | 0.0.0.0 | on `lo` | unicast to a subnet that is local as a whole: 127.0.0.0/8 |
//! | subnet | each broadcast address, on each device | yes | subnet broadcast; on `lo` 127.255.255.255 |
//! | limited | 255.255.255.255 | yes | limited broadcast |
//! | group | each group, joined on the NIC | yes | that group on that NIC |
//! | senders | 224.0.0.0, which no group ever is (RFC 1112) | no | nothing; send, [below](#the-way-of-a-reply) |
//!
//! So each frame is heard exactly once, by the socket of its class on the NIC that it came by. Two
//! NICs on one segment hear two frames. An idle socket costs nothing on a ring. All together hear
//! what one socket on 0.0.0.0 would hear through the same NICs, in the same groups.
//!
//! Which addresses are the host's, and which are broadcast addresses, is what the kernel's routing
//! table `local` says (`ip route show table local`), not what a netmask lets expect:
//!
//! - A broadcast address may be configured beside the one of the mask. Both are heard.
//! - A whole subnet may be local, as 127.0.0.0/8 is on every host. Its addresses are too many for a
//!   socket each: one socket on 0.0.0.0 hears them. What else it gets a copy of is counted
//!   ([`Counts::copy_count`]) and not handed out again.
//! - Where the host is a router, a broadcast to one NIC's subnet arrives by another NIC. So each
//!   NIC has a socket for the broadcast addresses of all of them. With more than 100 such pairs
//!   each broadcast address has one socket, for all NICs, which asks for the NIC (`IP_PKTINFO`).
//! - One address on two NICs (unnumbered links) has one socket.
//! - A NIC without an IPv4 address, such as the port of a bridge, is no NIC here: no answer could
//!   come from it.
//!
//! Another server of the same host, on 0.0.0.0, keeps its own copy of every broadcast. It loses its
//! unicasts, because the kernel prefers a socket that is bound to the address. With
//! [`Unicast::Leave`] nicring opens no unicast sockets, and the other server keeps them;
//! [`Builder::leave_unicast`] does so for some of the addresses.
//!
//! Binding to a device needs no privilege since Linux 5.7. Where it is refused, [`Listen::Auto`]
//! opens one socket on 0.0.0.0 and asks `IP_PKTINFO` for the NIC. Such a socket takes unicasts, so
//! [`Unicast::Leave`] has one socket per broadcast address and group instead, for all NICs.
//!
//! What was delivered and is handed out to nobody is counted by its reason: at a NIC or address
//! that was not chosen ([`Counts::unchosen_count`]), a second copy, a source that no answer can be
//! right for ([`Counts::guarded_count`]), of no interest ([`Counts::filtered_count`]), still queued
//! when its socket was closed ([`Counts::left_count`]).
//!
//! # The way of a reply
//!
//! | the asker is | the reply leaves by |
//! |---|---|
//! | an address of this host | `lo` |
//! | in a subnet of the NIC that heard it, or link-local (169.254.0.0/16) | that NIC |
//! | anyone who asked by 255.255.255.255, which no router passes on | that NIC, to the asker's own address |
//! | anyone else | the kernel's route to the asker, which may be another NIC |
//!
//! | what was asked | the source address is |
//! |---|---|
//! | a unicast address | that address |
//! | a broadcast or a group | the NIC's address whose prefix is the longest that holds the asker; else the one whose broadcast was asked; else its first |
//! | a group on `lo`, for an asker elsewhere (pvxs passes unicasts on so) | that of the kernel's route: no address of `lo` may leave the host |
//!
//! Why both are chosen: a reply that is pinned to the NIC of arrival is lost where the way back is
//! another one. A reply by the kernel's route alone carries whatever address that route prefers,
//! and clients that compare it with what they asked drop it. A subnet broadcast may have come
//! through a router (EPICS sites send directed broadcasts), so its asker is on the link only if its
//! address says so.
//!
//! The source port is the port that was asked. `IP_PKTINFO` tells the kernel interface and source
//! ([ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html)).
//!
//! Each NIC has a *sender* for the answers to what came in by it. Answers that a NIC is too slow
//! for, or that wait for a host that is gone, fill the buffer of their own sender and no other.
//! A host that does not say where it is (ARP) keeps its answers in the kernel for three seconds.
//! [`Builder::send_buffer_bytes`] has room for 5,000 of them. Where the kernel grants less, 32
//! *spare senders* for each port take what a sender has no room for, each for some of the askers.
//! Beside 150 such hosts that ask 1,000 times per second, a healthy client hears all its answers,
//! from an unprivileged server too (rsrv: 4 %, pvxs: 9 %; the bench `gone`).
//!
//! No answer goes to a broadcast address or a group, whoever names it: it would reach everybody on
//! a subnet ([`Queued::NoHost`]). [`Batch::send`] may send there, by a sender of its own. And only
//! a few askers of 255.255.255.255 whose address is of no subnet of the NIC are answered by that
//! NIC, 64 at once and 16 new ones a second; more than that would fill the kernel's table of
//! neighbours. Answers to the others take the kernel's route.
//!
//! On Linux, replies to one client that are next to each other in the outbox leave as *segments* of
//! one `sendmsg` (`UDP_SEGMENT`, [udp(7)](https://man7.org/linux/man-pages/man7/udp.7.html), Linux
//! 4.18), if they are equally long; the last may be shorter. Each is a datagram of its own on the
//! wire. Route, firewall and queue are passed once for up to 64 of them. Where the kernel, a device
//! or a firewall refuses segments, for whatever reason, the replies leave one by one.
//! [`Builder::gso`] switches segments off.
//!
//! # NICs that come and go
//!
//! On Linux the kernel tells of links, addresses and routes that change (rtnetlink(7)). The ring
//! waits for that as for datagrams. A few milliseconds later, when no more is told, the engine
//! compares the sockets that there should be with those that there are. It closes those of NICs
//! that left or changed, opens those of new ones, and touches no other. If more was told than the
//! kernel queues (`ENOBUFS`), the engine lists everything anew. Elsewhere it lists the NICs every
//! so often ([`Builder::list_nics_every`]). [`Builder::fixed_nics`] keeps to the NICs of the start,
//! and [`Handle::rescan`] compares at once.
//!
//! A NIC that is made again under its name has another index, or has the same index and joined no
//! group: it gets new sockets. One that only gets another name keeps its sockets.
//!
//! What cannot be opened costs only itself. It is in [`Handle::failed_nics`] with its cause and its
//! remedy, and is tried again, first after 2 ms and then ever more rarely, up to once a second.
//!
//! [`Handle::events`] tells a program of all this as it happens, and `tracing` the same: [`logs`].
//!
//! # Beacons, and other protocols of discovery
//!
//! What answers nothing leaves by [`Batch::send`] or [`Handle::send`], once for each NIC by
//! `fan_out`. An [`Egress`] says by which NIC, from which address and port, how far it may travel
//! (`IP_TTL`, per datagram on Linux 3.13 and later), and whether this host hears its own groups.
//! For the last, which the kernel knows by socket alone (`IP_MULTICAST_LOOP`), each port has two
//! senders. The examples `announce` and `bacnet_device` show it.
//!
//! | protocol | what it needs |
//! |---|---|
//! | EPICS beacons | [`Handle::fan_out`] to 255.255.255.255, or [`Handle::send`] to each broadcast address of [`Handle::heard_nics`] |
//! | BACnet/IP | `.port(47808)`; I-Am by [`Batch::send`] to the broadcast address of [`Batch::nic`] |
//! | mDNS | `.port(5353).join([224, 0, 0, 251]).multicast_ttl(255)`; group answers by [`Batch::send`] |
//! | SSDP | `.port(1900).join([239, 255, 255, 250]).multicast_ttl(2)`; answers after a while by [`Handle::reply_by`] |
//! | DHCP | `.port(67).allow_unspecified_source()`; answers by [`Batch::send`] to 255.255.255.255, by the NIC that heard it |
//! | GigE Vision | [`Handle::fan_out`] to 255.255.255.255 at 3956; cameras answer by unicast |
//!
//! # More than one core
//!
//! One ring on one thread is what most hosts need. [`Builder::shards`] opens more, each with all
//! sockets of its own, and each datagram is heard by one of them:
//!
//! | class | who decides | what it costs |
//! |---|---|---|
//! | unicast | the kernel, by a hash of both addresses and ports (`SO_REUSEPORT`) | nothing |
//! | broadcasts and groups | a filter on each socket, by a hash of the sender's address and port (classic BPF, `SO_ATTACH_FILTER`) | a copy per shard, made by the sender or in the softirq, of which all but one are dropped at once |
//!
//! Unicast sockets carry no filter: it would run after the kernel has chosen one of them, and drop
//! what no other gets. A sender's broadcasts and groups stay in order on one shard, and so do its
//! unicasts to one address and port, until a server comes or goes there; then the kernel spreads
//! unicasts anew, and what waited in a closed socket is lost. What a filter drops counts among a
//! socket's drops. So losses of broadcasts are told from the sums over all shards, once their
//! sockets are empty again ([`Counts::kernel_drop_count`]).
//!
//! [`Builder::filter`] puts more into the same program: what is of no interest is dropped before it
//! is queued, wakes nobody and is copied nowhere. Then losses cannot be told from it. Unicasts, and
//! what a system without such filters hears, the engine drops itself by the same rule.
//!
//! A socket on 0.0.0.0 for every class cannot be shared so; where no socket can be bound to a
//! device there is one per class for all NICs.
//!
//! # Which face for which program
//!
//! | the program has | use | what it costs |
//! |---|---|---|
//! | a thread to spare | [`Engine::run`] | nothing is cheaper |
//! | several, and one that is busy all the time | [`Shards::run`] | a copy of each broadcast per shard; smaller batches |
//! | handlers that read files or wait for others, a thread per core | `Shards::run_async` (feature `tokio-uring`) | a look at the runtime per batch, a task for each that waits |
//! | async tasks, of any runtime | [`AsyncEngine::recv_batch`] | at a high rate about the same: the engine's own thread lends whole batches; where little comes, a second wake-up per datagram |
//! | code written for `AsyncUdpV4` of epics-base-rs | `udp_v4` (feature `udp-v4`) | about as much as a plain tokio loop |
//!
//! # Tuning
//!
//! The defaults are meant to be left alone. [`measured`] tells what each setting was measured to
//! do.
//!
//! | setting | default | it is for |
//! |---|---|---|
//! | [`Builder::delay_max`] | 100 µs | fewer wake-ups |
//! | [`Builder::spin`] | none | the least delay, for a processor of its own |
//! | [`Builder::buffer_bytes`] | 2,048 | the longest datagram that is received whole |
//! | [`Builder::buffer_count`] | 1,024 | how much handlers and leases may hold at once |
//! | [`Builder::batch_max`] | 256 | how soon the first of many is answered |
//! | [`Builder::replies_max`] | 1,024 | how many replies a batch can have |
//! | [`Builder::send_buffer_bytes`] | 4 MiB per sender | answers to hosts that are gone, or by NICs that are slow |
//! | [`Builder::gso`] | yes | many equally long replies to one client |
//! | [`Builder::recv_buffer_bytes`] | 1 MiB per socket | bursts while the handler is busy; a short datagram counts as about 800 bytes |
//! | [`Builder::kernel_time`] | off | when the kernel received each datagram |
//!
//! What matters more: a handler that does not block, a processor that is not shared with the NIC's
//! interrupts, and a `net.core.rmem_max` that allows the receive buffers (`nicring doctor` tells).
//!
//! ## Delay
//!
//! At a steady rate waking up is what costs. So an engine waits for a fuller batch, up to
//! [`Builder::delay_max`], where it expects four datagrams or more within that time: from 40,000
//! per second on with the default, 100 µs, from 4,000 on with 1 ms, which `nicring serve` allows.
//! It stops where fewer than two and a half would come. It does not wait where batches of 16 or
//! more form by themselves. Otherwise there are three bounds:
//!
//! - No wait lasts longer than half of the smallest receive buffer lasts at the highest rate so
//!   far, which is taken to be a million per second at the least: one sender can do that all of a
//!   sudden. A datagram counts as 2,304 bytes. What a process without privileges is granted by
//!   default (212,992 bytes, which the kernel doubles) allows 92 µs, 1 MiB 455 µs, 4 MiB 1.8 ms.
//! - A load that mostly waits for its answers is answered at 0.95 of its rate or more. For 1.2 % of
//!   the time the other choice is tried, and what comes is compared with what came just before and
//!   just after. Where some 4 % more come without waiting, it is given up, for as long as they do.
//! - A single asker beside a load that does not wait for answers is answered later by the delay at
//!   most.
//!
//! io_uring waits for several datagrams by itself (`min_wait_usec` of io_uring_enter, Linux 6.12).
//! On an older kernel and on the portable backend the engine sleeps before it asks, and datagrams
//! wait in the sockets' queues. It sleeps for 50 µs less, which Linux may add (timer slack). The
//! timers of pollers, which round to whole milliseconds, have no part in that. Windows may add
//! 15.6 ms to a sleep, NetBSD and OpenBSD 20 ms: a delay that is not longer than this is none
//! there.
//!
//! ## Spinning
//!
//! [`Builder::spin`] is the opposite: the thread looks for datagrams for a while before it sleeps.
//! It looks into memory that it shares with the kernel, without a system call. While the engine
//! waits for more, it does not spin. Only io_uring offers it; the portable backend sleeps at once.
//!
//! # Watching
//!
//! Any thread may ask [`Handle::stats`]. With the feature `metrics` a program's registry of metrics
//! does so at each scrape, with `serde` the answer can be logged. What to look at where answers are
//! missing:
//!
//! | what grows, or stays high | why | the remedy |
//! |---|---|---|
//! | [`Counts::kernel_drop_count`] | bursts that the receive buffers have no room for | a larger [`Builder::recv_buffer_bytes`] |
//! | [`Counts::starved_count`], [`Stats::lent_count`], [`Stats::lease_wait_count`] | handlers or tasks keep batches | drop them before waiting for something else; answer by [`Handle::reply_by`] |
//! | [`Stats::posted_count`] | something blocks the engine's thread | a thread of its own for what blocks |
//! | [`Stats::outbox_full_count`] | more replies at once than there is room for | a larger [`Builder::replies_max`] |
//! | [`Counts::would_block_count`] | a NIC that is slow, or askers that are gone | a larger [`Builder::send_buffer_bytes`] |
//!
//! # What nicring does not do
//!
//! - IPv6, and TCP.
//! - Raise privileges, change routes, or configure interfaces.
//! - Answer once per client: a client that is heard on two NICs of one segment is answered on both.
//! - Promise order across sockets: datagrams of one socket stay in order, those of two do not.
//!
//! [`AsyncEngine::recv_batch`]: crate::AsyncEngine::recv_batch
//! [`Batch::nic`]: crate::Batch::nic
//! [`Batch::send`]: crate::Batch::send
//! [`Builder::batch_max`]: crate::Builder::batch_max
//! [`Builder::buffer_bytes`]: crate::Builder::buffer_bytes
//! [`Builder::buffer_count`]: crate::Builder::buffer_count
//! [`Builder::delay_max`]: crate::Builder::delay_max
//! [`Builder::filter`]: crate::Builder::filter
//! [`Builder::fixed_nics`]: crate::Builder::fixed_nics
//! [`Builder::gso`]: crate::Builder::gso
//! [`Builder::kernel_time`]: crate::Builder::kernel_time
//! [`Builder::leave_unicast`]: crate::Builder::leave_unicast
//! [`Builder::list_nics_every`]: crate::Builder::list_nics_every
//! [`Builder::recv_buffer_bytes`]: crate::Builder::recv_buffer_bytes
//! [`Builder::replies_max`]: crate::Builder::replies_max
//! [`Builder::send_buffer_bytes`]: crate::Builder::send_buffer_bytes
//! [`Builder::shards`]: crate::Builder::shards
//! [`Builder::spin`]: crate::Builder::spin
//! [`Counts::copy_count`]: crate::Counts::copy_count
//! [`Counts::filtered_count`]: crate::Counts::filtered_count
//! [`Counts::guarded_count`]: crate::Counts::guarded_count
//! [`Counts::kernel_drop_count`]: crate::Counts::kernel_drop_count
//! [`Counts::left_count`]: crate::Counts::left_count
//! [`Counts::starved_count`]: crate::Counts::starved_count
//! [`Counts::unchosen_count`]: crate::Counts::unchosen_count
//! [`Counts::would_block_count`]: crate::Counts::would_block_count
//! [`Egress`]: crate::Egress
//! [`Engine::run`]: crate::Engine::run
//! [`Handle::events`]: crate::Handle::events
//! [`Handle::failed_nics`]: crate::Handle::failed_nics
//! [`Handle::fan_out`]: crate::Handle::fan_out
//! [`Handle::heard_nics`]: crate::Handle::heard_nics
//! [`Handle::reply_by`]: crate::Handle::reply_by
//! [`Handle::rescan`]: crate::Handle::rescan
//! [`Handle::send`]: crate::Handle::send
//! [`Handle::stats`]: crate::Handle::stats
//! [`Listen::Auto`]: crate::Listen::Auto
//! [`Queued::NoHost`]: crate::Queued::NoHost
//! [`Shards::run`]: crate::Shards::run
//! [`Stats::lease_wait_count`]: crate::Stats::lease_wait_count
//! [`Stats::lent_count`]: crate::Stats::lent_count
//! [`Stats::outbox_full_count`]: crate::Stats::outbox_full_count
//! [`Stats::posted_count`]: crate::Stats::posted_count
//! [`Unicast::Leave`]: crate::Unicast::Leave
//! [`logs`]: crate::logs

pub mod measured;
