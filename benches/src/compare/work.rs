//! What contestants are given to do.

use std::{fmt, net::SocketAddrV4};

use nicring::search::Protocol;
use nicring_bench::{
    load::{CLIENT_PORT, Load},
    network::Network,
    service::Task,
};

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Datagrams as fast as one CPU sends them; they are counted.
    Storm,
    /// 100,000 datagrams a second; they are counted.
    Paced,
    /// SEARCH in a closed loop of so many questions; they are answered.
    Search(Protocol, u16),
    /// So many datagrams a second; they go back.
    Trickle(u32),
    /// 1,000 datagrams a second; each goes out of all NICs.
    FanOut,
}

const PACED_RATE: u32 = 100_000;
const FAN_OUT_RATE: u32 = 1_000;

impl Work {
    /// All kinds.
    pub fn all(window: u16) -> Vec<Self> {
        let names = ["storm", "paced", "search", "trickle", "fanout"];
        names.iter().flat_map(|name| Self::named(name, window).expect("a name")).collect()
    }

    /// The kinds that a name stands for.
    pub fn named(name: &str, window: u16) -> Result<Vec<Self>, String> {
        match name {
            "storm" => Ok(vec![Self::Storm]),
            "paced" => Ok(vec![Self::Paced]),
            "search" => Ok(Protocol::ALL.map(|protocol| Self::Search(protocol, window)).into()),
            "trickle" => Ok(vec![Self::Trickle(1_000), Self::Trickle(10_000)]),
            "fanout" => Ok(vec![Self::FanOut]),
            _ => Err(format!("{name:?}: expected storm, paced, search, trickle or fanout")),
        }
    }

    pub fn load(self) -> Load {
        match self {
            Self::Storm => Load::Flood(None),
            Self::Paced => Load::Flood(Some(PACED_RATE)),
            Self::Search(protocol, window) => Load::Search(protocol, usize::from(window)),
            Self::Trickle(rate) => Load::Paced(rate),
            Self::FanOut => Load::Paced(FAN_OUT_RATE),
        }
    }

    pub fn task(self, nic_count: u8) -> Task {
        match self {
            Self::Storm | Self::Paced => Task::Count,
            Self::Search(protocol, _) => Task::Search(protocol),
            Self::Trickle(_) => Task::Echo,
            Self::FanOut => {
                let to = |nic| SocketAddrV4::new(Network::client_address(nic), CLIENT_PORT);
                Task::FanOut((0..nic_count).map(to).collect())
            }
        }
    }

    /// How many datagrams are to come back for each that is sent; 0 if none is.
    pub fn answer_count(self, nic_count: u8) -> u64 {
        match self {
            Self::Storm | Self::Paced => 0,
            Self::Search(..) | Self::Trickle(_) => 1,
            Self::FanOut => u64::from(nic_count),
        }
    }

    /// What costs are divided by, for each datagram received: 1, or the datagrams sent out.
    pub fn unit_count(self, nic_count: u8) -> u64 {
        self.answer_count(nic_count).max(1)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storm => f.write_str("storm, full speed"),
            Self::Paced => f.write_str("paced, 100,000/s"),
            Self::Search(protocol, window) => {
                let name = protocol.to_string().to_uppercase();
                write!(f, "{name} search, window {window}")
            }
            Self::Trickle(rate) => write!(f, "trickle, {},000/s, echoed", rate / 1000),
            Self::FanOut => f.write_str("fan-out of 1,000/s"),
        }
    }
}
