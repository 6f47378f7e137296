//! The EPICS environment variables that a SEARCH server follows.
//!
//! The syntax is that of EPICS base (`rsrv`) and pvxs. Lists are separated by blanks. An entry is
//! `ADDRESS[:PORT]` or a host's name. An empty variable counts as not set. Where those programs
//! warn and go on with another value, this one stops: a server that listens where nobody asked it
//! to is worse than one that does not start.

use std::{
    collections::HashMap,
    env,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs},
};

use nicring::{NicFilter, search::Protocol};

use super::failure::Failure;

/// The variables of one protocol. Those that take precedence come first.
struct Variables {
    port: [&'static str; 2],
    interfaces: &'static str,
    ignored: &'static str,
    /// EPICS base refuses ports up to 5000. pvxs takes any; 0 asks for an unused one.
    port_min: u16,
}

const CA: Variables = Variables {
    port: ["EPICS_CAS_SERVER_PORT", "EPICS_CA_SERVER_PORT"],
    interfaces: "EPICS_CAS_INTF_ADDR_LIST",
    ignored: "EPICS_CAS_IGNORE_ADDR_LIST",
    port_min: 5001,
};

const PVA: Variables = Variables {
    port: ["EPICS_PVAS_BROADCAST_PORT", "EPICS_PVA_BROADCAST_PORT"],
    interfaces: "EPICS_PVAS_INTF_ADDR_LIST",
    ignored: "EPICS_PVAS_IGNORE_ADDR_LIST",
    port_min: 0,
};

fn names(protocol: Protocol) -> &'static Variables {
    match protocol {
        Protocol::Ca => &CA,
        Protocol::Pva => &PVA,
    }
}

/// Where a protocol's variable tells a server to listen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// The variable.
    pub variable: &'static str,
    /// Addresses of NICs; an empty list means all NICs.
    pub addresses: Vec<Ipv4Addr>,
    /// Multicast groups to join.
    pub groups: Vec<Group>,
}

/// A multicast group, and the NIC to hear it on; `None` for all that are listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub address: Ipv4Addr,
    pub nic: Option<NicFilter>,
}

const NO_COMMAS: &str = "expected entries separated by blanks";

fn refused_entry(variable: &str, entry: &str, expected: &str) -> Failure {
    Failure::Usage(format!("{variable}: {entry:?}: {expected}"))
}

/// The host of an entry, whether it has to be a group, and on which NIC: pvxs allows
/// `GROUP,TTL@NIC`. The TTL is for senders only.
fn interface_entry<'a>(
    variable: &str,
    entry: &'a str,
) -> Result<(&'a str, bool, Option<NicFilter>), Failure> {
    let (rest, nic) = match entry.split_once('@') {
        Some((rest, nic)) => (rest, Some(nic)),
        None => (entry, None),
    };
    let (host, ttl) = match rest.split_once(',') {
        Some((host, ttl)) => (host, Some(ttl)),
        None => (rest, None),
    };
    if ttl.is_some_and(|ttl| ttl.parse::<u8>().is_err()) {
        return Err(refused_entry(variable, entry, NO_COMMAS));
    }
    let refused =
        |_| refused_entry(variable, entry, "expected a NIC's name or address after the @");
    let nic = nic.map(|nic| nic.parse().map_err(refused)).transpose()?;
    Ok((host, ttl.is_some() || nic.is_some(), nic))
}

/// The variables that begin with `EPICS_`.
#[derive(Debug, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
}

