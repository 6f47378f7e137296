//! Sockets that an engine did not open itself.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, atomic::Ordering::Relaxed},
};

use socket2::Socket;

use super::{ListenSocket, OPENED_COUNT, Role, Wanted};
use crate::{drops::DropCount, meta::Class, stats::StatsTable};

impl ListenSocket {
    /// A socket that hears one class, or several if that is `None`.
    pub fn over(socket: Socket, class: Option<Class>, stats: &StatsTable) -> Self {
        let role = class.map_or(Role::HearAll, Role::Hear);
        Self {
            socket,
            packet_info: (),
            wanted: Wanted::new(role, Ipv4Addr::UNSPECIFIED),
            port: 0,
            counters: stats.nowhere(),
            number: OPENED_COUNT.fetch_add(1, Relaxed),
            joins: Mutex::default(),
            drops: DropCount::default(),
        }
    }
}
