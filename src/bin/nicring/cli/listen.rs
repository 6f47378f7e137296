//! Decides where to listen, from the command line, the environment and the holders of the ports.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use nicring::{
    Backend, Builder, Engine, Join, Nic, NicFilter, Nics, OnFailedNic, Unicast,
    search::{Protocol, pva::FORWARD_GROUP},
};

use super::{
    environment::{Environment, Group, Interfaces},
    failure::Failure,
    host,
    parse::setting,
    port_holders::{Holder, is_held},
};

/// Where and how to listen.
#[derive(Debug, Args)]
pub struct ListenArguments {
    /// Listen on this NIC only; repeatable [default: EPICS_CAS_INTF_ADDR_LIST for CA and
    /// EPICS_PVAS_INTF_ADDR_LIST for PVA, else all NICs that are up]
    ///
    /// A NIC's name (eth0), a pattern of names ("eth*"), an address of one (192.0.2.7) or a subnet
    /// (192.0.2.0/24). Servers of pvxs on this host forward SEARCHes through the loopback
    /// interface: name lo too to hear them.
    #[arg(long, value_name = "NAME|ADDRESS", value_parser = setting::<NicFilter>)]
    interface: Vec<NicFilter>,

    /// Wait for NICs named by --interface that are not there yet
    ///
    /// Otherwise each of them has to be there, and up, at the start. Once it serves, NICs may come
    /// and go in any case.
    #[arg(long)]
    wait_for_nics: bool,

    /// End at once if a NIC, an address or a group cannot be heard at the start
    ///
    /// Otherwise it warns, serves the rest, and tries again until all is heard.
    #[arg(long)]
    strict: bool,

    /// UDP port for CA, 0 for an unused one [default: EPICS_CAS_SERVER_PORT, else
    /// EPICS_CA_SERVER_PORT, else 5064]
    #[arg(long, value_name = "PORT")]
    ca_port: Option<u16>,

    /// UDP port for PVA, 0 for an unused one [default: EPICS_PVAS_BROADCAST_PORT, else
    /// EPICS_PVA_BROADCAST_PORT, else 5076]
    #[arg(long, value_name = "PORT")]
    pva_port: Option<u16>,

    /// auto, io_uring or portable
    ///
    /// auto is io_uring where it works, else portable; NICRING_BACKEND overrides auto. io_uring
    /// fails where it cannot be had, and says why.
    #[arg(long, default_value_t = Backend::Auto, value_parser = setting::<Backend>)]
    backend: Backend,

    /// Whether to hear SEARCHes sent to the unicast addresses of this host [default: take, but
    /// leave at each address where another server holds the port]
    ///
    /// take: hear them. Other servers of this host at the same port then hear none of them.
    /// leave: leave them to the other servers; broadcasts and groups are heard by all.
    #[arg(long, value_name = "WHAT")]
    unicast: Option<UnicastChoice>,

    /// How much each socket may queue, in bytes as the kernel counts them
    ///
    /// A short datagram counts as about 800 bytes. More than net.core.rmem_max needs
    /// CAP_NET_ADMIN. Less than 2.3 MB shortens the delay that serve allows.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    recv_buffer_bytes: usize,

    /// How many bytes of a datagram are received, 64 to 65507 [default: 2048]
    ///
    /// Of a longer one only the beginning is read: the names that are whole are answered. Each of
    /// the 1,024 buffers takes as much memory.
    #[arg(long, value_name = "BYTES")]
    buffer_bytes: Option<usize>,

    /// How much each sender may have under way, in bytes as the kernel counts them [default:
    /// 4194304]
    ///
    /// Answers to hosts that are gone wait in the kernel for three seconds, at about 800 bytes
    /// each. More than net.core.wmem_max needs CAP_NET_ADMIN; `nicring doctor` tells.
    #[arg(long, value_name = "BYTES")]
    send_buffer_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UnicastChoice {
    Take,
    Leave,
}

/// Where one protocol listens.
#[derive(Debug, Clone)]
pub struct ListenPlan {
    pub protocol: Protocol,
    pub port: u16,
    pub way: Way,
    /// The groups that are heard.
    pub groups: Vec<Group>,
    /// A line for people about the programs that share the port.
    pub note: Option<String>,
}

impl ListenPlan {
    /// Its groups, each at its port.
    fn joins(&self) -> impl Iterator<Item = Join> {
        let port = self.port;
        self.groups.iter().map(move |group| {
            let join = Join::group(group.address).port(port);
            group.nic.clone().into_iter().fold(join, Join::on)
        })
    }

