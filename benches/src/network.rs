//! Two network namespaces with N links between them; needs root and `ip`.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    process::{self, Command},
};

use nix::sched::{CloneFlags, setns};

/// A server with N NICs, and a client that reaches each over a link of its own. Gone when dropped.
#[derive(Debug)]
pub struct Network {
    nic_count: u8,
    name: String,
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Has the NICs that are listened on.
    Server,
    /// Sends.
    Client,
}

impl Network {
    /// Makes a network of up to 100 links.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn new(nic_count: u8) -> io::Result<Self> {
        let network = Self { nic_count, name: format!("nb{}", process::id()) };
        let [server, client] = [Host::Server, Host::Client].map(|host| network.namespace(host));
        for namespace in [&server, &client] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        for nic in 0..nic_count {
            let (ours, theirs) = (format!("nic{nic}"), format!("to{nic}"));
            let peer = ["peer", "name", &theirs, "netns", &client];
            ip(&[&["-n", &server, "link", "add", &ours, "type", "veth"][..], &peer].concat())?;
            for (namespace, link, host) in [(&server, &ours, 1), (&client, &theirs, 2)] {
                let address = format!("10.77.{nic}.{host}/24");
                ip(&["-n", namespace, "address", "add", &address, "dev", link])?;
                ip(&["-n", namespace, "link", "set", link, "up"])?;
            }
        }
        Ok(network)
    }

    /// The server's address on a link.
    pub fn server_address(nic: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, nic, 1)
    }

    /// The server's addresses.
    pub fn server_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.nic_count).map(Self::server_address)
    }

    /// The name of a host's namespace.
    pub fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.name, if host == Host::Server { "server" } else { "client" })
    }

    /// Moves the calling thread, and the threads that it starts from now on, to a host.
    ///
    /// # Errors
    ///
    /// The namespace is not there, or root is not who calls.
    pub fn enter(&self, host: Host) -> io::Result<()> {
        enter(&self.namespace(host))
    }
}

/// Moves the calling thread to a namespace that has a name.
///
/// # Errors
///
/// As [`Network::enter`].
pub fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [Host::Server, Host::Client] {
            let _ = ip(&["netns", "delete", &self.namespace(host)]);
        }
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), reason.trim())))
}
