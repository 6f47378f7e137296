//! What nicring logs, by [tracing](https://docs.rs/tracing). No code, only this page.
//!
//! Nothing is logged per datagram: that is what [`Stats`](crate::Stats) counts. What becomes of
//! NICs, sockets and groups has the target `nicring::events`; a program gets the same by
//! [`Handle::events`](crate::Handle::events). The other targets are those of modules, such as
//! `nicring::engine::rescan`: the table names their beginnings, and the rest may change.
//!
//! ```text
//! NICRING_LOG=nicring=warn,nicring::events=debug nicring serve --pvs pvs.txt
//! ```
//!
//! That is a filter of [tracing-subscriber](https://docs.rs/tracing-subscriber), as the program
//! `nicring` reads it from its environment.
//!
//! | level | target | message | fields | what it means |
//! |---|---|---|---|---|
//! | info | `nicring::events` | listening on a NIC | `nic`, `ifindex` | the NIC came, went up or got an address |
//! | info | `nicring::events` | a NIC is gone | `nic`, `ifindex` | it went, went down or lost its addresses; it is listened on again when it comes back |
//! | warn | `nicring::events` | not heard | `nic`, `address`, `error` | a socket or a group failed; `error` has the cause and the remedy. It is tried again |
//! | debug | `nicring::events` | a socket was opened | `nic`, `address`, `hears` | at the start, and when a NIC comes |
//! | debug | `nicring::events` | a socket was closed | `nic`, `address`, `hears` | what it was for has gone, or it failed |
//! | debug | `nicring::events` | a group was joined | `group`, `ifindex` | - |
//! | debug | `nicring::events` | a group was left | `group`, `ifindex` | - |
//! | warn | `nicring::engine` | tokio hosts the handlers | `error` | io_uring is refused to tokio-uring's runtime |
//! | info | `nicring::engine` | running on the portable backend | `unavailable` | io_uring is refused, and why |
//! | debug | `nicring::engine` | chose how to listen | `layout` | see the guide |
//! | warn | `nicring::engine` | keeping the NICs as they were until they can be listed | `error` | the system does not list its NICs; it is asked again |
//! | warn | `nicring::engine` | tasks keep all batches or buffers of this engine: it receives nothing until they drop some | - | answer by `Handle::reply_by`, and drop batches early |
//! | error | `nicring::wakers` | the waker of a task panicked: the task may wait for ever | - | a fault of the async runtime |
//! | warn | `nicring::uring` | waking the engine | `error` | a handle could not wake it: what it asked for is late |
//! | warn | `nicring::fallback` | waking the engine | `error` | the same on the portable backend |
//! | warn | `nicring::uring` | a socket stays open until the engine closes | `error`, `slot` | its port may be held until then |
//! | warn | `nicring::uring` | a socket stays registered until the engine closes | `error`, `slot` | its port may be held until then |
//! | warn | `nicring::uring` | the ports may be held until the ring is gone | `error` | - |
//! | error | `nicring::uring` | the NICs are no longer followed | `completion` | call `Handle::rescan` when they change |
//! | error | `nicring::uring` | io_uring did not come to rest: its memory is kept for good | - | a fault of the kernel |
//! | error | `nicring::uring` | cancelling what is under way | `error` | a fault of the kernel |
//! | error | `nicring::uring` | waiting for what was cancelled | `error` | a fault of the kernel |
//! | error | `nicring::uring` | sending the datagrams of a run one by one | `error` | they are counted as not sent |
//! | error | `nicring::uring` | sending by a spare sender | `error` | they are counted as not sent |
//! | error | `nicring::uring` | a completion of nothing that is being sent | `completion` | a fault of nicring or of the kernel: please report it |
//! | error | `nicring::uring` | a completion of no request | `completion` | a fault of nicring or of the kernel: please report it |
//! | debug | `nicring::uring` | submitting before a socket leaves | `error` | - |
//! | debug | `nicring::uring` | the buffer ring goes with the ring | `error` | - |
//! | info | `nicring::sys` | news of links were lost: listing them anew | - | too many changes at once; nothing is missed |
//! | debug | `nicring::sys` | the kernel takes no segments: datagrams leave one by one | `errno` | a device without checksums, or IPsec |
//! | warn | `nicring::sys` | a shard is not kept on its processor | `error`, `number` | sched_setaffinity(2) is refused |
//! | info | `nicring::udp_v4` | bundles receive by io_uring | `setup` | - |
//! | warn | `nicring::udp_v4` | no io_uring for a bundle: receiving by readiness | `error` | io_uring is refused, and why |
//! | warn | `nicring::udp_v4` | io_uring refuses a bundle: it receives by readiness | `error` | - |
//! | warn | `nicring::udp_v4` | a socket failed: its bundle receives by readiness | `error` | - |
//! | error | `nicring::udp_v4` | io_uring has failed: bundles receive by readiness | `cause` | - |
//! | error | `nicring::udp_v4` | the ports of a bundle may not be free yet | `error`, `held_count` | - |
//! | error | `nicring::udp_v4` | a waker has panicked | - | a fault of the async runtime |
//! | warn | `nicring::udp_v4` | a NIC is not heard | `error` | has the cause and the remedy |
//! | warn | `nicring::udp_v4` | a NIC does not hear the group | `error`, `group`, `port` | has the cause and the remedy |
//! | warn | `nicring::udp_v4` | a smaller receive buffer | `given`, `size`, `iface_ip` | raise net.core.rmem_max |
//! | warn | `nicring::udp_v4` | 127.0.0.1 is taken for the only address | `error` | the system does not list its NICs |
//! | warn | `nicring::udp_v4` | the snapshot of the interfaces stays as it was | `error` | the system does not list its NICs |
//! | debug | `nicring::udp_v4` | receiving | `error`, `iface_ip` | - |
//! | debug | `nicring::udp_v4` | fanout | `error`, `iface_ip`, `dest` | - |
//! | debug | `nicring::udp_v4` | refused | `error`, `iface_ip`, `option` | a socket option that the system does not have |
