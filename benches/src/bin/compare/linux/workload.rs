//! The work that contestants have to do.

use std::{fmt, net::SocketAddrV4};

use nicring::search::Protocol;
use nicring_bench::{
    contestant::Contestant,
    load::{Load, Misses},
    network::Network,
    outcome::CLIENT_PORT,
    questions::Questions,
    service::Task,
    statistics::grouped,
    storm::{Storm, StormContent},
};

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Datagrams as fast as one CPU can send them. They are counted, and SEARCH is looked up.
    Storm(Storm),
    /// The same by unicast in bursts: more than a receiver can take.
    Burst,
    /// This many datagrams per second. They are counted.
    Paced(u32),
    /// SEARCH in a closed loop. They are answered.
    Search(Questions),
    /// This many datagrams per second. They are sent back.
    Trickle(u32),
    /// 1,000 datagrams per second. Each is sent out of all NICs.
    FanOut,
    /// SEARCH in a closed loop, for servers that are separate programs.
    Servers(Questions),
    /// SEARCH at a rate for what such servers do not have.
    Misses(Misses),
}

/// What the options choose.
#[derive(Debug)]
pub struct Choices<'a> {
    pub windows: &'a [u16],
    /// In percent; empty for the default of each work, as `rates`.
    pub hits: &'a [u16],
    pub names_per_datagram: &'a [u16],
    pub name_counts: &'a [u32],
    pub rates: &'a [u32],
    /// How many ports storms come from.
    pub source_count: u16,
}

const FAN_OUT_RATE: u32 = 1_000;
const WAYS: [&str; 2] = ["unicast", "broadcast"];

impl Workload {
    /// The names of all kinds.
    pub const NAMES: &[&str] = &[
        "storm",
        "broadcast",
        "foreign",
        "burst",
        "paced",
        "search",
        "trickle",
        "fanout",
        "servers",
        "misses",
    ];

    /// The kinds that a name stands for.
    pub fn named(name: &str, choices: &Choices<'_>) -> Result<Vec<Self>, String> {
        let works = match name {
            "storm" => vec![choices.storm(StormContent::Unicast)],
            "broadcast" => vec![choices.storm(StormContent::Broadcast)],
            "foreign" => {
                let content = |name_count: &u32| StormContent::Foreign { name_count: *name_count };
                choices.name_counts.iter().map(|count| choices.storm(content(count))).collect()
            }
            "burst" => vec![Self::Burst],
            "paced" => {
                let rates = or_default(choices.rates, &[1_000, 5_000, 20_000]);
                rates.iter().copied().map(Self::Paced).collect()
            }
            "search" => {
                let of = |protocol| choices.questions(protocol, false, &[100]);
                let questions = Protocol::ALL.into_iter().flat_map(of);
                questions.map(|all| Self::Search(Questions { is_spread: true, ..all })).collect()
            }
            "trickle" => vec![Self::Trickle(1_000), Self::Trickle(10_000)],
            "fanout" => vec![Self::FanOut],
            "servers" => {
                let names = ["pva-broadcast", "pva-unicast", "ca-broadcast", "ca-unicast"];
                names.iter().filter_map(|name| choices.servers(name)).flatten().collect()
            }
            "misses" => choices.misses(true),
            "misses-unicast" => choices.misses(false),
            _ => choices.servers(name).ok_or_else(|| {
                let names = Self::NAMES.join(", ");
                format!(
                    "{name:?}: expected {names}, misses-unicast, pva-broadcast, pva-unicast, \
                     ca-broadcast or ca-unicast"
                )
            })?,
        };
        Ok(works)
    }

    /// Whether the total rate over all NICs is fixed, whatever the contestant does.
    pub fn has_fixed_rate(self) -> bool {
        matches!(self, Self::Paced(_) | Self::Trickle(_) | Self::Misses(_))
    }

    pub fn is_for_servers(self) -> bool {
        matches!(self, Self::Servers(_) | Self::Misses(_))
    }

    /// Whether answers make room for the next questions.
    pub fn is_closed_loop(self) -> bool {
        matches!(self, Self::Search(_) | Self::Servers(_))
    }

