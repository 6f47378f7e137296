//! What was measured, what was tried, and what was kept because of it. No code, only this page.
//!
//! Ratios are of CPU time per datagram. Contestants took turns in one run; in brackets stands the
//! 90 % interval. Unless a table says otherwise: veth between network namespaces, Linux 6.18, 2
//! virtual CPUs, one of them the sender's. `cargo run --release -p nicring-bench --bin compare --
//! --help` measures most of it on another machine; `benches/README.md` tells how.
//!
//! # Segments
//!
//! CPU time per search of `nicring serve`, ratio to that of the server named, 64 searches on their
//! way, all of them hits (`compare --work servers`):
//!
//! | | replies one by one | as segments |
//! |---|---|---|
//! | PVA by broadcast, against pvxs | 0.66 | 0.42 |
//! | PVA by unicast, against pvxs | 0.40 | 0.19 |
//! | CA, answers packed besides, against rsrv | 2.22 | 0.87 |
//!
//! "Don't fragment" is not set where a run of segments is longer than the MTU. Replies longer than
//! 1,472 bytes are never part of a run. Datagrams of a run that is refused may be overtaken by
//! later ones. A path whose MTU is less than a segment needs ends segments of that length to that
//! address, until some 1,000 datagrams later. A device that computes no checksums (before Linux
//! 6.11), IPsec or an old kernel ends them for good.
//!
//! # Answers that share a datagram
//!
//! `search::CaResponder::pack` answers the CA SEARCHes of a batch together. Answers for one asker
//! by one [way](crate::Datagram::reply_path), about one server, share datagrams of up to 1,024
//! bytes, 42 of them in each. None waits for anything but the end of its batch, when all replies
//! leave. PVA is not packed: clients of pvxs read only the first message of a datagram.
//!
//! CPU time per search of `nicring serve` and of EPICS Base's server, which packs as well: names it
//! has, one per datagram, 64 on their way, by subnet broadcast, without segments (`compare --work
//! ca-broadcast --hits 100`, medians of 3 rounds, CPUs that had other work too):
//!
//! | `nicring serve` | ns | ratio to EPICS Base's server |
//! |---|---|---|
//! | a reply for each datagram | 2,569 | 2.23 [2.18, 2.34] |
//! | packed | 1,169 | 0.98 [0.98, 1.00] |
//!
//! # Looking names up
//!
//! What a look-up costs is waiting for memory, and most searches that a server hears are for names
//! of others. So the names of a datagram, and of a batch, are looked up together
//! ([`Lookup`](crate::search::Lookup)): each step for up to 32 of them before the next, so that the
//! processor waits for the memory of all of them at once. Before the index stands a filter of 13
//! bits a name (a Bloom filter whose bits for a name lie in one word); one in fifty of the names
//! that a table does not have passes it. A name takes 20.4 bytes beside its own.
//!
//! ns per name, each name asked for once before any is asked for again (`cargo bench -p
//! nicring-bench --bench lookup`; Linux 6.18, AMD EPYC, 2026-11-30):
//!
//! | names in the table | 10,000 | 1,000,000 | 5,000,000 |
//! |---|---|---|---|
//! | hits, one by one | 31 | 234 | 505 |
//! | hits, 20 together | 28 | 129 | 150 |
//! | hits, hashbrown's `HashTable` over the same names | 29 | 347 | 392 |
//! | misses, one by one | 24 | 62 | 169 |
//! | misses, 20 together | 28 | 35 | 38 |
//! | misses, hashbrown's | 12 | 87 | 147 |
//!
//! hashbrown has no way to look for several at once; its rows find exact names, ours fields of
//! records and patterns too, for which a name that is not there is searched for a dot. What was
//! tried, as ratios of a responder's time per name to that before, 20 names a datagram (CA, PVA):
//!
//! | experiment | 1,000,000 names | 5,000,000 names | kept |
//! |---|---|---|---|
//! | together behind the filter: misses | 0.34, 0.43 | 0.18, 0.21 | yes |
//! | the same: hits | 0.36, 0.48 | 0.31, 0.38 | yes |
//! | hash and filter of a name in one step, not in two | 0.29, 0.35 (misses) | 0.26, 0.26 (misses) | no: fewer accesses are under way at once |
//! | foldhash in place of a multiply-and-fold of our own | 2 ns a name for about 6 | | yes |
//! | probing by a loop, not by chained iterators | 0.64 of a single hit's time, 0.78 at 10,000 names | | yes |
//! | prefetch instructions | not tried: independent loads do the same, and safe code can do them | | no |
//!
//! # Delay
//!
//! CPU time of the receiver per datagram: evenly spaced datagrams of 80 bytes over 4 NICs, none
//! lost, by how long the engine waits:
//!
//! | datagrams per second | none | 50 µs | 100 µs | 200 µs | epoll + recvmmsg |
//! |---|---|---|---|---|---|
//! | 20,000 | 4,754 ns | 8,385 ns | 4,002 ns | 2,661 ns | |
//! | 50,000 | 2,077 ns | 3,680 ns | 1,689 ns | 1,427 ns | |
//! | 100,000 | 2,276 ns | 2,218 ns | 1,567 ns | 1,118 ns | |
//! | 200,000 | 1,629 ns | 1,381 ns | | 965 ns | 1,736 ns |
//! | 300,000 | 1,125 ns | 889 ns | 704 ns | 577 ns | |
//!
//! On a virtual machine a timer is dear: 50 µs cost more than they save below 100,000 per second.
//! 100 µs is the shortest wait that was never the worse choice where it is applied.
//!
//! With an allowance of 1 ms, as `nicring serve` has, and receive buffers of 4 MiB (the sender on
//! one CPU, the receiver on the other; medians of 3 to 5 rounds of 7 s, from the second second on;
//! Linux 6.18, 2 virtual CPUs, AMD EPYC, 2026-11-29). In parentheses stand system calls per
//! datagram:
//!
//! | receiver | 5,000 per second | 20,000 per second |
//! |---|---|---|
//! | io_uring, none | 10,919 ns (1.00) | 7,062 ns (1.00) |
//! | io_uring, 1 ms | 4,617 ns (0.21) | 1,781 ns (0.06) |
//! | the same by sleeping, as before Linux 6.12 | 5,158 ns (0.42) | 1,785 ns (0.13) |
//! | portable, none | 10,885 ns (2.00) | 7,344 ns (1.92) |
//! | portable, 1 ms | 4,933 ns (1.18) | 1,923 ns (0.31) |
//! | epoll + recvmmsg | 9,694 ns (1.99) | 7,328 ns (1.93) |
//!
//! Rounds differ by up to a fifth, and so do the rows of one column. A tenth of the system calls in
//! the first seconds are those of trials, which come often at first. (`taskset -c 0
//! target/release/paced --nics 4 --rate 5000 --backend
//! nicring+delay=1000+recv_buffer_bytes=4194304`)
//!
//! Clients that wait for an answer before they ask again: `nicring storm` with one or four searches
//! on their way had 16,900 and 119,000 answers per second from `nicring serve --delay-max 1ms`,
//! 17,600 and 120,000 with 0 (over loopback, one CPU each; medians of two rounds of both backends,
//! which differ by a fifth). Against 64 searches on their way, one in 20 a hit, `nicring serve`
//! answered after 58 µs in place of 159 µs where it gave up waiting, for less CPU time.
//!
//! # Spinning
//!
//! At 10,000 datagrams per second the median delay of an answer is 13 µs with a spin of 200 µs, 46
//! µs without, and 42 µs by a thread that blocks in `recvfrom` (0.30 [0.26, 0.35] of the latter; 4
//! NICs, 5 rounds, AMD EPYC). Spinning takes all the time of a processor, four times as much as
//! without. At 1,000 per second it saves nothing, because the next datagram is later than the spin
//! is long, and it takes a fifth of a processor.
//!
//! # Which face for which program
//!
//! CPU time of all threads per datagram, 4 NICs (medians of 7 rounds, ratio to the tokio loop):
//!
//! | receiver | storm | | 100,000 per second | |
//! |---|---|---|---|---|
//! | `run` | 747 ns | 0.49 [0.48, 0.50] | 2,117 ns | 0.70 [0.69, 0.71] |
//! | `recv_batch`, tokio's current-thread runtime | 755 ns | 0.49 [0.48, 0.50] | 2,321 ns | 0.77 [0.75, 0.77] |
//! | `recv_batch`, inside tokio-uring | 758 ns | 0.50 [0.49, 0.51] | 2,346 ns | 0.77 [0.76, 0.78] |
//! | `recv_batch`, tokio's multi-thread runtime | 793 ns | 0.52 [0.51, 0.53] | 2,702 ns | 0.89 [0.88, 0.90] |
//! | `recv_batch`, current-thread, no delay | 1,751 ns | 1.14 [1.12, 1.18] | 3,812 ns | 1.26 [1.24, 1.27] |
//! | epoll with recvmmsg and sendmmsg | 1,022 ns | 0.67 [0.65, 0.68] | 2,805 ns | 0.92 [0.91, 0.93] |
//! | tokio, one task per socket, drained by try_recv_from | 1,531 ns | 1 | 3,033 ns | 1 |
//!
//! A batch that changes threads costs a wake-up. With a delay there are few, and each carries
//! dozens of datagrams. Without it there is one for every few datagrams, and handing over costs
//! more than a plain tokio loop. That is why 100 µs are the default of this face
//! too. (On an AMD EPYC where one CPU sends a datagram each 5.5 µs: 0.47 [0.43, 0.54] of the tokio
//! loop's time in a storm, 1.23 [1.15, 1.27] without delay.) Below its threshold, where the
//! engine waits for nothing, a datagram costs a second wake-up: what has to answer a trickle with
//! the least delay is better off with `run`.
//!
//! # More than one core
//!
//! How much faster two shards on two CPUs empty full queues than one, and how much faster two
//! processes do that share nothing but the machine (bench `shards`, 15 rounds, 2026-11-30):
//!
//! | what comes | one shard, per second | two shards | two processes |
//! |---|---|---|---|
//! | 80 bytes by unicast | 1,090,000 | 1.61 [1.55, 1.63] | 1.60 [1.56, 1.61] |
//! | 80 bytes by broadcast | 1,150,000 | 1.54 [1.43, 1.59] | 1.56 [1.54, 1.59] |
//! | CA SEARCH for 20 names, all misses, by unicast | 584,000 | 1.77 [1.46, 1.79] | 1.67 [1.57, 1.74] |
//! | the same by broadcast | 601,000 | 1.80 [1.72, 1.85] | 1.71 [1.64, 1.75] |
//! | 19 misses and a hit, by unicast | 176,000 | 1.95 [1.89, 2.00] | 1.99 [1.93, 2.06] |
//! | the same by broadcast | 176,000 | 1.93 [1.88, 1.99] | 2.02 [1.98, 2.04] |
//!
//! What is missing to 2 is the machine's, whose CPUs share caches and memory. One shard costs what
//! one engine does: 1.00 [0.99, 1.01] of its time.
//!
//! More than two CPUs were not there to measure. What they would give follows from the parts. A
//! broadcast costs who delivers it (the softirq of a NIC's queue; here the sender's system call
//! too) 4.8 µs with one shard, 5.1 with two, 5.5 with four and 6.3 with eight: 0.2 µs for each
//! copy. A unicast costs 3.9 µs, whatever the number of shards. So a CPU delivers some 200,000
//! datagrams per second. One shard takes 1.1 million per second of 80 bytes, but only 176,000 with
//! 20 names and a hit. Who answers many names a datagram gains a shard's worth with every further
//! CPU, as long as as many CPUs deliver, and gives 4 % of their time for each shard that copies are
//! made for. Who counts short datagrams needs no second shard where fewer than five CPUs deliver.
//!
//! Where one core is enough, shards lose: a second one halves the batches. In a storm from 64
//! senders, two shards on one CPU take 1.29 [1.23, 1.30] of the time of one engine by unicast, and
//! 1.31 [1.29, 1.38] by broadcast; the whole machine 1.02 [0.99, 1.10] and 1.17 [1.16, 1.22]
//! (`compare --work storm,broadcast --senders 64`).
//!
//! # A filter
//!
//! A storm of broadcasts over 4 NICs, nine beacons of PVA for each SEARCH, per datagram sent
//! (`compare --work foreign --senders 64`):
//!
//! | `Builder::filter`, against none | receiver | machine |
//! |---|---|---|
//! | io_uring | 0.26 [0.26, 0.29] | 0.84 [0.82, 0.90] |
//! | portable, against io_uring without | 0.29 [0.28, 0.32] | 0.84 [0.82, 0.89] |
//! | io_uring, a delay of 1 ms and buffers of 4 MiB | 0.25 [0.23, 0.28] | 0.86 [0.83, 0.90] |
//!
//! What is left is mostly waking up for the tenth that is kept, and delivering.
//!
//! # Async handlers
//!
//! `Shards::run_async`, one shard, against `recv_batch` on tokio's current-thread runtime, 4 NICs
//! (`compare --contestants recv_batch,nicring+async,nicring+async=later,nicring`, 7 rounds):
//!
//! | handler | storm | 64 CA searches on their way | p50 | 64 PVA searches | p50 |
//! |---|---|---|---|---|---|
//! | `run_async`, answers at once | 1.02 [0.96, 1.02] | 0.51 [0.49, 0.54] | 86 µs | 0.71 [0.66, 0.74] | 107 µs |
//! | `run_async`, each batch waits once | 1.19 [1.08, 1.26] | 0.62 [0.60, 0.66] | 64 µs | 0.77 [0.71, 0.80] | 85 µs |
//! | `run` | 0.91 [0.87, 0.93] | 0.38 [0.37, 0.40] | 118 µs | 0.58 [0.51, 0.60] | 183 µs |
//! | `recv_batch` | 1 | 1 | 58 µs | 1 | 63 µs |
//! | `recv_batch`, inside tokio-uring | 1.03 [0.99, 1.03] | 1.01 [0.99, 1.01] | 63 µs | 1.01 [0.98, 1.02] | 72 µs |
//!
//! So it pays where handlers wait, for files or for others, and there is no runtime yet that they
//! have to live in: nothing crosses a thread, and futures need not be `Send`. What answers from
//! memory is better off with `run`, and what lives in a runtime already with `recv_batch`, which
//! also answers soonest: its engine receives on a thread of its own while a task answers.
//!
//! # `AsyncUdpV4`: readiness or the ring
//!
//! The drop-in face has two ways to receive (`udp_v4`, with the feature of that name). One task
//! that receives one datagram after the other, medians of 4 rounds in a storm (AMD EPYC,
//! 2026-11-28):
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
//! The tokio loop is told neither destination nor interface nor drops. One datagram by two calls of
//! recvfrom takes 1.77 µs, by recvmmsg with `IP_PKTINFO` 2.17 µs, by two calls of recvmsg that ask
//! the same 2.44 µs.
//!
//! The ring is nowhere ahead by more than its interval: its thread hands every datagram over, and
//! tokio watches the same sockets and is woken too. So readiness is what [`Backend::Auto`] means
//! for this face.
//!
//! # Memory
//!
//! The kernel takes buffers in the order in which it was given them. Given all 1,024 of 2 KiB, it
//! would write to each in turn and find none of them in the cache. So it has a stock of 64 at a
//! time, of those that were used last: twice as many after a turn that took more than three
//! quarters of them, though no more than a batch holds, or 64; half as many after 256 turns that
//! took less than a quarter. Running out of a stock costs one more arm and loses nothing. What
//! sockets cannot hold is counted in `kernel_drop_count`.
//!
//! # What each setting does
//!
//! Without delay (`compare --nics 4 --work burst,storm --contestants
//! nicring-no-delay,nicring-no-delay+KNOB=VALUE --against nicring-no-delay`: bursts of 16 as fast
//! as one processor can send them, 1.2 million per second, 0.7 µs each; and single datagrams, at
//! which the receiver falls asleep after every few; AMD EPYC, medians of 9 rounds):
//!
//! | setting | ratio to the default |
//! |---|---|
//! | [`Builder::buffer_bytes`] | 256: 0.94 to 1.01; 8,192: 0.98 to 1.00, and 6 MiB more memory |
//! | [`Builder::buffer_count`] | 64: 0.92 to 1.09 (bench `turn`), and 2 MiB less; 4,096: 0.96 to 1.07, and 7 MiB more |
//! | [`Builder::batch_max`] | 32: 0.95 to 1.00; 64: 0.99 to 1.08 (bench `turn`); 1,024: 0.98 to 1.02 |
//! | [`Builder::replies_max`] | not measured |
//! | [`Builder::recv_buffer_bytes`] | none |
//! | [`Builder::kernel_time`] | 1.02 to 1.05 |
//!
//! # What was tried
//!
//! In a burst six sevenths of a datagram's time are the kernel's: the queue of the socket, copying,
//! the free list of packets. A loop of epoll and recvmmsg pays that too, and a few per cent are
//! left to win: io_uring takes 0.97 [0.92, 1.03] of that loop's time over 4 NICs, 0.95 [0.89, 1.01]
//! over 16. Where datagrams come one by one, waking up is what costs (2.3 to 4 µs per datagram, by
//! machine, for everybody), and only waking less helps: without delay io_uring takes 0.96 [0.92,
//! 0.99] and 0.95 [0.90, 0.99] of that loop's time, with 100 µs 0.40 and 0.42.
//!
//! | experiment | effect | kept |
//! |---|---|---|
//! | waiting for several datagrams at a high rate | 0.75 to 1.17 of the receiver's time, 0.60 of the whole machine's, by machine and rate | yes |
//! | `min_wait_usec`, against a loop that sleeps as long after each wake-up (200 µs) | storm 0.91 [0.87, 1.03] of its time over 4 NICs, 1.03 [0.98, 1.06] over 16, burst 0.92 [0.88, 0.97], 64 PVA searches on their way 0.61 at 0.45 of its p99 delay, CA 1.07 at 0.55 of its p99 delay | yes |
//! | not waiting where turns bring 16 and more by themselves | 0.84 to 0.87 against 0.90 to 1.03 of a tokio loop's time in a burst, with the row on drops below; up to 100 µs less delay | yes |
//! | looking for datagrams before sleeping | 0.28 of the delay at 10,000 per second, four times the time | yes, where asked for |
//! | the same for 2, 5 or 10 µs only, in a storm of 180,000 per second | 1.3 to 1.5 of the time | no: the next datagram is 5 µs away |
//! | replies to one client as segments of one send | 0.64 (PVA by broadcast), 0.48 (by unicast) of the server's time | yes |
//! | CA answers packed | 0.45 of the server's time | yes |
//! | drops asked of the socket (`SO_MEMINFO`), not told with every datagram (`SO_RXQ_OVFL`) | 0.90 [0.76, 0.97] in a burst, 1.03 [1.00, 1.07] one by one | yes |
//! | no control messages at all | 0.83 [0.70, 0.91] in a burst, 1.00 [0.96, 1.02] one by one | for sockets that are bound to a device; replies of the others need the address and the NIC that were asked |
//! | headers for twice what came last in `recvmmsg`, not always for 64 | up to 60 headers less to write per call on the portable backend, 12 with `AsyncUdpV4` | yes |
//! | `COOP_TASKRUN` in place of `DEFER_TASKRUN` | 0.95 [0.77, 1.05] in a burst, 1.01 [0.94, 1.06] one by one; 0.4 to 0.6 of the system calls | no: completions would interrupt what the handler waits in (`EINTR`) |
//! | few buffers with the kernel at a time, those that were used last, in place of all in turn | 0.84 to 0.87 of receiving what waits, 16 and 64 at each of 4 sockets (bench `turn`) | yes: [Memory](#memory) |
//! | no more of them than a batch holds | 0.83 of the same with 16 at each of 16 sockets, 0.96 with 64 at each of 4 | yes |
//! | huge pages for the buffers | 0.98 to 1.02 of the same | no |
//! | records built where they are kept | 0.97 to 0.98 of the same | yes |
//! | room for control messages of 32 bytes, not 112 | 1.00 of the same | no |
//! | buffers, rings and batches of other sizes | none | [What each setting does](#what-each-setting-does) |
//! | receive offload (`UDP_GRO`) | 0.29 [0.22, 0.29] of a tokio loop's time for bursts that arrive as one packet, 1.34 [1.14, 1.61] for single datagrams (contestant `quinn-udp`) | no: buffers would have to hold 64 KiB each, and only datagrams of one length and one sender, by unicast, are joined; those of SEARCH differ in length |
//! | a registered descriptor of the ring (`IORING_ENTER_REGISTERED_RING`) | 0.97 to 1.05 of receiving what waits | no |
//! | prefetching the next completion's buffer | 0.94 to 1.04 of the same, without a pattern | no |
//! | `recv_batch` without a thread: tokio's epoll watches a ring with `COOP_TASKRUN` (a prototype) | one by one 1.05 [1.01, 1.11] of a tokio loop's time, in a burst 0.83 [0.82, 0.93]; with the thread 1.22 [1.19, 1.26] and 0.97 [0.94, 1.06], all without delay | no: it would interrupt what the runtime's thread waits in, and tie the engine to that thread; a delay gains more |
//! | sending from the receive buffer | not tried: nicring's own code and the bench's are 11 % of the samples, and answers are other bytes than questions | no |
//! | sends that end without a completion (`IOSQE_CQE_SKIP_SUCCESS`) | not tried: would save one of two system calls where a datagram comes alone and is answered, as the completion of the send ends the wait (trickle: 2.0 per datagram) | no: the completion tells that a reply was sent or refused, and when the outbox is free again |
//! | `SO_BUSY_POLL`, NAPI | not tried: veth, which all of this was measured over, has no queue to poll | no |
//!
//! [`Backend::Auto`]: crate::Backend::Auto
//! [`Builder::batch_max`]: crate::Builder::batch_max
//! [`Builder::buffer_bytes`]: crate::Builder::buffer_bytes
//! [`Builder::buffer_count`]: crate::Builder::buffer_count
//! [`Builder::kernel_time`]: crate::Builder::kernel_time
//! [`Builder::recv_buffer_bytes`]: crate::Builder::recv_buffer_bytes
//! [`Builder::replies_max`]: crate::Builder::replies_max
