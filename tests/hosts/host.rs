//! A host under test, its neighbours, and what they ask.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use socket2::{InterfaceIndexOrAddress, SockRef};

use crate::common::{
    Client,
    netns::{Namespace, run},
    wait_until,
};

/// The host under test, and its neighbours in namespaces of their own.
///
/// Its NIC `sN` has 10.201.N.1/24 unless a test gives it something else. The neighbour behind it
/// has 10.201.N.2/24, and its default route leads to the host.
pub struct Host {
    pub server: Namespace,
    neighbours: Vec<Namespace>,
    questions: Vec<Question>,
}

/// What somebody sends, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    pub from: From,
    pub to: Ipv4Addr,
    /// Whether a plain server on 0.0.0.0 hears it.
    pub is_heard: bool,
    /// Whether it comes by a NIC that the engine listens on.
    pub is_chosen: bool,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The neighbour behind the NIC with this number.
    Neighbour(u8),
    /// The host itself, from this address.
    Itself(Ipv4Addr),
}

/// The group that the servers join.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 128);

impl Host {
    /// A host with this many NICs, which have no address yet.
    #[track_caller]
    pub fn without_addresses(nic_count: u8) -> Self {
        let made = |label: &str| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
        let server = made("s");
        let neighbours: Vec<_> = (1..=nic_count).map(|_| made("c")).collect();
        let host = Self { server, neighbours, questions: Vec::new() };
        for number in 1..=nic_count {
            host.connect(number);
        }
        host
    }

    /// A host with this many NICs, each with its address.
    #[track_caller]
    pub fn new(nic_count: u8) -> Self {
        let host = Self::without_addresses(nic_count);
        for number in 1..=nic_count {
            host.server.configure(&format!("address add 10.201.{number}.1/24 brd + dev s{number}"));
        }
        host
    }

    /// Connects the NIC with this number to its neighbour.
    #[track_caller]
    pub fn connect(&self, number: u8) {
        let neighbour = self.neighbour(number);
        let connected = self.server.connect(&format!("s{number}"), neighbour, "eth0");
        connected.unwrap_or_else(|error| panic!("{error}"));
        neighbour.configure(&format!(
            "address add 10.201.{number}.2/24 brd + dev eth0\n\
             route add default via 10.201.{number}.1"
        ));
    }

    pub fn neighbour(&self, number: u8) -> &Namespace {
        &self.neighbours[usize::from(number) - 1]
    }

    /// A neighbour asks at each of these addresses. A plain server hears it.
    pub fn neighbour_asks<const N: usize>(&mut self, number: u8, to: [&str; N]) -> &mut Self {
        self.asks(From::Neighbour(number), &to, true)
    }

    /// A neighbour asks at each of these addresses, by a NIC that the engine does not listen on.
    pub fn neighbour_asks_elsewhere<const N: usize>(
        &mut self,
        number: u8,
        to: [&str; N],
    ) -> &mut Self {
        let first = self.questions.len();
        self.neighbour_asks(number, to);
        self.questions[first..].iter_mut().for_each(|question| question.is_chosen = false);
        self
    }

    /// The host asks itself, from an address, at each of these addresses.
    pub fn asks_itself<const N: usize>(&mut self, from: &str, to: [&str; N]) -> &mut Self {
        self.asks(From::Itself(address(from)), &to, true)
    }

    /// A neighbour asks where a plain server hears nothing.
    pub fn neighbour_asks_in_vain<const N: usize>(
        &mut self,
        number: u8,
        to: [&str; N],
    ) -> &mut Self {
        self.asks(From::Neighbour(number), &to, false)
    }

    fn asks(&mut self, from: From, to: &[&str], is_heard: bool) -> &mut Self {
        let question = |to: &&str| Question { from, to: address(to), is_heard, is_chosen: true };
        self.questions.extend(to.iter().map(question));
        self
    }

    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Whether a NIC of the host has an IPv4 address.
    pub fn has_address(&self, nic: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["-n", &self.server.name, "-4", "address", "show", "dev", nic]);
        !run(&mut command, "").unwrap_or_default().is_empty()
    }

    /// A socket of whoever asks a question.
    #[track_caller]
    pub fn client(&self, question: &Question) -> Client {
        match question.from {
            From::Itself(address) => {
                let client = self.server.client(address);
                if question.to.is_multicast() {
                    // Out of the NIC that has the address.
                    let client = SockRef::from(&client.0);
                    client.set_multicast_if_v4(&address).expect("an address of the host");
                }
                client
            }
            From::Neighbour(number) => self.neighbour(number).client(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Whether this is the broadcast address of a subnet of the host.
    pub fn is_subnet_broadcast(&self, address: Ipv4Addr) -> bool {
        let mut command = Command::new("ip");
        command.args(["-n", &self.server.name, "route", "show", "table", "local", "type"]);
        let listed = run(command.arg("broadcast"), "").expect("the kernel lists its routes");
        let address = address.to_string();
        listed.lines().any(|line| line.split_whitespace().take(2).any(|word| word == address))
    }

    /// A plain server: one socket on 0.0.0.0, which joins the group on every NIC, and hears no
    /// other group.
    #[track_caller]
    pub fn plain_server(&self, port: u16) -> Client {
        let plain = self.server.run(|| Client::sharing(port));
        let socket = SockRef::from(&plain.0);
        socket.set_multicast_all_v4(false).expect("IP_MULTICAST_ALL");
        // One socket in so many groups is too much for the default.
        self.server.set("ipv4/igmp_max_memberships", "1000");
        for nic in self.server.run(|| nicring::Nics::enumerate().expect("NICs")).iter() {
            let index = InterfaceIndexOrAddress::Index(nic.index);
            socket.join_multicast_v4_n(&GROUP, &index).expect("a NIC of the host");
        }
        self.server.set("ipv4/igmp_max_memberships", "20");
        plain.0.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        plain
    }

    /// Waits until packets pass between the host and a neighbour.
    #[track_caller]
    pub fn wait_for_link(&self, nic: &str) {
        wait_until("the link is up", || self.server.is_up(nic));
    }
}

pub fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