impl Environment {
    pub fn of_process() -> Self {
        Self::from_iter(env::vars_os().map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        }))
    }

    /// The port of a server.
    pub fn server_port(&self, protocol: Protocol) -> Result<u16, Failure> {
        for name in names(protocol).port {
            if let Some(port) = self.port(protocol, name)? {
                return Ok(port);
            }
        }
        Ok(protocol.search_port())
    }

    /// The port that clients search at.
    pub fn client_port(&self, protocol: Protocol) -> Result<u16, Failure> {
        let [_, name] = names(protocol).port;
        let port = self.port(protocol, name)?.filter(|port| *port != 0);
        Ok(port.unwrap_or(protocol.search_port()))
    }

    fn port(&self, protocol: Protocol, name: &str) -> Result<Option<u16>, Failure> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let port_min = names(protocol).port_min;
        match text.parse() {
            Ok(port) if port >= port_min => Ok(Some(port)),
            _ => {
                let expected = format!("expected a port of {port_min} to 65535");
                Err(Failure::Usage(format!("{name}: {text:?}: {expected}")))
            }
        }
    }

    /// Where to listen.
    pub fn interfaces(&self, protocol: Protocol) -> Result<Interfaces, Failure> {
        let variable = names(protocol).interfaces;
        let mut interfaces = Interfaces { variable, ..Interfaces::default() };
        let mut wants_all = false;
        for entry in self.entries(variable) {
            let (host, is_group, nic) = interface_entry(variable, entry)?;
            // The port here has no effect: one ring has one port per protocol. For rsrv it is the
            // port to search at, for pvxs the port to connect to. This program's port option means
            // neither.
            let address = *resolve(variable, host)?.ip();
            if is_group && !address.is_multicast() {
                return Err(refused_entry(variable, entry, NO_COMMAS));
            }
            match address {
                Ipv4Addr::UNSPECIFIED => wants_all = true,
                _ if address.is_multicast() => interfaces.groups.push(Group { address, nic }),
                _ => interfaces.addresses.push(address),
            }
        }
        if wants_all {
            interfaces.addresses.clear();
        }
        Ok(interfaces)
    }

    /// The sources whose SEARCHes are not answered. Port 0 stands for every port of the address.
    pub fn ignored(&self, protocol: Protocol) -> Result<Vec<SocketAddrV4>, Failure> {
        let variable = names(protocol).ignored;
        let ignore = |entry| {
            let mut source = resolve(variable, entry)?;
            if protocol == Protocol::Ca {
                source.set_port(0); // rsrv compares only the address
            }
            Ok(source)
        };
        self.entries(variable).map(ignore).collect()
    }

    fn entries(&self, name: &str) -> impl Iterator<Item = &str> {
        self.value(name).unwrap_or_default().split_ascii_whitespace()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let is_epics = |(name, _): &(String, String)| name.starts_with("EPICS_");
        Self { variables: variables.into_iter().filter(is_epics).collect() }
    }
}

