//! The program on hosts that are not as simple as a laboratory's: in network namespaces.

use std::{
    fs,
    process::{Command, Stdio},
};

use nicring::search::pva;

use super::{
    Served, TemporaryFile,
    common::{
        Client, cases,
        netns::{self, Namespace},
        wait_until,
    },
    failure_of, nicring, stdout_of,
};

cases!(
    an_odd_address_is_warned_of_and_the_rest_is_served_unless_told_otherwise,
    a_nic_that_was_named_is_waited_for_if_asked,
    the_soft_limit_of_open_files_is_raised,
    the_unicasts_are_left_where_another_server_holds_the_port_and_nowhere_else,
    the_doctor_explains_what_is_heard_by_which_socket_and_what_is_not,
    a_client_behind_a_nat_is_answered_at_its_source_port,
    the_doctor_tells_the_usual_causes_outside,
    a_host_that_a_pipe_names_is_looked_up_again,
);

/// A host with NICs `s1` and so on, which have 10.201.N.1/24, and a neighbour behind all of them.
fn host(nic_count: u8) -> (Namespace, Namespace) {
    netns::need();
    let made = |label: &str| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
    let (server, neighbour) = (made("s"), made("c"));
    for number in 1..=nic_count {
        let connected = server.connect(&format!("s{number}"), &neighbour, &format!("c{number}"));
        connected.unwrap_or_else(|error| panic!("{error}"));
        server.configure(&format!("address add 10.201.{number}.1/24 brd + dev s{number}"));
        neighbour.configure(&format!("address add 10.201.{number}.2/24 brd + dev c{number}"));
    }
    (server, neighbour)
}

/// A command of `nicring` on a host.
fn nicring_on(host: &Namespace, arguments: &[&str]) -> Command {
    let mut command = host.command(env!("CARGO_BIN_EXE_nicring"));
    command.args(arguments).stdin(Stdio::null());
    // As `nicring` does.
    nicring(&[]).get_envs().for_each(|(name, _)| _ = command.env_remove(name));
    command
}

const BACKENDS: [&str; 2] = ["auto", "portable"];

/// Asks for `test:ca` from an address of the neighbour.
fn is_answered(neighbour: &Namespace, to: &str) -> bool {
    let storm = ["storm", to, "--name", "test:ca", "--protocol", "ca"];
    let brief = ["--duration-s", "0.05", "--timeout-ms", "500"];
    let output = nicring_on(neighbour, &[&storm[..], &brief].concat()).output().unwrap();
    output.status.success()
}

fn serve_on(host: &Namespace, arguments: &[&str]) -> Served {
    Served::start_by(|all| nicring_on(host, all), arguments)
}

fn an_odd_address_is_warned_of_and_the_rest_is_served_unless_told_otherwise() {
    let (server, neighbour) = host(2);
    server.configure("route del table local local 10.201.2.1 dev s2");
    for backend in BACKENDS {
        let served = serve_on(&server, &["--backend", backend]);
        let warned = served.stderr.wait_for("s2: binding 10.201.2.1:5064");
        assert!(warned.is_some(), "{}", served.stderr.all());
        for to in ["10.201.1.1", "10.201.1.255", "10.201.2.255"] {
            assert!(is_answered(&neighbour, to), "{to} by {backend}");
        }
        // The kernel closes the sockets of an io_uring some time after their process has ended.
        // Nobody is to take them for those of another server.
        drop(served);
        let file = super::TemporaryFile::new(super::TABLE);
        let brief = ["serve", "--pvs", file.as_str(), "--duration-s", "10"];
        let strict = [&brief[..], &["--strict", "--backend", backend]].concat();
        let failure = failure_of(nicring_on(&server, &strict), 1);
        assert!(failure.contains("10.201.2.1"), "{failure}");
    }
}

fn a_nic_that_was_named_is_waited_for_if_asked() {
    let (server, neighbour) = host(1);
    server.configure("link set s1 down");
    let file = super::TemporaryFile::new(super::TABLE);
    let named = ["serve", "--pvs", file.as_str(), "--interface", "s1"];
    let failure = failure_of(nicring_on(&server, &named), 2);
    assert!(failure.contains("--wait-for-nics"), "{failure}");
    for backend in BACKENDS {
        let served =
            serve_on(&server, &["--interface", "s1", "--wait-for-nics", "--backend", backend]);
        server.configure("link set s1 up");
        wait_until("the link is up", || server.is_up("s1"));
        wait_until("the NIC is heard", || is_answered(&neighbour, "10.201.1.255"));
        server.configure("link set s1 down");
        drop(served);
    }
}

