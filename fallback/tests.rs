//! What the backend tells of its sockets.

use std::net::Ipv4Addr;

use super::*;
use crate::{
    path::{ListenSettings, Role, SocketPlan},
    stats::StatsTable,
};

#[test]
fn the_buffers_of_the_sockets_that_hear_bound_the_waits() {
    let mut portable = Portable::open(&BackendSettings {
        buffer_bytes: 64,
        buffer_count: 1,
        batch_max: 1,
        replies_max: 1,
        delay_max: Duration::from_millis(1),
        spin: Duration::ZERO,
        uses_gso: false,
    })
    .expect("a poller");
    let open = |recv_buffer_bytes| {
        let settings = ListenSettings { recv_buffer_bytes, ..ListenSettings::default() };
        let plan = SocketPlan::new(Role::HearAll, Ipv4Addr::LOCALHOST);
        let socket = ListenSocket::open(&plan, 0, &settings, &StatsTable::default(), &[]);
        Arc::new(socket.expect("a socket on loopback"))
    };
    assert_eq!(portable.pace.smallest_buffer(), None);
    for (slot, bytes) in [(0, 1 << 20), (1, 1)] {
        let socket = open(bytes);
        let granted = socket.recv_buffer_bytes;
        assert_eq!(granted, socket.socket.recv_buffer_size().expect("SO_RCVBUF"));
        portable.add(slot, socket).expect("a slot");
        assert_eq!(portable.pace.smallest_buffer(), Some(granted));
    }
    let larger = portable.entries[0].as_ref().expect("a socket").socket.recv_buffer_bytes;
    portable.remove(1);
    assert_eq!(portable.pace.smallest_buffer(), Some(larger));
}
