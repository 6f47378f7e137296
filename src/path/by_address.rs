//! For tests: one socket per address, as on Windows, where each hears the broadcasts of its NIC too.

use std::{net::Ipv4Addr, sync::Arc};

use super::sockets::{ListenSettings, ListenSocket, SocketLayout, Unicast, plan};
use crate::{
    nics::{Nics, samples::nic},
    stats::StatsTable,
};

pub(super) const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
pub(super) const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two addresses of one NIC, in slots 0 and 1.
pub(super) fn two_addresses() -> (Nics, Vec<Option<Arc<ListenSocket>>>, StatsTable) {
    let nics = Nics::from_iter([nic("lo", 1, &[("127.0.0.1", 8), ("127.0.0.2", 24)])]);
    let (stats, settings) = (StatsTable::default(), ListenSettings::default());
    let mut port = 0;
    let open = |plan: &_| {
        let socket = ListenSocket::open(plan, port, &settings, true, &stats).expect("loopback");
        port = socket.port;
        Some(Arc::new(socket))
    };
    let plans = plan(&nics, &[], Unicast::Take, SocketLayout::ByAddress);
    let sockets = plans.iter().map(open).collect();
    (nics, sockets, stats)
}
