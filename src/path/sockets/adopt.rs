//! Sockets that an engine did not open itself.

use std::net::Ipv4Addr;

use socket2::Socket;

use super::{
    ListenSocket,
    open::OpenSocket,
    plan::{Role, SocketPlan},
};
use crate::stats::StatsTable;

impl ListenSocket {
    /// Takes over a socket whose owner decides by itself what to do with each datagram.
    pub fn adopt(socket: Socket, stats: &StatsTable) -> Self {
        let open = OpenSocket { socket, packet_info: (), port: 0, has_filter: false };
        let plan = SocketPlan::new(Role::Unjudged, Ipv4Addr::UNSPECIFIED);
        Self::new(open, plan, stats.unattributed())
    }
}
