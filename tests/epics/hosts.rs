//! A host that is not simple, with EPICS Base's own server (rsrv) and `nicring serve` side by side:
//! both answer the same SEARCHes.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    process::Child,
    time::{Duration, Instant},
};

use nicring::search::ca;

use crate::{
    cases::{EpicsServer, TemporaryDirectory, need_epics, start_nicring},
    common::{
        Client, PATIENCE, cases, need_io_uring,
        netns::{self, Namespace},
    },
};

cases!(
    nicring_answers_wherever_rsrv_answers_by_io_uring,
    nicring_answers_wherever_rsrv_answers_by_portable,
);

const RSRV_PORT: u16 = 5066;
const NICRING_PORT: u16 = 5064;
/// If nothing came for so long, nothing more will come.
const QUIET: Duration = Duration::from_millis(300);

/// Where the neighbour asks, and where the host asks itself.
const NEIGHBOUR_ASKS: [&str; 13] = [
    "10.201.1.1",
    "10.201.1.255",
    "10.201.2.1",
    "10.201.2.255", // of the other NIC: the host is a router
    "10.201.3.1",
    "10.201.63.255", // configured
    "10.201.3.255",  // of the mask
    "10.8.0.1",
    "10.8.0.255", // of a tunnel
    "10.201.4.1", // with a label of its own
    "10.201.4.255",
    "10.78.0.7", // of a subnet that is local to lo
    "255.255.255.255",
];
const ITSELF_ASKS: [&str; 4] = ["127.0.0.1", "127.0.1.1", "127.255.255.255", "10.201.1.255"];

fn nicring_answers_wherever_rsrv_answers_by_io_uring() {
    need_io_uring();
    nicring_answers_wherever_rsrv_answers("io_uring");
}

fn nicring_answers_wherever_rsrv_answers_by_portable() {
    nicring_answers_wherever_rsrv_answers("portable");
}

fn nicring_answers_wherever_rsrv_answers(backend: &str) {
    let python = need_epics();
    netns::need_tunnels();
    netns::need();
    let host = Host::new().unwrap_or_else(|error| panic!("{error}"));
    let files = TemporaryDirectory::new(&format!("hosts-{backend}"));
    let rsrv = EpicsServer {
        script: "ca_ioc_softioc.py",
        pvs: ["nr:softioc=1.25", "nr:softioc-too=1.25"],
        address: "0.0.0.0",
        ports: &["--port", "5066"],
    };
    let _rsrv = rsrv.start(&host.server, &python, &files);
    let table = "ca nr:softioc 10.201.1.1:5066\n";
    let nicring = start_nicring(&host.server, backend, table, &[], &files);
    let asked: Vec<(Client, Ipv4Addr)> = host.clients();
    let by_rsrv = answers(&asked, RSRV_PORT);
    let by_nicring = answers(&asked, NICRING_PORT);
    let logs = files.logs();
    assert_eq!(by_rsrv.len(), asked.len(), "rsrv is the oracle: {by_rsrv:#?}\n{logs}");
    assert_eq!(by_nicring, by_rsrv, "left: nicring\n{logs}");
    assert!(nicring.ends_well_when_asked(), "{logs}");
}

/// How often each question was answered, by its destination and whether the host asked itself.
fn answers(asked: &[(Client, Ipv4Addr)], port: u16) -> BTreeMap<(usize, Ipv4Addr), usize> {
    let mut counts = BTreeMap::new();
    for (number, (client, to)) in asked.iter().enumerate() {
        let mut request = ca::RequestWriter::new();
        request.begin(None);
        assert!(request.push(number as u32, b"nr:softioc"));
        client.send(request.datagram(), SocketAddrV4::new(*to, port));
    }
    let (start, mut last_at) = (Instant::now(), Instant::now());
    while last_at.elapsed() < QUIET && start.elapsed() < PATIENCE {
        for (number, (client, to)) in asked.iter().enumerate() {
            client.0.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            while client.0.recv_from(&mut [0; 256]).is_ok() {
                *counts.entry((number, *to)).or_default() += 1;
                last_at = Instant::now();
            }
        }
    }
    counts
}

struct Host {
    server: Namespace,
    neighbour: Namespace,
    tunnel: [Child; 2],
}

impl Host {
    fn new() -> Result<Self, String> {
        let (server, neighbour) = (Namespace::new("s")?, Namespace::new("c")?);
        for number in 1..=4 {
            server.connect(&format!("s{number}"), &neighbour, &format!("c{number}"))?;
        }
        server.ip("address add 10.201.1.1/24 brd + dev s1\n\
             address add 10.201.2.1/24 brd + dev s2\n\
             address add 10.201.3.1/24 brd 10.201.63.255 dev s3\n\
             address add 10.201.4.1/24 brd + dev s4 label s1vip\n\
             address add 10.78.0.1/24 brd + dev lo")?;
        neighbour.ip("address add 10.201.1.2/24 brd + dev c1\n\
             address add 10.201.3.2/24 brd 10.201.63.255 dev c3\n\
             address add 10.201.4.2/24 brd + dev c4\n\
             route add default via 10.201.1.1")?;
        server.set("ipv4/ip_forward", "1");
        let tunnel = [server.tunnel(1, 2), neighbour.tunnel(2, 1)];
        Ok(Self { server, neighbour, tunnel })
    }

    /// Who asks, and where.
    fn clients(&self) -> Vec<(Client, Ipv4Addr)> {
        let at = |text: &&str| text.parse::<Ipv4Addr>().expect("an address");
        let neighbour = NEIGHBOUR_ASKS.iter().map(at);
        let neighbour = neighbour.map(|to| (self.neighbour.client(Ipv4Addr::UNSPECIFIED), to));
        let itself = ITSELF_ASKS.iter().map(at);
        let itself = itself.map(|to| (self.server.client(Ipv4Addr::UNSPECIFIED), to));
        neighbour.chain(itself).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for end in &mut self.tunnel {
            let _ = end.kill();
            let _ = end.wait();
        }
    }
}