fn the_soft_limit_of_open_files_is_raised() {
    let (server, neighbour) = host(4);
    for backend in BACKENDS {
        let limited = |all: &[&str]| {
            let mut command = server.command("sh");
            let script = "ulimit -Sn 40 && exec \"$0\" \"$@\"";
            command.args(["-c", script, env!("CARGO_BIN_EXE_nicring")]).args(all);
            command
        };
        let served = Served::start_by(limited, &["--backend", backend]);
        assert!(is_answered(&neighbour, "10.201.4.255"), "{}", served.stderr.all());
    }
}

fn the_unicasts_are_left_where_another_server_holds_the_port_and_nowhere_else() {
    for backend in BACKENDS {
        let (server, neighbour) = host(2);
        let other = server.run(|| Client::sharing_at([10, 201, 2, 1].into(), 5064));
        let served = serve_on(&server, &["--backend", backend]);
        let noted = served.stdout.wait_for("also held by").expect("a note");
        assert!(noted.contains("sent to 10.201.2.1 go there"), "{noted}");
        assert!(is_answered(&neighbour, "10.201.1.1"), "by {backend}");
        assert!(is_answered(&neighbour, "10.201.2.255"), "by {backend}");
        let client = neighbour.client([10, 201, 2, 2]);
        for round in 0..20 {
            client.ask(&round.to_string(), [10, 201, 2, 1], 5064);
            assert_eq!(other.receive().0, round.to_string().as_bytes());
        }
    }
}

