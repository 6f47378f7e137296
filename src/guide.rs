//! How it works, why the defaults are what they are, and what it does not do. No code, only this
//! page.
//!
//! What holds on which system stands in [the table of platforms](crate::platforms).
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
//! 1. A frame arrives on a **NIC**. The kernel finds the one **socket** that hears its
//!    destination ([below](#one-socket-a-class-a-nic)) and queues the datagram there.
//! 2. On that socket an **arm** waits in the **ring**: one multishot `recvmsg`
//!    ([io_uring_prep_recvmsg_multishot(3)](https://man7.org/linux/man-pages/man3/io_uring_prep_recvmsg_multishot.3.html),
//!    Linux 6.0). It takes a **buffer** from the ring of provided buffers and fills it: a header,
//!    the sender's address, the control message (destination and interface by `IP_PKTINFO`, which a
//!    socket that is bound to a device is not asked for: its bindings tell both), the payload. No
//!    system call is made for it.
//! 3. The engine's thread wakes, takes all completions of all sockets at once, and makes of each a
//!    record: who sent it, to which address, of which class, on which NIC. What no answer can be
//!    right for (a multicast or broadcast source, port 0) is counted and dropped. The records are
//!    the **batch**; nothing was copied and nothing allocated.
//! 4. The **handler** reads payloads where the kernel put them, and writes **replies** into the
//!    batch's **outbox**: each with its **egress**, the NIC and source address it leaves by
//!    ([below](#the-way-of-a-reply)).
//! 5. The next turn gives the buffers back to the kernel, queues one `sendmsg` for each reply or
//!    [train](#trains) of replies, and makes one system call, `io_uring_enter`, that submits all of
//!    it and waits for the next datagrams. The kernel reads the replies straight from the outbox, which
//!    is used again once the last of its completions is in.
//!
//! The portable backend has the same five steps. Its second is `epoll` and `recvmmsg` into memory
//! of the batch's own, its fifth `sendmmsg`; guard, records, routes, counters are the same code.
//!
//! # What ends an arm
//!
//! `IORING_CQE_F_MORE` alone says whether an arm lives; a socket never has two.
//!
//! | the completion says | it means | the engine |
//! |---|---|---|
//! | no MORE, `ENOBUFS` | the kernel had no buffer left | arms again with the next turn, which gives it more; if none is spare it is *starved* until some were given back; datagrams wait in the socket |
//! | no MORE, no payload | a datagram of no bytes | hands it out, arms again |
//! | no MORE, with payload | the completion queue was full, or a limit of the kernel's | hands it out, arms again |
//! | no MORE, another error | trouble of the socket | counts, arms again, up to eight times in a row |
//! | `ECANCELED` | the socket is being removed, or the engine closed | lets go of the socket |
//!
//! The completion queue has room for every buffer, arm and reply at once, so that receives cannot
//! overflow it. A generation in each request's user data tells a late completion from one of the
//! socket that has the slot now.
//!
//! # One socket a class a NIC
//!
//! | socket | bound to | to the device | hears |
//! |---|---|---|---|
//! | unicast | the NIC's address | no | unicast to it, from outside and from this host |
//! | subnet | the broadcast address, once a device | yes | subnet broadcast; on `lo` 127.255.255.255 |
//! | limited | 255.255.255.255 | yes | limited broadcast |
//! | group | each group, joined on the NIC | yes | that group on that NIC |
//! | sender | 224.0.0.0, which no group ever is (RFC 1112) | no | nothing; sends by the kernel's route |
//!
//! Each frame is heard once: by the socket of its class on the NIC that it came by. A server on
//! 0.0.0.0 beside keeps its own copy of every broadcast; its unicasts it loses to a socket that is
//! bound to the address, or to a device, unless the engine is told [`Unicast::Leave`], which opens
//! no unicast sockets. An idle socket costs nothing on a ring.
//!
//! Binding to a device takes no privilege since Linux 5.7. Where it is refused,
//! [`Listen::Auto`] takes one socket on 0.0.0.0 and asks `IP_PKTINFO` for the NIC; with
//! `Unicast::Leave`, which such a socket cannot do, one socket a class for all NICs.
//!
//! "Heard once" is once a frame: two NICs on one segment hear two frames.
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
//! | a broadcast or a group | the NIC's address in the asker's subnet; else the one whose broadcast was asked; else its first |
//! | a group on `lo`, for an asker elsewhere (pvxs passes unicasts on so) | that of the kernel's route: no address of `lo` may leave the host |
//!
//! A reply that is pinned to the NIC of arrival is lost where the way back is another one, and one
//! by the kernel's route alone carries whatever address that route prefers: clients that compare it
//! with what they asked drop it. A subnet broadcast may have come through a router (EPICS sites do
//! send directed broadcasts), so its asker is not taken to be on the link unless its address says
//! so. The source port is the port that was asked. `ipi_ifindex` and `ipi_spec_dst` of `IP_PKTINFO`
//! ([ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html)) say both to the kernel; they override
//! a socket's device, so that any socket can send any way.
//!
//! The rules are a pure function over a snapshot of the NICs, two binary searches; a cache would
//! save nothing.
//!
//! # Trains
//!
//! On Linux replies to one client often leave together. Those of a batch that are next to each
//! other in the outbox, go to the same address and port from the same socket by the same egress,
//! and are of equal length (the last may be shorter) are a *train*: one `sendmsg`, which the kernel
//! cuts into datagrams again, its *segments* (`UDP_SEGMENT`,
//! [udp(7)](https://man7.org/linux/man-pages/man7/udp.7.html), Linux 4.18). In the kernel route,
//! firewall and queue are passed once for up to 64 datagrams; on the wire nothing differs, but that
//! "don't fragment" is not set where a train is longer than the MTU. Both backends do so. Nothing
//! waits for a train, and a reply that is alone leaves as ever. A client that asks for many names at
//! once is answered by trains.
//!
//! With 64 searches on their way, all of them hits, trains took `nicring serve` from 0.66 to 0.42 of
//! pvxs's CPU time a PVA search by broadcast, and from 0.40 to 0.19 by unicast. For CA, with answers
//! packed into one datagram besides, from 2.22 to 0.87 of rsrv's (`compare --work servers`).
//!
//! Counters count datagrams. Where a train is refused, its datagrams are sent again one by one and
//! counted then: by a path whose MTU is less than a segment needs, for segments of that length or
//! longer to that address, until some 1,000 datagrams later; by a device that computes no checksums
//! (before Linux 6.11), by IPsec, or by an old kernel, for good. Datagrams of the train that is
//! refused may be overtaken by later ones. Replies longer than 1,472 bytes are never part of a
//! train.
//!
//! # Answers that share a datagram
//!
//! `search::CaResponder::pack` answers the CA SEARCHes of a batch together. Answers for one asker by
//! one [way](crate::Datagram::reply_path), about one server, share datagrams of up to 1,024 bytes, 42
//! of them in each. None waits for anything but the end of its batch, when all replies leave.
//!
//! CPU time a search of `nicring serve` and of EPICS Base's server, which packs as well: names it
//! has, one a datagram, 64 on their way, by subnet broadcast (`compare --work ca-broadcast --hits 100`,
//! Linux 6.18, 2 virtual CPUs that had other work too, medians of 3 rounds, without trains):
//!
//! | `nicring serve` | ns | ratio to EPICS Base's server, 90 % interval |
//! |---|---|---|
//! | a reply for each datagram | 2,569 | 2.23 [2.18, 2.34] |
//! | packed | 1,169 | 0.98 [0.98, 1.00] |
//!
//! PVA is not packed: clients of pvxs read only the first message of a datagram.
//!
//! # NICs that come and go
//!
//! [`Handle::rescan`] lists the NICs again, closes the sockets of those that left or changed, opens
//! those of new ones, and touches no other. A NIC that is made again under its name has another
//! index, and its old sockets are deaf: a rescan replaces them. With [`Builder::follow_nics`] the
//! engine lists the NICs every so often itself, and rescans if they are other ones than before; a
//! list of 16 takes some 0.1 ms. Events of the system would tell sooner, by another way on each
//! system; a client that is not heard asks again for longer than that.
//!
//! # Coalescing
//!
//! What costs at a steady rate is waking up. With [`Coalesce::Adaptive`], the default, an engine
//! that has heard 50,000 datagrams a second or more waits up to 100 µs for more of them
//! (`min_wait_usec` of io_uring_enter, Linux 6.12); below 30,000 it stops doing so. An older kernel
//! cannot wait for several datagrams, nor can the portable backend: there the engine sleeps for
//! about as long before it asks, and datagrams wait in the sockets' queues.
//!
//! Clients that wait for an answer before they ask again send less while the server waits. So every
//! 64th window of 5 ms at a high rate the other choice is tried, and waiting is given up for as long as a quarter
//! more comes without it: against 64 searches on their way, one in 20 a hit, `nicring serve` answered
//! after 58 µs in place of 159 µs, for less CPU time. Nor is anything waited for where turns bring 16
//! datagrams and more by themselves, as in a burst: waking up then costs next to nothing a datagram. That,
//! too, is looked at anew every 64th window.
//!
//! Receiver's CPU time a datagram, evenly spaced datagrams of 80 bytes over 4 NICs
//! (veth between network namespaces, Linux 6.18, 2 virtual CPUs, one of them the sender's), none
//! lost:
//!
//! | datagrams/s | off | 50 µs | 100 µs | 200 µs | epoll + recvmmsg |
//! |---|---|---|---|---|---|
//! | 20,000 | 4,754 ns | 8,385 ns | 4,002 ns | 2,661 ns | |
//! | 50,000 | 2,077 ns | 3,680 ns | 1,689 ns | 1,427 ns | |
//! | 100,000 | 2,276 ns | 2,218 ns | 1,567 ns | 1,118 ns | |
//! | 200,000 | 1,629 ns | 1,381 ns | | 965 ns | 1,736 ns |
//! | 300,000 | 1,125 ns | 889 ns | 704 ns | 577 ns | |
//!
//! On a virtual machine a timer is dear: 50 µs cost more than they save below 100,000 a second.
//! 100 µs is the shortest wait that was never the worse choice where it is applied.
//! `cargo run --release -p nicring-bench --bin paced -- --help` measures it on another machine.
//!
//! # Spinning
//!
//! [`Builder::spin`] is the opposite: the thread looks for datagrams for a while before it sleeps. It
//! looks into memory that it shares with the kernel, without a system call; while coalescing waits
//! for more, it does not spin. Only io_uring offers it; the portable backend sleeps at once.
//!
//! At 10,000 datagrams a second the median delay of an answer is 13 µs with a spin of 200 µs, 46 µs
//! without, and 42 µs by a thread that blocks in `recvfrom` (0.30 [0.26, 0.35] of the latter; 4 NICs, 5
//! rounds, AMD EPYC, 2 virtual CPUs). It takes all the time of a processor, four times as much as
//! without. At 1,000 a second it saves nothing, because the next datagram is later than the spin is
//! long, and takes a fifth of a processor.
//!
//! # Which face for which program
//!
//! - A thread to spare: [`Engine::run`]. Nothing is cheaper.
//! - Async tasks, of any runtime: [`AsyncEngine::recv_batch`]. A thread of the engine's own serves
//!   the ring and lends whole batches out, buffers included; dropping the batch sends its replies
//!   and gives the buffers back. No waker runs under a lock.
//!
//! All threads' CPU time a datagram, 4 NICs, by `compare` (Linux 6.18, 2 virtual CPUs, medians of 7
//! rounds, ratio to the tokio loop with its 90 % interval):
//!
//! | receiver | storm | | 100,000/s | |
//! |---|---|---|---|---|
//! | `run` | 747 ns | 0.49 [0.48, 0.50] | 2,117 ns | 0.70 [0.69, 0.71] |
//! | `recv_batch`, tokio's current-thread runtime | 755 ns | 0.49 [0.48, 0.50] | 2,321 ns | 0.77 [0.75, 0.77] |
//! | `recv_batch`, inside tokio-uring | 758 ns | 0.50 [0.49, 0.51] | 2,346 ns | 0.77 [0.76, 0.78] |
//! | `recv_batch`, tokio's multi-thread runtime | 793 ns | 0.52 [0.51, 0.53] | 2,702 ns | 0.89 [0.88, 0.90] |
//! | `recv_batch`, current-thread, coalescing off | 1,751 ns | 1.14 [1.12, 1.18] | 3,812 ns | 1.26 [1.24, 1.27] |
//! | epoll with recvmmsg and sendmmsg | 1,022 ns | 0.67 [0.65, 0.68] | 2,805 ns | 0.92 [0.91, 0.93] |
//! | tokio, a task a socket, drained by try_recv_from | 1,531 ns | 1 | 3,033 ns | 1 |
//!
//! A batch that changes threads costs a wake-up. With coalescing there are few, and each carries
//! dozens of datagrams: the engine's thread is then the right way in every runtime. Without it there
//! is one for every few datagrams, and handing over costs more than a plain tokio loop: that is why
//! [`Coalesce::Adaptive`] is the default of this face too. (On an AMD EPYC where one CPU sends a
//! datagram each 5.5 µs: 0.47 [0.43, 0.54] of the tokio loop's time in a storm, 1.23 [1.15, 1.27] with
//! coalescing off.) Below its threshold, where it waits for nothing, a datagram costs a second
//! wake-up; what has to answer a trickle with the least delay is better off with `run`.
//!
//! # `AsyncUdpV4`: readiness or the ring
//!
//! The drop-in face has two ways to receive (`udp_v4`, with the feature of that name). By `compare`,
//! one task that receives one datagram after the other, medians of 4 rounds in a storm (AMD EPYC, 2
//! virtual CPUs, Linux 6.18, 2026-11-28):
//!
//! | receiver | 4 NICs | to tokio's | 16 NICs | to tokio's |
//! |---|---|---|---|---|
//! | `AsyncUdpV4`, readiness and recvmmsg | 4,276 ns | 1.14 [1.06, 1.16] | 4,401 ns | 1.07 [1.07, 1.08] |
//! | `AsyncUdpV4`, the ring | 4,041 ns | 1.08 [0.93, 1.17] | 5,575 ns | 1.36 [0.96, 1.69] |
//! | `AsyncUdpV4` of epics-base-rs 0.18.3 | 93,811 ns | 25.0 [23.7, 26.6] | 104,754 ns | 25.5 [24.0, 27.3] |
//! | the tokio loop | 3,759 ns | 1 | 4,113 ns | 1 |
//! | the same, told what `AsyncUdpV4` tells | 4,058 ns | 1.08 [1.04, 1.08] | 4,436 ns | 1.08 [1.04, 1.10] |
//!
//! and in bursts of 16:
//!
//! | receiver | 4 NICs | to tokio's | 16 NICs | to tokio's |
//! |---|---|---|---|---|
//! | `AsyncUdpV4`, readiness and recvmmsg | 1,479 ns | 1.19 [1.10, 1.27] | 1,226 ns | 0.97 [0.95, 1.11] |
//! | `AsyncUdpV4`, the ring | 1,843 ns | 1.49 [1.40, 1.54] | 1,803 ns | 1.43 [1.17, 1.52] |
//! | `AsyncUdpV4` of epics-base-rs 0.18.3 | 103,230 ns | 83.4 [76.7, 90.3] | 100,903 ns | 79.9 [78.4, 80.7] |
//! | the tokio loop | 1,239 ns | 1 | 1,263 ns | 1 |
//! | the same, told what `AsyncUdpV4` tells | 1,809 ns | 1.46 [1.41, 1.47] | 1,857 ns | 1.47 [1.41, 1.49] |
//!
//! The tokio loop is told neither destination nor interface nor drops: one datagram by two calls of
//! recvfrom takes 1.77 µs, by recvmmsg with `IP_PKTINFO` 2.17 µs, by two calls of recvmsg that ask the
//! same 2.44 µs.
//!
//! The ring is nowhere ahead by more than its interval: its thread hands every datagram over, and
//! tokio watches the same sockets and is woken too. So readiness is what [`Backend::Auto`] means for
//! this face.
//!
//! # Memory
//!
//! 1,024 buffers of 2 KiB. The kernel takes them in the order in which it was given them; given all,
//! it would write to each in turn and find none of them in the cache. So it has a stock of 64 at a
//! time, of those that were used last; twice as many after a turn that took more than three quarters
//! of them, though no more than a batch holds, or 64; half as many after 256 turns that took less than a
//! quarter. Running out of a stock costs one more arm, and loses nothing. A handler that is slow, or
//! tasks that keep batches, make the engine starve and the sockets queue (1 MiB each unless
//! [`Builder::recv_buffer_bytes`] says otherwise, and the kernel's `net.core.rmem_max` allows it);
//! what they cannot hold is counted in `kernel_drop_count`.
//!
//! Unsafe code stands under `src/uring/` alone, in the files that allow it by name. When an engine
//! closes, everything in its ring is cancelled, and the last completion awaited, before the sockets
//! are closed and memory is freed; what the kernel does not let go of within two seconds is leaked on
//! purpose.
//!
//! # Tuning
//!
//! The defaults are meant to be left alone. What each knob does, and what it was measured to do, with
//! coalescing off (`compare --nics 4 --work burst,storm --contestants run,run+KNOB=VALUE --against run`: bursts of 16
//! as fast as one processor can send them, 1.2 million a second, 0.7 µs each; and single datagrams, at
//! which the receiver falls asleep after every few. Linux 6.18, AMD EPYC, 2 virtual CPUs, medians of 9
//! rounds):
//!
//! | knob | default | it is for | CPU time a datagram, ratio to the default |
//! |---|---|---|---|
//! | [`Builder::coalesce`] | adaptive | fewer wake-ups for up to 100 µs of delay | [above](#coalescing) |
//! | [`Builder::spin`] | none | the least delay, for a processor of its own | [above](#spinning) |
//! | [`Builder::buffer_bytes`] | 2,048 | the longest datagram that is received whole | 256: 0.94 to 1.01; 8,192: 0.98 to 1.00, and 6 MiB more memory |
//! | [`Builder::buffer_count`] | 1,024 | how much handlers and leases may hold at once | 64: 0.92 to 1.09 (bench `turn`), and 2 MiB less; 4,096: 0.96 to 1.07, and 7 MiB more |
//! | [`Builder::batch_max`] | 256 | how soon the first of many is answered | 32: 0.95 to 1.00; 64: 0.99 to 1.08 (bench `turn`); 1,024: 0.98 to 1.02 |
//! | [`Builder::replies_max`] | 1,024 | how many replies a batch can have | not measured |
//! | [`Builder::recv_buffer_bytes`] | 1 MiB a socket | bursts while the handler is busy; a short datagram counts as about 800 | none |
//! | [`Builder::kernel_time`] | off | when the kernel received each | 1.02 to 1.05 |
//!
//! What matters more: a handler that does not block, a processor that is not shared with the NIC's
//! interrupts, and a `net.core.rmem_max` that allows the receive buffers (`nicring doctor` tells).
//!
//! # What was tried
//!
//! In a burst six sevenths of a datagram's time are the kernel's: the queue of the socket, copying,
//! the free list of packets. A loop of epoll and recvmmsg pays that too, and a few per cent are left to
//! win: io_uring takes 0.97 [0.92, 1.03] of that loop's time over 4 NICs, 0.95 [0.89, 1.01] over 16.
//! Where datagrams come one by one, waking up is what costs (2.3 to 4 µs a datagram, by machine, for
//! everybody), and only waking less helps: with coalescing off io_uring takes 0.96 [0.92, 0.99] and
//! 0.95 [0.90, 0.99] of that loop's time, with it 0.40 and 0.42.
//!
//! | experiment | effect | kept |
//! |---|---|---|
//! | waiting for several datagrams at a high rate | 0.75 to 1.17 of the receiver's time, 0.60 of the whole machine's, by machine and rate | yes: [Coalescing](#coalescing) |
//! | `min_wait_usec`, against a loop that sleeps as long after each wake-up (200 µs) | storm 0.91 [0.87, 1.03] of its time over 4 NICs, 1.03 [0.98, 1.06] over 16, burst 0.92 [0.88, 0.97], 64 PVA searches on their way 0.61 at 0.45 of its p99 delay, CA 1.07 at 0.55 of its p99 delay | yes |
//! | not waiting where turns bring 16 and more by themselves | 0.84 to 0.87 against 0.90 to 1.03 of a tokio loop's time in a burst, with the row on drops below; up to 100 µs less delay | yes |
//! | looking for datagrams before sleeping | 0.28 of the delay at 10,000/s, four times the time | yes, where asked for |
//! | the same for 2, 5 or 10 µs only, in a storm of 180,000/s | 1.3 to 1.5 of the time | no: the next datagram is 5 µs away |
//! | replies to one client as segments of one send | 0.64 (PVA by broadcast), 0.48 (by unicast) of the server's time | yes: [Trains](#trains) |
//! | CA answers packed | 0.45 of the server's time | yes |
//! | drops asked of the socket (`SO_MEMINFO`), not told with every datagram (`SO_RXQ_OVFL`) | 0.90 [0.76, 0.97] in a burst, 1.03 [1.00, 1.07] one by one | yes |
//! | no control messages at all | 0.83 [0.70, 0.91] in a burst, 1.00 [0.96, 1.02] one by one | for sockets that are bound to a device; replies of the others need the address and the NIC that were asked |
//! | headers for twice what came last in `recvmmsg`, not always for 64 | up to 60 headers less to write a call on the portable backend, 12 with `AsyncUdpV4` | yes |
//! | `COOP_TASKRUN` in place of `DEFER_TASKRUN` | 0.95 [0.77, 1.05] in a burst, 1.01 [0.94, 1.06] one by one; 0.4 to 0.6 of the system calls | no: completions would interrupt what the handler waits in (`EINTR`) |
//! | few buffers with the kernel at a time, those that were used last, in place of all in turn | 0.84 to 0.87 of receiving what waits, 16 and 64 at each of 4 sockets (bench `turn`) | yes: [Memory](#memory) |
//! | no more of them than a batch holds | 0.83 of the same with 16 at each of 16 sockets, 0.96 with 64 at each of 4 | yes |
//! | huge pages for the buffers | 0.98 to 1.02 of the same | no |
//! | records built where they are kept | 0.97 to 0.98 of the same | yes |
//! | room for control messages of 32 bytes, not 112 | 1.00 of the same | no |
//! | buffers, rings and batches of other sizes | none | the table above |
//! | receive offload (`UDP_GRO`) | 0.29 [0.22, 0.29] of a tokio loop's time for bursts that arrive as one packet, 1.34 [1.14, 1.61] for single datagrams (contestant `quinn-udp`) | no: buffers would have to hold 64 KiB each, and only datagrams of one length and one sender, by unicast, are joined; those of SEARCH differ in length |
//! | a registered descriptor of the ring (`IORING_ENTER_REGISTERED_RING`) | 0.97 to 1.05 of receiving what waits | no |
//! | prefetching the next completion's buffer | 0.94 to 1.04 of the same, without a pattern | no |
//! | `recv_batch` without a thread: tokio's epoll watches a ring with `COOP_TASKRUN` (a prototype) | one by one 1.05 [1.01, 1.11] of a tokio loop's time, in a burst 0.83 [0.82, 0.93]; with the thread 1.22 [1.19, 1.26] and 0.97 [0.94, 1.06], all with coalescing off | no: it would interrupt what the runtime's thread waits in, and tie the engine to that thread; coalescing gains more |
//! | sending from the receive buffer | not tried: nicring's own code and the bench's are 11 % of the samples, and answers are other bytes than questions | no |
//! | sends that end without a completion (`IOSQE_CQE_SKIP_SUCCESS`) | not tried: would save one of two system calls where a datagram comes alone and is answered, as the completion of the send ends the wait (trickle: 2.0 a datagram) | no: the completion tells that a reply was sent or refused, and when the outbox is free again |
//! | `SO_BUSY_POLL`, NAPI | not tried: veth, which all of this was measured over, has no queue to poll | no |
//!
//! # What nicring does not do
//!
//! - IPv6, and TCP.
//! - Raise privileges, change routes, or configure interfaces.
//! - Answer twice: a client that is heard on two NICs of one segment is answered on both.
//! - Promise order across sockets: datagrams of one socket stay in order, those of two do not.
//!
//! [`AsyncEngine::recv_batch`]: crate::AsyncEngine::recv_batch
//! [`Backend::Auto`]: crate::Backend::Auto
//! [`Builder::batch_max`]: crate::Builder::batch_max
//! [`Builder::buffer_bytes`]: crate::Builder::buffer_bytes
//! [`Builder::buffer_count`]: crate::Builder::buffer_count
//! [`Builder::coalesce`]: crate::Builder::coalesce
//! [`Builder::kernel_time`]: crate::Builder::kernel_time
//! [`Builder::recv_buffer_bytes`]: crate::Builder::recv_buffer_bytes
//! [`Builder::replies_max`]: crate::Builder::replies_max
//! [`Builder::follow_nics`]: crate::Builder::follow_nics
//! [`Builder::spin`]: crate::Builder::spin
//! [`Coalesce::Adaptive`]: crate::Coalesce::Adaptive
//! [`Engine::run`]: crate::Engine::run
//! [`Handle::rescan`]: crate::Handle::rescan
//! [`Listen::Auto`]: crate::Listen::Auto
//! [`Unicast::Leave`]: crate::Unicast::Leave
