//! Tests of the layout with one socket per address, as on Windows. Each socket also hears the
//! broadcasts of its NIC.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use super::{
    admit::Admission,
    dispatch::Dispatch,
    sockets::{ListenSettings, ListenSocket, Listeners, SocketLayout, SubnetSockets},
};
use crate::{
    datagram::{Arrival, Class, Egress, Origin, Outbox, Span},
    nics::{Nics, samples::nic},
    stats::StatsTable,
};

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two addresses of one NIC, in slots 0 and 1.
fn two_addresses() -> (Nics, Vec<Option<Arc<ListenSocket>>>, StatsTable) {
    let nics = Nics::from_iter([nic("lo", 1, &[("127.0.0.1", 8), ("127.0.0.2", 24)])]);
    let (stats, settings) = (StatsTable::default(), ListenSettings::default());
    let mut port = 0;
    let open = |plan: &_| {
        let socket = ListenSocket::open(plan, port, &settings, &stats, &[]).expect("loopback");
        port = socket.port;
        Some(Arc::new(socket))
    };
    let listeners = Listeners {
        settings: &settings,
        layout: SocketLayout::ByAddress,
        nics: &nics,
        selected: &nics,
        subnet_sockets: SubnetSockets::Paired,
        spare_sender_count: 0,
    };
    let sockets = listeners.plan(5064).iter().map(open).collect();
    (nics, sockets, stats)
}

#[test]
fn a_broadcast_is_handed_out_once_however_many_addresses_hear_it() {
    let (nics, sockets, stats) = two_addresses();
    let admission = Admission::new(Arc::new(nics.clone()), Arc::new(nics), Vec::new(), &stats);
    let rows = [
        (Ipv4Addr::BROADCAST, Class::Limited, 0),
        (Ipv4Addr::new(127, 255, 255, 255), Class::Subnet, 0),
        (Ipv4Addr::new(127, 0, 0, 255), Class::Subnet, 1),
    ];
    for (destination, class, slot) in rows {
        let mut arrival = Arrival::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));
        arrival.destination = destination;
        let records = sockets.iter().enumerate().filter_map(|(slot, socket)| {
            let span = Span { buffer: 0, start: 0, len: 1 };
            admission.admit(socket.as_ref()?, slot as u16, arrival, span, b"x")
        });
        let heard = records.map(|record| (record.class, record.heard_by.slot));
        assert_eq!(heard.collect::<Vec<_>>(), [(class, slot)], "{destination}");
    }
}

#[test]
fn a_datagram_leaves_by_the_socket_of_its_source() {
    let (nics, sockets, stats) = two_addresses();
    let dispatch = Dispatch::new(&sockets, &nics, &stats);
    let mut outbox = Outbox::new(8);
    let port = sockets[0].as_ref().expect("a socket").port;
    let origin = |ifindex| Some(Origin { port, ifindex });
    let by = |source: Option<Ipv4Addr>, ifindex| Egress { ifindex, source, ..Egress::by_route() };
    let rows = [
        (origin(1), by(Some(FIRST), None), Some(0)),
        (origin(1), by(Some(SECOND), Some(1)), Some(1)),
        (origin(9), by(Some(FIRST), Some(9)), Some(0)),
        (origin(9), by(Some(SECOND), None), Some(1)),
        (origin(1), by(None, Some(1)), Some(0)),
        (origin(0), Egress::default(), Some(0)),
        (None, by(Some(SECOND), None), Some(1)),
        (None, Egress::default(), Some(0)),
        // No socket has this source. Some socket sends, and the system reports the error.
        (origin(1), by(Some(Ipv4Addr::new(192, 0, 2, 1)), None), Some(0)),
        // Nobody listens there any more.
        (Some(Origin { port: port ^ 1, ifindex: 1 }), Egress::default(), None),
    ];
    for (number, (origin, egress, slot)) in rows.into_iter().enumerate() {
        outbox.clear();
        let destination = SocketAddrV4::new(FIRST, 5000);
        assert!(outbox.push(origin, egress, destination, b"x").is_queued());
        assert_eq!(dispatch.sending_slot(outbox.outgoing(0)), slot, "row {number}");
    }
}