    /// Which names servers have, and how many.
    pub fn names(self) -> Option<(Protocol, u32)> {
        match self {
            Self::Search(Questions { protocol, name_count, .. })
            | Self::Servers(Questions { protocol, name_count, .. })
            | Self::Misses(Misses { protocol, name_count, .. }) => Some((protocol, name_count)),
            _ => None,
        }
    }

    /// Whether a contestant can do it.
    pub fn suits(self, contestant: Contestant) -> bool {
        let protocol = self.names().map(|(protocol, _)| protocol);
        match (self, contestant) {
            (Self::Servers(_) | Self::Misses(_), Contestant::Server(one)) => {
                protocol.is_some_and(|protocol| one.speaks(protocol))
            }
            (Self::Servers(_), Contestant::Echo { .. }) => true,
            (Self::Servers(_) | Self::Misses(_), _)
            | (_, Contestant::Server(_) | Contestant::Echo { .. }) => false,
            _ => true,
        }
    }

    /// The contestant that the others are compared with, unless another is named.
    pub fn against(self) -> Contestant {
        let name = match self.names() {
            Some((Protocol::Pva, _)) if self.is_for_servers() => "pvxs",
            Some((Protocol::Ca, _)) if self.is_for_servers() => "rsrv",
            _ => "epoll",
        };
        name.parse().expect("a name")
    }

    /// The load on a contestant, which is not asked for more names than it can have.
    pub fn load(self, contestant: Contestant) -> Load {
        let name_count_max = match contestant {
            Contestant::Server(server) => server.name_count_max(),
            _ => u32::MAX,
        };
        match self {
            Self::Storm(storm) => Load::Storm(storm),
            Self::Burst => Load::Bursts,
            Self::Paced(rate) => Load::Flood(Some(rate)),
            Self::Trickle(rate) => Load::Paced(rate),
            Self::FanOut => Load::Paced(FAN_OUT_RATE),
            Self::Search(questions) | Self::Servers(questions) => {
                let name_count = questions.name_count.min(name_count_max);
                Load::Questions(Questions { name_count, ..questions })
            }
            Self::Misses(misses) => {
                let name_count = misses.name_count.min(name_count_max);
                Load::Misses(Misses { name_count, ..misses })
            }
        }
    }

    pub fn task(self, nic_count: u8) -> Task {
        match self {
            Self::Storm(Storm { content: StormContent::Foreign { name_count }, .. }) => {
                Task::Search(Protocol::Pva, name_count)
            }
            Self::Storm(_) | Self::Burst | Self::Paced(_) => Task::Count,
            Self::Search(Questions { protocol, name_count, .. }) => {
                Task::Search(protocol, name_count)
            }
            Self::Trickle(_) | Self::Servers(_) | Self::Misses(_) => Task::Echo,
            Self::FanOut => {
                let to = |nic| SocketAddrV4::new(Network::client_address(nic), CLIENT_PORT);
                Task::FanOut((0..nic_count).map(to).collect())
            }
        }
    }

    /// How many datagrams should come back for each one sent; 0 if none.
    pub fn answer_count(self, nic_count: u8) -> u64 {
        match self {
            Self::Storm(_) | Self::Burst | Self::Paced(_) | Self::Misses(_) => 0,
            Self::Search(_) | Self::Trickle(_) | Self::Servers(_) => 1,
            Self::FanOut => u64::from(nic_count),
        }
    }

    /// Whether what was sent counts as received, but for what found a socket full. Servers do not
    /// tell what they received, and of what a filter drops nobody knows.
    pub fn is_counted_by_sender(self) -> bool {
        let is_foreign = |storm: Storm| matches!(storm.content, StormContent::Foreign { .. });
        self.is_for_servers() || matches!(self, Self::Storm(storm) if is_foreign(storm))
    }

    pub fn has_delays(self, nic_count: u8) -> bool {
        self.answer_count(nic_count) == 1
    }

    /// What costs are divided by.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Search(_) | Self::Servers(_) | Self::Misses(_) => "name",
            Self::FanOut => "datagram sent",
            _ => "datagram",
        }
    }

    /// How many units a received datagram has.
    pub fn unit_count(self, nic_count: u8) -> u64 {
        match self {
            Self::Search(questions) | Self::Servers(questions) => {
                u64::from(questions.names_per_datagram)
            }
            Self::FanOut => u64::from(nic_count),
            _ => 1,
        }
    }
}

