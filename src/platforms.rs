//! What the API promises, and how each system keeps it. No code, only this page.
//!
//! *Kept*: the system does it. *In user space*: nicring does what the system does not. *Not
//! offered*: the system has no means that safe code can reach, and the API says so with what stands
//! behind the colon, never with something invented. The last column names the test that holds a row
//! to it, in `tests/conformance/`; on the system that it runs on, a test compares the cells with
//! what it observes.
//!
//! | promise | Linux, io_uring | Linux, portable | macOS | FreeBSD | Windows | test |
//! |---|---|---|---|---|---|---|
//! | the destination of a datagram | kept | kept | kept | kept | kept | `api::receive::a_datagram_is_heard_once_with_all_that_is_known_of_it` |
//! | the interface it arrived on | kept | kept | kept | kept | kept | `api::receive::a_datagram_is_heard_once_with_all_that_is_known_of_it` |
//! | a datagram of no bytes is one | kept | kept | kept | kept | kept | `api::receive::empty_datagrams_are_heard_and_do_not_end_reception` |
//! | what does not fit a buffer is cut, marked, counted | kept | kept | kept | kept | in user space | `api::receive::what_does_not_fit_a_buffer_is_cut_marked_and_counted` |
//! | datagrams of 65,507 bytes, both ways | kept | kept | kept | kept | kept | `api::receive::the_longest_datagrams_arrive_whole` |
//! | the order of a sender is kept | kept | kept | kept | kept | kept | `api::receive::the_order_of_a_sender_is_kept` |
//! | broadcasts and groups of every NIC, each frame once | kept | kept | kept | kept | in user space | `os_semantics::linux::class_sockets_hear_every_class_on_lo`, `os_semantics::windows::address_bound_sockets_hear_every_class_once` |
//! | an ICMP error ends nothing | kept | kept | kept | kept | in user space | `api::reply::a_reply_to_a_closed_port_disturbs_nothing` |
//! | a reply's source is the address that was asked | kept | kept | kept | kept | in user space | `api::reply::a_reply_comes_from_the_address_that_was_asked` |
//! | `Egress::ifindex` chooses the interface | kept | kept | kept | not offered: the system's route to the destination is taken | in user space | `api::reply::a_batch_sends_what_answers_nothing` |
//! | `Egress::port`, `Egress::ttl` | kept | kept | kept | kept | kept | `api::reply::a_beacon_leaves_from_the_port_that_it_names`, `namespaces::announce::a_beacon_has_the_time_to_live_that_it_names` |
//! | `multicast_loop` is about what is sent | kept | kept | kept | kept | not offered: it is about what is heard, by the engine's own sockets | `namespaces::announce::a_group_is_heard_by_its_own_host_unless_told_otherwise` |
//! | `Builder::shards` opens as many as asked for | kept | kept | not offered: one | not offered: one | not offered: one | `api::platforms::the_table_tells_what_is_so` |
//! | `Builder::filter` drops what it does not keep | kept | kept | in user space | in user space | in user space | `api::receive::a_filter_drops_what_it_does_not_keep` |
//! | `Listen::Wildcard` | kept | kept | kept | kept | not offered: `Error::Setting` names `listen` | `api::platforms::the_table_tells_what_is_so` |
//! | `Unicast::Leave` | kept | kept | kept | not offered: `Error::Setting` names `unicast` | not offered: `Error::Setting` names `unicast` | `os_semantics::sharing::unicasts_that_are_left_reach_the_plain_server` |
//! | `leave_unicast` | kept | kept | kept | not offered: `Error::Setting` names `unicast` | not offered: `Error::Setting` names `unicast` | `os_semantics::sharing::unicasts_that_are_left_at_one_address_reach_the_plain_server` |
//! | every address of 127.0.0.0/8 is heard | kept | kept | not offered: the system has 127.0.0.1 only | not offered: the system has 127.0.0.1 only | not offered: the addresses that the system lists are heard | `api::platforms::the_table_tells_what_is_so` |
//! | what cannot be opened costs only itself, and is tried again | kept | kept | kept | kept | kept | `os_semantics::sharing::a_held_address_costs_only_itself_until_it_is_free` |
//! | a named NIC that is not there is waited for if asked | kept | kept | kept | kept | kept | `api::settings::a_nic_that_is_not_there_is_an_error_unless_it_is_waited_for` |
//! | a port is shared unless told otherwise | kept | kept | kept | kept | kept | `api::settings::two_engines_share_a_port_unless_told_otherwise` |
//! | `exclusive` refuses a port that is held | kept | kept | kept | kept | kept | `api::settings::an_exclusive_port_is_refused_with_the_name_of_the_nic` |
//! | `exclusive` keeps out who sets SO_REUSEADDR later | kept | kept | kept | kept | not offered: programs of the same user get in, and take unicasts | `os_semantics::sharing::an_exclusive_port_keeps_out_who_would_share_it`, `os_semantics::windows::an_exclusive_port_cannot_keep_out_who_sets_reuseaddr` |
//! | `kernel_time` | kept | kept | not offered: `None` | not offered: `None` | not offered: `None` | `os_semantics::linux::the_kernel_tells_when_it_received_if_asked` |
//! | `recv_ttl`, `recv_tos` | kept | kept | not offered: `None` | not offered: `None` | not offered: `None` | `namespaces::announce::the_time_to_live_and_the_type_of_service_are_told_if_asked` |
//! | `kernel_drop_count` | kept | kept | not offered: `None` | not offered: `None` | not offered: `None` | `os_semantics::linux::every_drop_of_the_kernel_is_counted` |
//! | NICs that come and go are followed | kept | kept | in user space | in user space | in user space | `api::life::nics_that_are_listed_every_ten_milliseconds_cost_nothing_that_is_heard` |
//! | a rescan follows the NICs and disturbs none that stays | kept | kept | kept | kept | kept | `api::life::a_rescan_without_a_change_loses_nothing` |
//! | a stop ends `run` at once, and the ports are free | kept | kept | kept | kept | kept | `api::life::the_port_is_free_when_run_returns` |
//! | many datagrams per system call | kept | kept | not offered: one datagram per call | not offered: one datagram per call | not offered: one datagram per call | `api::receive::a_burst_beyond_buffers_and_batch_loses_nothing` |
//! | `AsyncUdpV4`: destination and interface of each datagram | kept | kept | kept | kept | kept | `udp_v4::contract::each_datagram_is_told_of_its_destination_and_interface` |
//! | `AsyncUdpV4`: datagrams of 65,507 bytes, both ways | kept | kept | kept | kept | kept | `udp_v4::contract::the_longest_datagrams_pass_both_ways` |
//! | `AsyncUdpV4`: a port that is held is `AddrInUse` | kept | kept | kept | kept | in user space | `udp_v4::contract::a_port_that_is_held_is_told_as_such` |
//! | `AsyncUdpV4`: drops, and the time of receipt | kept | kept | not offered: 0 and `None` | not offered: 0 and `None` | not offered: 0 and `None` | `udp_v4::contract::the_kernel_tells_when_it_received` |
//!
//! How it is done where it differs:
//!
//! - **macOS** and NetBSD tell and take destination, source and interface by `IP_PKTINFO`; sockets
//!   are bound to a NIC by `IP_BOUND_IF`. Send and receive buffers are made as large as
//!   `kern.ipc.maxsockbuf` allows, since at first they hold no long datagram.
//! - **FreeBSD**, OpenBSD and DragonFly tell by `IP_RECVDSTADDR` and `IP_RECVIF`, and bind no
//!   socket to a NIC, so that [`Listen::Auto`] is one wildcard socket, which answers by
//!   `IP_SENDSRCADDR`.
//! - **Windows** delivers broadcasts to the sockets that are bound to a NIC's addresses, and binds
//!   no broadcast address: one socket an address hears every class. A broadcast that several
//!   addresses of a NIC hear is handed out once and the copies are counted. `WSARecvMsg`
//!   tells destination and interface (`IP_PKTINFO`). A datagram is received whole and cut by
//!   nicring, because what Windows itself cuts (`WSAEMSGSIZE`) comes without its sender.
//!   `WSAECONNRESET` and `WSAENETRESET`, which report ICMP errors to a receive, are counted
//!   ([`Counts::icmp_error_count`]) and passed over: switching them off (`SIO_UDP_CONNRESET`,
//!   `SIO_UDP_NETRESET`) takes unsafe code, and they cost a call each, no datagram. A reply leaves
//!   by the socket that is bound to its source, hence by the NIC that has the address.
//!   `SO_REUSEADDR` is all there is to share a port, and `SO_EXCLUSIVEADDRUSE`, which alone would
//!   keep out whoever sets it later, takes unsafe code too.
//! - **Linux** lists links, addresses and the routes of its table `local` by rtnetlink(7), and
//!   tells of their changes; the ring itself waits for that, or the poller. So what the kernel
//!   delivers to this host is known, and not computed: every broadcast address, configured or not,
//!   and every subnet that is local as a whole. A broadcast to one NIC's subnet that comes in by
//!   another NIC is heard, as a socket on 0.0.0.0 would hear it. The other systems do not deliver
//!   such ones.
//! - Elsewhere interfaces are listed by `getifaddrs` or `GetAdaptersAddresses`, again and again
//!   ([`Builder::list_nics_every`]). A NIC that is made again under its name and index between two
//!   lists is not noticed there.
//! - [`Builder::buffer_count`] is for io_uring; the portable backend needs no such number.
//! - [`Builder::delay_max`] is none on Windows, NetBSD and OpenBSD, unless it is longer than their
//!   sleeps may be late, 15.6 and 20 ms.
//!
//! What is checked where: Linux natively, on both backends; Windows by its conformance cases under
//! Wine, as far as nicring's own code decides them; macOS and FreeBSD by the type checker. The
//! workflow in `.github/` runs all of it natively on Windows and macOS.
//!
//! [`Builder::buffer_count`]: crate::Builder::buffer_count
//! [`Builder::delay_max`]: crate::Builder::delay_max
//! [`Builder::list_nics_every`]: crate::Builder::list_nics_every
//! [`Counts::icmp_error_count`]: crate::Counts::icmp_error_count
//! [`Listen::Auto`]: crate::Listen::Auto