    /// The groups that are heard on a NIC.
    pub fn groups_on(&self, nic: &Nic) -> impl Iterator<Item = Ipv4Addr> {
        let is_on = |group: &&Group| {
            let names =
                |filter: &NicFilter| nic.addresses.iter().any(|own| filter.matches(nic, own));
            group.nic.as_ref().is_none_or(names)
        };
        self.groups.iter().filter(is_on).map(|group| group.address)
    }

    /// Whether the unicasts to this address are left to another server.
    pub fn leaves(&self, address: Ipv4Addr) -> bool {
        self.way.unicast == Unicast::Leave || self.way.left.contains(&address)
    }
}

/// Settings that all ports of an engine share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub filters: Vec<NicFilter>,
    pub unicast: Unicast,
    /// Addresses where unicasts are left to others, whatever `unicast` says.
    pub left: Vec<Ipv4Addr>,
}

impl ListenArguments {
    /// One plan for each protocol.
    pub fn plans(&self, environment: &Environment) -> Result<[ListenPlan; 2], Failure> {
        let nics = Nics::enumerate()?;
        let plans = [
            self.plan(Protocol::Ca, self.ca_port, environment, &nics)?,
            self.plan(Protocol::Pva, self.pva_port, environment, &nics)?,
        ];
        if plans[0].port == plans[1].port && plans[0].port != 0 {
            let text = format!(
                "port {} for both CA and PVA: choose different ones with --ca-port and --pva-port",
                plans[0].port
            );
            return Err(Failure::Usage(text));
        }
        Ok(plans)
    }

    fn plan(
        &self,
        protocol: Protocol,
        port: Option<u16>,
        environment: &Environment,
        nics: &Nics,
    ) -> Result<ListenPlan, Failure> {
        let port = port.map_or_else(|| environment.server_port(protocol), Ok)?;
        let interfaces = environment.interfaces(protocol)?;
        let filters = self.filters(&interfaces, nics)?;
        let groups = self.groups(protocol, &interfaces, &filters, nics)?;
        let affected = holders(port).map(|holders| Affected::new(&holders, nics));
        let mut left = Vec::new();
        let chosen = match (self.unicast, &affected) {
            (Some(UnicastChoice::Leave), _) => Unicast::Leave,
            (None, Some(affected)) if affected.is_everywhere => Unicast::Leave,
            (None, Some(affected)) => {
                left.clone_from(&affected.addresses);
                Unicast::Take
            }
            (Some(UnicastChoice::Take), _) | (None, None) => Unicast::Take,
        };
        let way = Way { filters, unicast: chosen, left };
        let note = affected.and_then(|affected| affected.note(port, &way));
        Ok(ListenPlan { protocol, port, way, groups, note })
    }

    /// The NICs to listen on. Every filter must match a NIC that is up.
    fn filters(&self, interfaces: &Interfaces, nics: &Nics) -> Result<Vec<NicFilter>, Failure> {
        let (source, filters) = if self.interface.is_empty() {
            let addresses = interfaces.addresses.iter().copied().map(NicFilter::Address);
            (interfaces.variable, addresses.collect::<Vec<_>>())
        } else {
            ("--interface", self.interface.clone())
        };
        for filter in filters.iter().filter(|_| !self.wait_for_nics) {
            if !filter.finds_any(nics) {
                return Err(Failure::Usage(format!(
                    "{source}: {filter}: no NIC of this host that is up matches; there are {nics} \
                     (--wait-for-nics waits for it)"
                )));
            }
        }
        Ok(filters)
    }