/// Resolves an address or a host's name, with or without a port. Without one, the port is 0.
fn resolve(variable: &str, entry: &str) -> Result<SocketAddrV4, Failure> {
    let refuse = |reason: &str| {
        let expected = "expected IPv4 addresses or host names, each with or without :PORT";
        Failure::Usage(format!("{variable}: {entry:?}: {reason}; {expected}"))
    };
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| refuse("no port after the colon"))?),
        None => (entry, 0),
    };
    if let Ok(address) = host.parse() {
        return Ok(SocketAddrV4::new(address, port));
    }
    // Refused before the resolver sees it: that would take `10.1` or `10` for an address, or ask a
    // name server.
    if host.is_empty() || host.chars().all(|c| c.is_ascii_digit() || ".:[]".contains(c)) {
        return Err(refuse("no IPv4 address"));
    }
    let resolved = (host, port).to_socket_addrs().map_err(|error| refuse(&error.to_string()))?;
    let is_v4 = |address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    };
    resolved.into_iter().find_map(is_v4).ok_or_else(|| refuse("the host has no IPv4 address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_servers_port_goes_before_the_clients_and_both_before_the_default() {
        for (protocol, server, client, default) in [
            (Protocol::Ca, "EPICS_CAS_SERVER_PORT", "EPICS_CA_SERVER_PORT", 5064),
            (Protocol::Pva, "EPICS_PVAS_BROADCAST_PORT", "EPICS_PVA_BROADCAST_PORT", 5076),
        ] {
            let port = |variables: &[_]| environment(variables).server_port(protocol).unwrap();
            assert_eq!(port(&[]), default);
            assert_eq!(port(&[(client, "6001")]), 6001);
            assert_eq!(port(&[(client, "6001"), (server, "6002")]), 6002);
            assert_eq!(port(&[(client, "6001"), (server, " ")]), 6001, "an empty one is unset");
            let both = environment(&[(client, "6001"), (server, "6002")]);
            assert_eq!(both.client_port(protocol).unwrap(), 6001);
        }
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_its_variable() {
        for (variable, value) in [
            ("EPICS_CA_SERVER_PORT", "5000"),
            ("EPICS_CAS_SERVER_PORT", "many"),
            ("EPICS_PVA_BROADCAST_PORT", "65536"),
            ("EPICS_CAS_INTF_ADDR_LIST", "10.1"),
            ("EPICS_CAS_INTF_ADDR_LIST", "10.0.0.1:port"),
            ("EPICS_PVAS_INTF_ADDR_LIST", "[::1]:5075"),
            ("EPICS_CAS_IGNORE_ADDR_LIST", ":1"),
            ("EPICS_PVAS_IGNORE_ADDR_LIST", "10.0.0.256"),
        ] {
            let environment = environment(&[(variable, value)]);
            let failures = Protocol::ALL.into_iter().filter_map(|protocol| {
                let port = environment.server_port(protocol).err();
                let interfaces = environment.interfaces(protocol).err();
                port.or(interfaces).or(environment.ignored(protocol).err())
            });
            let texts: Vec<_> = failures.map(|failure| failure.to_string()).collect();
            assert_eq!(texts.len(), 1, "{variable}={value}: {texts:?}");
            assert!(texts[0].starts_with(&format!("{variable}: ")), "{texts:?}");
            assert!(texts[0].contains("expected"), "{texts:?}");
        }
    }

    #[test]
    fn interface_lists_have_addresses_and_groups() {
        let interfaces = |list| {
            let environment = environment(&[("EPICS_PVAS_INTF_ADDR_LIST", list)]);
            let interfaces = environment.interfaces(Protocol::Pva).unwrap();
            (interfaces.addresses, interfaces.groups)
        };
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let address_of_group = Ipv4Addr::new(224, 0, 1, 9);
        let group = |nic: Option<&str>| {
            let nic = nic.map(|nic| nic.parse().unwrap());
            Group { address: address_of_group, nic }
        };
        assert_eq!(interfaces(""), (vec![], vec![]));
        assert_eq!(interfaces(" 192.0.2.7:5075\t"), (vec![address], vec![]));
        let of_nic = group(Some("eth0"));
        assert_eq!(interfaces("192.0.2.7 224.0.1.9,2@eth0"), (vec![address], vec![of_nic]));
        assert_eq!(interfaces("224.0.1.9").1, [group(None)]);
        assert_eq!(interfaces("0.0.0.0 192.0.2.7"), (vec![], vec![]), "0.0.0.0 stands for all");
        for list in [
            "192.0.2.7,192.0.2.8",
            "192.0.2.7,junk",
            "192.0.2.7@eth0",
            "224.0.1.9,x",
            "224.0.1.9@",
            "224.0.1.9,1@a b,c",
            "192.0.2.7:x",
        ] {
            let environment = environment(&[("EPICS_PVAS_INTF_ADDR_LIST", list)]);
            let refused = environment.interfaces(Protocol::Pva).unwrap_err().to_string();
            assert!(refused.starts_with("EPICS_PVAS_INTF_ADDR_LIST: "), "{list}: {refused}");
        }
        assert_eq!(interfaces("localhost").0, [Ipv4Addr::LOCALHOST]);
    }

    #[test]
    fn ignored_sources_are_by_address_and_for_pva_by_port_too() {
        let environment = environment(&[
            ("EPICS_CAS_IGNORE_ADDR_LIST", "192.0.2.7:40000"),
            ("EPICS_PVAS_IGNORE_ADDR_LIST", "192.0.2.7:40000 192.0.2.8"),
        ]);
        let ignored = |protocol| {
            let sources = environment.ignored(protocol).unwrap();
            sources.iter().map(SocketAddrV4::to_string).collect::<Vec<_>>()
        };
        assert_eq!(ignored(Protocol::Ca), ["192.0.2.7:0"]);
        assert_eq!(ignored(Protocol::Pva), ["192.0.2.7:40000", "192.0.2.8:0"]);
    }
}
