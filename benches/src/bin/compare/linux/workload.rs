//! The work that contestants have to do.

use std::{fmt, net::SocketAddrV4};

use nicring::search::Protocol;
use nicring_bench::{
    contestant::Contestant, load::Load, network::Network, outcome::CLIENT_PORT,
    questions::Questions, service::Task,
};

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Datagrams as fast as one CPU can send them. They are counted.
    Storm,
    /// The same in bursts: more than a receiver can take.
    Burst,
    /// 100,000 datagrams per second. They are counted.
    Paced,
    /// SEARCH in a closed loop with this many questions on their way. They are answered.
    Search(Protocol, u16),
    /// This many datagrams per second. They are sent back.
    Trickle(u32),
    /// 1,000 datagrams per second. Each is sent out of all NICs.
    FanOut,
    /// SEARCH in a closed loop, for servers that are separate programs.
    Servers(Questions),
}

const PACED_RATE: u32 = 100_000;
const FAN_OUT_RATE: u32 = 1_000;

impl Workload {
    /// The names of all kinds.
    pub const NAMES: &[&str] =
        &["storm", "burst", "paced", "search", "trickle", "fanout", "servers"];

    /// The kinds that a name stands for.
    pub fn named(name: &str, windows: &[u16], hits: &[u16]) -> Result<Vec<Self>, String> {
        let servers = |name: &str| {
            let (protocol, way) = name.split_once('-')?;
            let protocol = Protocol::ALL.into_iter().find(|one| one.to_string() == protocol)?;
            let is_broadcast = ["unicast", "broadcast"].iter().position(|one| *one == way)? == 1;
            let each = windows.iter().flat_map(|window| hits.iter().map(move |hit| (*window, hit)));
            let each = each.map(|(window, hit)| {
                let cycle_len = (100 + hit / 2) / hit;
                Self::Servers(Questions { protocol, is_broadcast, cycle_len, window })
            });
            Some(each.collect::<Vec<_>>())
        };
        let search = |window: &u16| Protocol::ALL.map(|protocol| Self::Search(protocol, *window));
        match name {
            "storm" => Ok(vec![Self::Storm]),
            "burst" => Ok(vec![Self::Burst]),
            "paced" => Ok(vec![Self::Paced]),
            "search" => Ok(windows.iter().flat_map(search).collect()),
            "trickle" => Ok(vec![Self::Trickle(1_000), Self::Trickle(10_000)]),
            "fanout" => Ok(vec![Self::FanOut]),
            "servers" => {
                let names = ["pva-broadcast", "pva-unicast", "ca-broadcast", "ca-unicast"];
                Ok(names.iter().filter_map(|name| servers(name)).flatten().collect())
            }
            _ => servers(name).ok_or_else(|| {
                let names = Self::NAMES.join(", ");
                format!(
                    "{name:?}: expected {names}, pva-broadcast, pva-unicast, ca-broadcast or \
                         ca-unicast"
                )
            }),
        }
    }

    /// Whether the total rate over all NICs is fixed, whatever the contestant does.
    pub fn has_fixed_rate(self) -> bool {
        matches!(self, Self::Paced | Self::Trickle(_))
    }

    pub fn is_for_servers(self) -> bool {
        matches!(self, Self::Servers(_))
    }

    /// Whether a contestant can do it.
    pub fn suits(self, contestant: Contestant) -> bool {
        match (self, contestant) {
            (Self::Servers(questions), Contestant::Server(one)) => one.speaks(questions.protocol),
            (Self::Servers(_), Contestant::Echo { .. }) => true,
            (Self::Servers(_), _) | (_, Contestant::Server(_) | Contestant::Echo { .. }) => false,
            _ => true,
        }
    }

    /// The contestant that the others are compared with, unless another is named.
    pub fn against(self) -> Contestant {
        let name = match self {
            Self::Servers(Questions { protocol: Protocol::Pva, .. }) => "pvxs",
            Self::Servers(_) => "rsrv",
            _ => "epoll",
        };
        name.parse().expect("a name")
    }

    pub fn load(self) -> Load {
        match self {
            Self::Storm => Load::Flood(None),
            Self::Burst => Load::Bursts,
            Self::Paced => Load::Flood(Some(PACED_RATE)),
            Self::Search(protocol, window) => Load::Search(protocol, usize::from(window)),
            Self::Trickle(rate) => Load::Paced(rate),
            Self::FanOut => Load::Paced(FAN_OUT_RATE),
            Self::Servers(questions) => Load::Questions(questions),
        }
    }

    pub fn task(self, nic_count: u8) -> Task {
        match self {
            Self::Storm | Self::Burst | Self::Paced => Task::Count,
            Self::Search(protocol, _) => Task::Search(protocol),
            Self::Trickle(_) | Self::Servers(_) => Task::Echo,
            Self::FanOut => {
                let to = |nic| SocketAddrV4::new(Network::client_address(nic), CLIENT_PORT);
                Task::FanOut((0..nic_count).map(to).collect())
            }
        }
    }

    /// How many datagrams should come back for each one sent; 0 if none.
    pub fn answer_count(self, nic_count: u8) -> u64 {
        match self {
            Self::Storm | Self::Burst | Self::Paced => 0,
            Self::Search(..) | Self::Trickle(_) | Self::Servers(_) => 1,
            Self::FanOut => u64::from(nic_count),
        }
    }

    /// What costs per received datagram are divided by: 1, or for fan-out the number of datagrams
    /// sent.
    pub fn unit_count(self, nic_count: u8) -> u64 {
        self.answer_count(nic_count).max(1)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storm => f.write_str("storm, full speed"),
            Self::Burst => f.write_str("bursts of 16, full speed"),
            Self::Paced => f.write_str("paced, 100,000/s"),
            Self::Search(protocol, window) => {
                let name = protocol.to_string().to_uppercase();
                write!(f, "{name} search, window {window}")
            }
            Self::Trickle(rate) => write!(f, "trickle, {},000/s, echoed", rate / 1000),
            Self::FanOut => f.write_str("fan-out of 1,000/s"),
            Self::Servers(Questions { protocol, is_broadcast, cycle_len, window }) => {
                let name = protocol.to_string().to_uppercase();
                let way = if *is_broadcast { "broadcast" } else { "unicast" };
                write!(f, "{name} SEARCH to servers by {way}, ")?;
                match cycle_len {
                    1 => f.write_str("all hits")?,
                    _ => write!(f, "1 hit in {cycle_len}")?,
                }
                write!(f, ", window {window}")
            }
        }
    }
}