    /// The groups to hear. One on a NIC of its own needs that NIC.
    fn groups(
        &self,
        protocol: Protocol,
        interfaces: &Interfaces,
        filters: &[NicFilter],
        nics: &Nics,
    ) -> Result<Vec<Group>, Failure> {
        let is_absent = |group: &&Group| {
            let nic = group.nic.as_ref();
            nic.is_some_and(|nic| !nic.finds_any(nics)) && !self.wait_for_nics
        };
        if let Some(Group { address, nic: Some(nic) }) = interfaces.groups.iter().find(is_absent) {
            return Err(Failure::Usage(format!(
                "{}: {address}@{nic}: no NIC of this host that is up matches; there are {nics} \
                 (--wait-for-nics waits for it)",
                interfaces.variable
            )));
        }
        let mut groups = interfaces.groups.clone();
        if protocol == Protocol::Pva && hears_loopback(filters, nics) {
            groups.push(forwarded());
        }
        Ok(groups)
    }

    /// A builder for one engine. All plans must have the same way.
    pub fn builder(&self, plans: &[ListenPlan]) -> Builder {
        let way = &plans[0].way;
        let mut builder = Engine::builder().backend(self.backend).unicast(way.unicast);
        builder = way.filters.iter().cloned().fold(builder, Builder::nic);
        if self.wait_for_nics {
            builder = builder.wait_for_nics();
        }
        if self.strict {
            builder = builder.on_failed_nic(OnFailedNic::Fail);
        }
        let left = way.left.iter().copied().map(NicFilter::Address);
        builder = left.fold(builder, Builder::leave_unicast);
        builder = plans.iter().flat_map(ListenPlan::joins).fold(builder, Builder::join);
        builder = plans.iter().map(|plan| plan.port).fold(builder, Builder::port);
        builder = self.buffer_bytes.into_iter().fold(builder, Builder::buffer_bytes);
        builder = builder.recv_buffer_bytes(self.recv_buffer_bytes);
        self.send_buffer_bytes.into_iter().fold(builder, Builder::send_buffer_bytes)
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Plans for the demo: unused ports on the loopback interface.
    pub fn on_loopback(&self) -> [ListenPlan; 2] {
        let way = Way {
            filters: vec![NicFilter::Address(Ipv4Addr::LOCALHOST)],
            unicast: Unicast::Take,
            left: Vec::new(),
        };
        Protocol::ALL.map(|protocol| {
            let (way, groups) = (way.clone(), vec![forwarded()]);
            ListenPlan { protocol, port: 0, way, groups, note: None }
        })
    }
}

/// What servers of PVA forward to the others of their host, by the loopback NIC alone.
fn forwarded() -> Group {
    Group { address: FORWARD_GROUP, nic: Some(NicFilter::Address(Ipv4Addr::LOCALHOST)) }
}

/// Whether the loopback NIC is among those that are listened on.
fn hears_loopback(filters: &[NicFilter], nics: &Nics) -> bool {
    let Some(lo) = nics.loopback().filter(|lo| lo.is_up && lo.owns(Ipv4Addr::LOCALHOST)) else {
        return false;
    };
    let names = |filter: &NicFilter| lo.addresses.iter().any(|own| filter.matches(lo, own));
    filters.is_empty() || filters.iter().any(names)
}

/// The sockets of a process that was killed outlive it for a moment.
const LEAVING_TIME_MAX: Duration = Duration::from_millis(300);

/// Who holds a port; `None` if nobody does.
fn holders(port: u16) -> Option<Vec<Holder>> {
    let end = Instant::now() + LEAVING_TIME_MAX;
    loop {
        if !is_held(port) {
            return None;
        }
        let holders = host::port_holders(port);
        let is_known = !holders.is_empty() && holders.iter().all(|one| one.process.is_some());
        if is_known || Instant::now() > end {
            return Some(holders);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Groups the plans by engine: an engine has one way for all its ports.
pub fn by_engine(plans: [ListenPlan; 2]) -> Vec<Vec<ListenPlan>> {
    if plans[0].way == plans[1].way {
        vec![plans.into()]
    } else {
        plans.map(|plan| vec![plan]).into()
    }
}

/// The programs that would hear no more unicast.
struct Affected {
    programs: Vec<String>,
    /// Where they would hear none.
    addresses: Vec<Ipv4Addr>,
    /// Whether that may be at every address.
    is_everywhere: bool,
}

impl Affected {
    fn new(holders: &[Holder], nics: &Nics) -> Self {
        let is_unspecified = |holder: &&Holder| holder.address.is_unspecified();
        let address = |holder: &Holder| match holder.address {
            IpAddr::V4(address) if nics.is_local(address) => Some(address),
            _ => None,
        };
        let hears_unicast = |holder: &&Holder| is_unspecified(holder) || address(holder).is_some();
        let sorted = |mut programs: Vec<String>| {
            programs.sort();
            programs.dedup();
            programs
        };
        let mut addresses: Vec<_> = holders.iter().filter_map(address).collect();
        addresses.sort();
        addresses.dedup();
        Self {
            programs: sorted(holders.iter().filter(hears_unicast).map(Holder::program).collect()),
            addresses,
            // A program that cannot be seen may be anywhere.
            is_everywhere: holders.is_empty() || holders.iter().any(|one| is_unspecified(&one)),
        }
    }

    fn note(&self, port: u16, way: &Way) -> Option<String> {
        if self.addresses.is_empty() && !self.is_everywhere {
            return None;
        }
        let who = match self.programs.as_slice() {
            [] => "another program".to_owned(),
            programs => programs.join(", "),
        };
        let listed: Vec<_> = self.addresses.iter().map(Ipv4Addr::to_string).collect();
        let (here, there) = match self.is_everywhere {
            true => ("an address of this host".to_owned(), ""),
            false => (listed.join(" or "), " (other addresses are answered here)"),
        };
        let what = if way.unicast == Unicast::Leave || !way.left.is_empty() {
            format!(
                "leaving the unicasts: SEARCHes sent to {here} go there and not here{there}, \
                 broadcasts and groups reach both (--unicast take overrules)"
            )
        } else {
            format!(
                "taking the unicasts: SEARCHes sent to {here} no longer reach it (--unicast leave \
                 leaves them)"
            )
        };
        Some(format!("UDP port {port} is also held by {who}; {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(unicast: Unicast) -> Way {
        Way { filters: vec![], unicast, left: vec![] }
    }

    #[test]
    fn protocols_share_an_engine_unless_their_ways_differ() {
        let plan = |protocol, unicast| {
            let groups = Vec::new();
            ListenPlan { protocol, port: 0, way: way(unicast), groups, note: None }
        };
        let (ca, pva) = (plan(Protocol::Ca, Unicast::Take), plan(Protocol::Pva, Unicast::Take));
        assert_eq!(by_engine([ca.clone(), pva]).len(), 1);
        assert_eq!(by_engine([ca, plan(Protocol::Pva, Unicast::Leave)]).len(), 2);
    }

    fn holder(address: &str) -> Holder {
        let process = Some((7, "softIoc".to_owned()));
        Holder { process, address: address.parse().unwrap() }
    }

    #[test]
    fn only_those_who_hear_unicasts_are_affected() {
        let nics = Nics::default();
        let note =
            |holders: &[Holder]| Affected::new(holders, &nics).note(5064, &way(Unicast::Leave));
        assert_eq!(note(&[holder("255.255.255.255")]), None);
        let text = note(&[holder("0.0.0.0"), holder("127.0.0.1")]).unwrap();
        assert!(text.contains("5064 is also held by softIoc (pid 7);"), "{text}");
        assert!(note(&[]).unwrap().contains("another program"));
    }

    #[test]
    fn one_holder_at_one_address_does_not_take_the_unicasts_of_all_addresses() {
        let affected = Affected::new(&[holder("127.0.0.1")], &Nics::default());
        assert!(!affected.is_everywhere);
        assert_eq!(affected.addresses, [Ipv4Addr::LOCALHOST]);
        let way = Way { left: affected.addresses.clone(), ..way(Unicast::Take) };
        let text = affected.note(5064, &way).unwrap();
        assert!(text.contains("sent to 127.0.0.1 go there and not here (other"), "{text}");
        assert!(Affected::new(&[holder("0.0.0.0")], &Nics::default()).is_everywhere);
        assert!(Affected::new(&[], &Nics::default()).is_everywhere);
    }
}