/// What the doctor says, with each run of blanks as one.
fn told(host: &Namespace, arguments: &[&str]) -> String {
    let told = stdout_of(nicring_on(host, &[&["doctor"], arguments].concat()));
    assert!(told.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{told}");
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_tells(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}

fn the_doctor_explains_what_is_heard_by_which_socket_and_what_is_not() {
    let (server, _neighbour) = host(2);
    server.configure(
        "address add 10.78.0.1/24 brd + dev lo\n\
         route del table local local 10.201.2.1 dev s2\n\
         address add 10.201.7.1/24 brd 10.201.63.255 dev s1 label anything",
    );
    let ports = ["--ca-port", "5064", "--pva-port", "5076"];
    let everything = told(&server, &ports);
    let parts = [
        "lo 127.0.0.1 unicast a socket of its own",
        "lo 127.0.0.0/8 unicast the socket on 0.0.0.0",
        "lo 10.78.0.0/24 unicast the socket on 0.0.0.0",
        "s1 10.201.1.255 broadcast a socket on each NIC",
        "s1 10.201.63.255 broadcast a socket on each NIC",
        "s1 10.201.7.255 broadcast a socket on each NIC",
        "lo 224.0.0.128 group a socket on the NIC, for pva",
        "s2 10.201.2.1 unicast NOT HEARD: see below",
        "s2: binding 10.201.2.1:5064",
        "not in the kernel's table `local`",
        "--shards work, and so does --filter",
        "would work here, but for 2 sockets.",
    ];
    assert_tells(&everything, &parts);
    assert!(!everything.contains("s1 224.0.0.128"), "a group that only lo carries:\n{everything}");
    let chosen = [&ports[..], &["--interface", "s1", "--unicast", "leave"]].concat();
    let parts = [
        "s1 10.201.1.1 unicast left to other servers",
        "s2 everything not heard: it was not chosen",
        "would work here.",
    ];
    assert_tells(&told(&server, &chosen), &parts);
    server.configure("link set s2 down");
    assert_tells(&told(&server, &ports), &["s2 everything not heard: the NIC is down"]);
    let _other = server.run(|| Client::sharing_at([10, 201, 1, 1].into(), 5064));
    let parts = ["s1 10.201.1.1 unicast left to other servers", "s1 10.201.7.1 unicast a socket"];
    assert_tells(&told(&server, &ports), &parts);
}

/// As Phoebus asks from behind a NAT: the port that the request names means nothing there.
fn a_client_behind_a_nat_is_answered_at_its_source_port() {
    let (server, router) = host(1);
    let client = Namespace::new("i").unwrap_or_else(|error| panic!("{error}"));
    router.connect("inside", &client, "eth0").unwrap_or_else(|error| panic!("{error}"));
    router.configure("address add 10.66.0.1/24 dev inside");
    client.configure("address add 10.66.0.2/24 dev eth0\nroute add default via 10.66.0.1");
    router.set("ipv4/ip_forward", "1");
    router.need_nft(&[
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100 ; }",
        "add rule ip nat out oifname c1 masquerade fully-random",
    ]);
    wait_until("the links are up", || router.is_up("inside") && router.is_up("c1"));
    for backend in BACKENDS {
        let served = serve_on(&server, &["--backend", backend]);
        let mut request = pva::RequestWriter::new();
        request.begin(pva::SearchHead {
            byte_order: pva::ByteOrder::Little,
            sequence: 1,
            flags: pva::FLAG_UNICAST | pva::FLAG_REPLY_TO_SOURCE_PORT,
            reply_to: "0.0.0.0:9".parse().unwrap(),
        });
        assert!(request.push(7, b"test:pva"));
        let mut datagram = request.datagram().to_vec();
        datagram[1] = 3; // the version
        let asker = client.client([0, 0, 0, 0]);
        let to = std::net::SocketAddrV4::new([10, 201, 1, 1].into(), served.pva_port);
        asker.send(&datagram, to);
        let (answer, from) = asker.receive();
        let response = pva::messages(&answer).next().unwrap().unwrap().search_response().unwrap();
        assert!(response.found && response.ids().eq([7]) && from == to, "{response:?}");
    }
}

fn the_doctor_tells_the_usual_causes_outside() {
    let (server, _neighbour) = host(2);
    let ports = ["--ca-port", "5064", "--pva-port", "5076"];
    assert_tells(&told(&server, &ports), &["rp_filter not strict", "groups 20 a socket"]);
    server.set("ipv4/conf/s2/rp_filter", "1");
    server.set("ipv4/igmp_max_memberships", "0");
    let parts = ["rp_filter strict on s2:", "NO GROUP CAN BE JOINED", "igmp_max_memberships"];
    assert_tells(&told(&server, &ports), &parts);
    let chain = "add chain inet t in { type filter hook input priority 0; policy accept; }";
    server.need_nft(&["add table inet t", chain]);
    assert_tells(&told(&server, &ports), &["firewall, UDP 5064 lets it pass"]);
    for rule in [
        "add rule inet t in udp dport 5064 drop",
        "add rule inet t in ip saddr 10.0.0.0/8 udp dport { 5070-5080 } reject",
    ] {
        server.nft(rule).expect("a rule");
    }
    let parts = [
        "firewall, UDP 5064 DROPS IT: rule 2 of inet t in",
        "firewall, UDP 5076 lets it pass only from some",
    ];
    assert_tells(&told(&server, &ports), &parts);
}

fn a_host_that_a_pipe_names_is_looked_up_again() {
    netns::need();
    let hosts = TemporaryFile::new("127.0.0.1 localhost\n");
    // In a view of the file system of its own, where this file says what resolves.
    let script = "mount --bind \"$0\" /etc/hosts && mount --bind /dev/null /etc/resolv.conf && \
                  exec \"$@\" --pvs <(printf 'ca test:late late.test:5064\\n')";
    let there = |all: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", script, hosts.as_str()]);
        command.arg(env!("CARGO_BIN_EXE_nicring")).args(all);
        nicring(&[]).get_envs().for_each(|(name, _)| _ = command.env_remove(name));
        command
    };
    let here = ["--interface", "127.0.0.1", "--ca-port", "0", "--pva-port", "0"];
    let served = Served::start_by(there, &here);
    let ask = ["--name", "test:late", "--protocol", "ca", "--duration-s", "0.05"];
    let is_found = || served.try_storm(&ask).status.success();
    assert!(!is_found(), "{}", served.stderr.all());
    fs::write(hosts.path(), "127.0.0.1 localhost\n192.0.2.7 late.test\n").unwrap();
    wait_until("it is found", || {
        served.signal("-HUP");
        is_found()
    });
}
