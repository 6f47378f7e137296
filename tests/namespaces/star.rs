//! A server with three NICs, and a client behind each:
//!
//! ```text
//!   server                      clients
//!   nic1 10.77.1.1/24 -------- 10.77.1.2/24 eth0
//!   nic2 10.77.2.1/24 -------- 10.77.2.2/24 eth0
//!   nic3 10.77.3.1/24 -------- 10.77.3.2/24 eth0
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::{Backend, Builder, Class, Engine};

use crate::common::{Client, Heard, Server, netns::Namespace};

/// The port at which PVAccess listens.
pub const PORT: u16 = 5076;
/// The groups that the servers join.
pub const GROUPS: [Ipv4Addr; 2] = [Ipv4Addr::new(224, 0, 0, 128), Ipv4Addr::new(239, 1, 2, 3)];

pub struct Star {
    pub server: Namespace,
    pub clients: Vec<Namespace>,
}

impl Star {
    /// A server with this many NICs.
    #[track_caller]
    pub fn new(nic_count: u8) -> Self {
        let made = |label: &str| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
        let server = made("s");
        let clients: Vec<Namespace> = (1..=nic_count).map(|_| made("c")).collect();
        let star = Self { server, clients };
        for number in 1..=nic_count {
            star.connect(number);
        }
        star
    }

    /// Connects the server's NIC with this number to its client.
    #[track_caller]
    pub fn connect(&self, number: u8) {
        let client = self.client(number);
        let connected = self.server.connect(&nic(number), client, "eth0");
        connected.unwrap_or_else(|error| panic!("{error}"));
        let subnet = format!("10.77.{number}");
        self.server.configure(&format!("address add {subnet}.1/24 brd + dev nic{number}"));
        // The default route is for limited broadcasts, groups, and addresses of the other NICs.
        client.configure(&format!(
            "address add {subnet}.2/24 brd + dev eth0\nroute add default via {subnet}.1"
        ));
    }

    pub fn client(&self, number: u8) -> &Namespace {
        &self.clients[usize::from(number) - 1]
    }

    pub fn index(&self, number: u8) -> u32 {
        self.server.index_of(&nic(number))
    }
}

pub fn nic(number: u8) -> String {
    format!("nic{number}")
}

/// The server's address on the NIC with this number.
pub fn own(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 1)
}

pub fn broadcast(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 255)
}

pub fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 2)
}

pub fn at_port(address: impl Into<Ipv4Addr>) -> SocketAddrV4 {
    SocketAddrV4::new(address.into(), PORT)
}

/// Settings that listen on every NIC and join the groups.
pub fn on_every_nic(backend: Backend) -> Builder {
    let builder = Engine::builder().backend(backend).port(PORT);
    GROUPS.into_iter().fold(builder, Builder::join)
}

/// One question: where it is sent, and what the server must see of it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    pub to: Ipv4Addr,
    pub class: Class,
    /// The NIC that it is attributed to.
    pub nic: u32,
    /// The interface on which it arrives, as the kernel reports it.
    pub ifindex: u32,
    /// The source that the reply has to carry.
    pub answered_from: Ipv4Addr,
}

impl Question {
    /// Asks, then checks what the server saw and that the client hears the answer.
    #[track_caller]
    pub fn ask(&self, client: &Client, server: &Server) {
        let text = format!("{} {}", client.address(), self.to);
        client.ask(&text, self.to, server.port);
        let heard = server.next();
        self.assert_matches(&heard, server.port);
        assert_eq!(heard.text(), text);
        assert_eq!(heard.source.port(), client.address().port());
        if !client.address().ip().is_unspecified() {
            assert_eq!(heard.source, client.address());
        }
        client.expect(&text, SocketAddrV4::new(self.answered_from, server.port));
    }

    #[track_caller]
    pub fn assert_matches(&self, heard: &Heard, port: u16) {
        let seen = (heard.class, heard.destination, heard.nic, heard.ifindex, heard.port);
        let expected = (self.class, Some(self.to), Some(self.nic), Some(self.ifindex), port);
        assert_eq!(seen, expected, "of {self:?}: class, destination, nic, ifindex, port");
    }
}