impl Choices<'_> {
    fn storm(&self, content: StormContent) -> Workload {
        Workload::Storm(Storm { content, source_count: self.source_count })
    }

    /// Every combination of what was chosen for a closed loop.
    fn questions(
        &self,
        protocol: Protocol,
        is_broadcast: bool,
        default_hits: &[u16],
    ) -> Vec<Questions> {
        let mut all = Vec::new();
        for name_count in self.name_counts {
            for names_per_datagram in self.names_per_datagram {
                for window in self.windows {
                    for hit in or_default(self.hits, default_hits) {
                        all.push(Questions {
                            protocol,
                            names_per_datagram: *names_per_datagram,
                            name_count: *name_count,
                            hit_every: (100 + hit / 2) / hit,
                            window: *window,
                            is_broadcast,
                            is_spread: false,
                        });
                    }
                }
            }
        }
        all
    }

    /// Those for servers, whose name is a protocol and a way.
    fn servers(&self, name: &str) -> Option<Vec<Workload>> {
        let (protocol, way) = name.split_once('-')?;
        let protocol = Protocol::ALL.into_iter().find(|one| one.to_string() == protocol)?;
        let is_broadcast = WAYS.iter().position(|one| *one == way)? == 1;
        let questions = self.questions(protocol, is_broadcast, &[100, 5]);
        Some(questions.into_iter().map(Workload::Servers).collect())
    }

    fn misses(&self, is_broadcast: bool) -> Vec<Workload> {
        let mut all = Vec::new();
        for protocol in Protocol::ALL {
            for name_count in self.name_counts.iter().copied() {
                for rate in or_default(self.rates, &[5_000, 20_000]).iter().copied() {
                    all.push(Workload::Misses(Misses { protocol, name_count, is_broadcast, rate }));
                }
            }
        }
        all
    }
}

fn or_default<'a, T>(chosen: &'a [T], default: &'a [T]) -> &'a [T] {
    if chosen.is_empty() { default } else { chosen }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: u32| grouped(f64::from(rate));
        let protocol = self.names().map(|(protocol, _)| protocol.to_string().to_uppercase());
        let protocol = protocol.unwrap_or_default();
        match *self {
            Self::Storm(Storm { content, source_count }) => {
                f.write_str(match content {
                    StormContent::Unicast => "storm, full speed",
                    StormContent::Broadcast => "storm of broadcasts, full speed",
                    StormContent::Foreign { .. } => {
                        "storm of broadcasts, nine foreign ones for each SEARCH, full speed"
                    }
                })?;
                match source_count {
                    1 => Ok(()),
                    _ => write!(f, ", {source_count} senders"),
                }
            }
            Self::Burst => f.write_str("bursts of 16, full speed"),
            Self::Paced(paced) => write!(f, "paced, {}/s", rate(paced)),
            Self::Trickle(trickle) => write!(f, "trickle, {}/s, echoed", rate(trickle)),
            Self::FanOut => f.write_str("fan-out of 1,000/s"),
            Self::Search(questions) => {
                write!(f, "{protocol} search, ")?;
                describe(questions, f)
            }
            Self::Servers(questions) => {
                let way = WAYS[usize::from(questions.is_broadcast)];
                write!(f, "{protocol} SEARCH to servers by {way}, ")?;
                describe(questions, f)
            }
            Self::Misses(misses) => {
                let (way, names) = (WAYS[usize::from(misses.is_broadcast)], misses.name_count);
                write!(f, "{protocol} misses to servers by {way}, {}/s, ", rate(misses.rate))?;
                write!(f, "1 name a datagram, table of {}", grouped(f64::from(names)))
            }
        }
    }
}

fn describe(questions: Questions, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Questions { names_per_datagram, name_count, hit_every, window, .. } = questions;
    match hit_every {
        1 => f.write_str("all hits")?,
        _ => write!(f, "1 hit in {hit_every}")?,
    }
    let plural = if names_per_datagram == 1 { "" } else { "s" };
    write!(f, ", {names_per_datagram} name{plural} a datagram, ")?;
    write!(f, "table of {}, window {window}", grouped(f64::from(name_count)))
}
