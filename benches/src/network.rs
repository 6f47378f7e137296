//! Two network namespaces with N links between them. Needs root, of a user namespace at least, and
//! `ip`.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{setsockopt, sockopt},
};

/// A server with N NICs, and a client that reaches each over a separate link. Dropping it removes
/// both.
#[derive(Debug)]
pub struct Network {
    nic_count: u8,
    name: String,
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The host with the NICs that are listened on.
    Server,
    /// The host that sends.
    Client,
}

impl Network {
    /// Creates a network of up to 100 links.
    ///
    /// # Errors
    ///
    /// What `ip` reports.
    pub fn new(nic_count: u8) -> io::Result<Self> {
        static MADE_COUNT: AtomicU32 = AtomicU32::new(0);
        let number = MADE_COUNT.fetch_add(1, Relaxed);
        let network = Self { nic_count, name: format!("nb{}-{number}", process::id()) };
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
                ip(&["-n", namespace, "address", "add", &address, "brd", "+", "dev", link])?;
                ip(&["-n", namespace, "link", "set", link, "up"])?;
            }
        }
        Ok(network)
    }

    /// The server's address on a link.
    #[must_use]
    pub fn server_address(nic: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, nic, 1)
    }

    /// The broadcast address of a link's subnet.
    #[must_use]
    pub fn broadcast_address(nic: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, nic, 255)
    }

    /// The client's address on a link.
    #[must_use]
    pub fn client_address(nic: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, nic, 2)
    }

    /// How many links there are.
    #[must_use]
    pub fn nic_count(&self) -> u8 {
        self.nic_count
    }

    /// The server's addresses.
    pub fn server_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.nic_count).map(Self::server_address)
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.name, if host == Host::Server { "server" } else { "client" })
    }

    /// Lets both ends of every link learn the other's MAC address, so that no datagram waits for
    /// ARP.
    ///
    /// # Errors
    ///
    /// As [`Network::enter`], or if a link is down.
    pub fn prime(&self) -> io::Result<()> {
        let namespace = self.namespace(Host::Client);
        let addresses: Vec<_> = self.server_addresses().collect();
        let primer = thread::spawn(move || {
            enter(&namespace)?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            for address in addresses {
                // Nobody listens at the discard port.
                socket.send_to(b"", (address, 9))?;
            }
            thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        primer.join().expect("no panic")
    }

    /// Waits until no socket of the server is bound to a port. The kernel closes the sockets of an
    /// io_uring some time after their process has ended, and until then they receive a share of the
    /// datagrams.
    ///
    /// # Errors
    ///
    /// If one is still bound after 10 s.
    pub fn wait_until_free(&self, port: u16) -> io::Result<()> {
        let namespace = self.namespace(Host::Server);
        let waiter = thread::spawn(move || {
            enter(&namespace)?;
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
                    Ok(_) => return Ok(()),
                    Err(error) if Instant::now() > end => return Err(error),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        waiter.join().expect("no panic")
    }

    /// Moves the calling thread, and the threads that it starts from now on, to a host.
    ///
    /// # Errors
    ///
    /// If the namespace does not exist, or the caller is not root.
    pub fn enter(&self, host: Host) -> io::Result<()> {
        enter(&self.namespace(host))
    }
}

/// Moves the calling thread to the namespace with this name.
///
/// # Errors
///
/// As [`Network::enter`].
pub fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// How many datagrams the host of a process has lost because a socket was full, since the host
/// began (`/proc/PID/net/snmp`, proc(5)).
///
/// # Errors
///
/// If the process has ended.
pub fn dropped_count(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp"))?;
    // A line of names, and one of values.
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let mut fields = || lines.next().unwrap_or_default().split_whitespace();
    let count = fields().zip(fields()).find(|(name, _)| *name == "RcvbufErrors");
    let count = count.and_then(|(_, value)| value.parse().ok());
    count.ok_or_else(|| io::Error::other("/proc/net/snmp has another form"))
}

/// Asks for a receive buffer of this size. Only root of the whole machine may exceed
/// `net.core.rmem_max`: others get at most that.
///
/// # Errors
///
/// Those of the socket.
pub fn set_recv_buffer(socket: impl AsFd, len: usize) -> io::Result<()> {
    match setsockopt(&socket, sockopt::RcvBufForce, &len) {
        Err(Errno::EPERM) => Ok(setsockopt(&socket, sockopt::RcvBuf, &len)?),
        result => Ok(result?),
    }
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
