//! Return paths that differ from the forward path, subnets that overlap, NICs with several
//! addresses or without a subnet.

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::{Backend, Class, Hears, Listen, Unicast};

use crate::{
    common::{Client, Server, for_each_backend, netns::Namespace},
    star::{GROUPS, PORT, Question, Star, at_port, broadcast, on_every_nic, own},
};

for_each_backend!(crate::common::netns::on:
    a_client_behind_a_router_is_answered_over_the_other_nic,
    a_client_behind_a_router_is_answered_by_a_wildcard_socket_too,
    a_directed_broadcast_through_a_router_is_answered_over_the_other_nic,
    a_directed_broadcast_is_answered_where_unicasts_are_left,
    two_nics_on_one_subnet_each_hear_their_frame_and_answer_for_themselves,
    two_nics_on_one_subnet_answer_by_a_wildcard_socket_too,
    an_address_asked_over_the_other_nic_of_its_subnet_answers,
    a_client_of_this_host_on_the_other_nic_of_the_subnet_is_answered,
    a_nic_with_several_addresses_hears_once_and_answers_from_the_right_one,
    nics_without_a_subnet_hear_what_they_can,
    an_engine_serves_where_lo_is_down,
);

/// The question comes over nic1, the answer leaves by nic2:
///
/// ```text
///   client 10.77.9.2 ---- router ---- 10.77.1.1 nic1 server
///                            \------- 10.77.2.1 nic2
/// ```
struct Routed {
    server: Namespace,
    _router: Namespace,
    client: Namespace,
}

impl Routed {
    fn new() -> Self {
        let made = |label: &str| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
        let (server, router, client) = (made("s"), made("r"), made("x"));
        server.connect("nic1", &router, "r1").expect("a veth pair");
        server.connect("nic2", &router, "r2").expect("a veth pair");
        client.connect("eth0", &router, "r9").expect("a veth pair");
        for nic in ["all", "nic1", "nic2"] {
            server.set(&format!("ipv4/conf/{nic}/rp_filter"), "0");
        }
        server.configure(
            "address add 10.77.1.1/24 brd + dev nic1\naddress add 10.77.2.1/24 brd + dev nic2\n\
             route add default via 10.77.2.254",
        );
        router.configure(
            "address add 10.77.1.254/24 brd + dev r1\naddress add 10.77.2.254/24 brd + dev r2\n\
             address add 10.77.9.254/24 brd + dev r9",
        );
        for nic in ["all", "r1", "r2", "r9"] {
            router.set(&format!("ipv4/conf/{nic}/rp_filter"), "0");
            router.set(&format!("ipv4/conf/{nic}/bc_forwarding"), "1");
        }
        router.set("ipv4/ip_forward", "1");
        client.configure("address add 10.77.9.2/24 dev eth0\nroute add default via 10.77.9.254");
        Self { server, _router: router, client }
    }

    /// The client asks `to`, which is heard on nic1; the answer leaves by nic2.
    #[track_caller]
    fn ask(&self, server: &Server, to: Ipv4Addr, class: Class) {
        const SENT_PACKETS: usize = 9;
        let client = self.client.client([0, 0, 0, 0]);
        let index = self.server.index_of("nic1");
        let question = Question { to, class, nic: index, ifindex: index, answered_from: own(1) };
        let by_nic2 = || self.server.count_of("nic2", SENT_PACKETS);
        question.ask(&client, server); // ARP has its part in the first
        let before = by_nic2();
        (0..10).for_each(|_| question.ask(&client, server));
        assert!(by_nic2() >= before + 10, "answers leave by the kernel's route");
        client.expect_nothing();
    }
}

fn a_client_behind_a_router_is_answered_over_the_other_nic(backend: Backend) {
    let routed = Routed::new();
    let server = routed.server.echo(on_every_nic(backend));
    routed.ask(&server, own(1), Class::Unicast);
    server.stop_having_heard_all();
}

fn a_client_behind_a_router_is_answered_by_a_wildcard_socket_too(backend: Backend) {
    let routed = Routed::new();
    let server = routed.server.echo(on_every_nic(backend).listen(Listen::Wildcard));
    routed.ask(&server, own(1), Class::Unicast);
    routed.ask(&server, broadcast(1), Class::Subnet);
    server.stop_having_heard_all();
}

fn a_directed_broadcast_through_a_router_is_answered_over_the_other_nic(backend: Backend) {
    let routed = Routed::new();
    let server = routed.server.echo(on_every_nic(backend));
    routed.ask(&server, broadcast(1), Class::Subnet);
    server.stop_having_heard_all();
}

/// Here every socket that hears is bound to a device, so another socket has to send.
fn a_directed_broadcast_is_answered_where_unicasts_are_left(backend: Backend) {
    let routed = Routed::new();
    let server = routed.server.echo(on_every_nic(backend).unicast(Unicast::Leave));
    routed.ask(&server, broadcast(1), Class::Subnet);
    server.stop_having_heard_all();
}

/// nic1 10.77.1.1/24 and nic2 10.77.1.3/24 on one bridge with the client, 10.77.1.2/24.
struct OneSubnet {
    server: Namespace,
    _bridge: Namespace,
    client: Namespace,
}

impl OneSubnet {
    fn new() -> Self {
        let made = |label: &str| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
        let (server, bridge, client) = (made("s"), made("b"), made("c"));
        bridge.configure("link add br0 type bridge\nlink set br0 up");
        let ports = [(&server, "nic1"), (&server, "nic2"), (&client, "eth0")];
        for (number, (namespace, nic)) in ports.into_iter().enumerate() {
            let port = format!("port{number}");
            bridge.connect(&port, namespace, nic).expect("a veth pair");
            bridge.configure(&format!("link set {port} master br0"));
        }
        for nic in ["all", "nic1", "nic2"] {
            server.set(&format!("ipv4/conf/{nic}/rp_filter"), "0");
            // Each NIC answers ARP only for its own address.
            server.set(&format!("ipv4/conf/{nic}/arp_ignore"), "1");
            server.set(&format!("ipv4/conf/{nic}/arp_announce"), "2");
        }
        server.configure(
            "address add 10.77.1.1/24 brd + dev nic1\naddress add 10.77.1.3/24 brd + dev nic2",
        );
        client.configure("address add 10.77.1.2/24 brd + dev eth0\nroute add default dev eth0");
        Self { server, _bridge: bridge, client }
    }

    /// Both NICs, each with its index and address.
    fn nics(&self) -> [(u32, Ipv4Addr); 2] {
        let index = |nic| self.server.index_of(nic);
        [(index("nic1"), [10, 77, 1, 1].into()), (index("nic2"), [10, 77, 1, 3].into())]
    }
}

fn two_nics_on_one_subnet_each_hear_their_frame_and_answer_for_themselves(backend: Backend) {
    two_nics_on_one_subnet(backend, Listen::Class);
}

fn two_nics_on_one_subnet_answer_by_a_wildcard_socket_too(backend: Backend) {
    two_nics_on_one_subnet(backend, Listen::Wildcard);
}

fn two_nics_on_one_subnet(backend: Backend, listen: Listen) {
    let network = OneSubnet::new();
    let server = network.server.echo(on_every_nic(backend).listen(listen));
    let client = network.client.client([0, 0, 0, 0]);
    for (index, address) in network.nics() {
        let class = Class::Unicast;
        Question { to: address, class, nic: index, ifindex: index, answered_from: address }
            .ask(&client, &server);
    }
    let rows = [
        (broadcast(1), Class::Subnet),
        (Ipv4Addr::BROADCAST, Class::Limited),
        (GROUPS[0], Class::Group),
    ];
    for (to, class) in rows {
        client.ask("both", to, PORT);
        let mut heard = server.take(2);
        heard.sort_by_key(|heard| heard.nic);
        for ((index, address), heard) in network.nics().into_iter().zip(&heard) {
            Question { to, class, nic: index, ifindex: index, answered_from: address }
                .assert_matches(heard, PORT);
        }
        let mut sources = [client.receive().1, client.receive().1];
        sources.sort();
        assert_eq!(sources, network.nics().map(|(_, address)| at_port(address)), "{class}");
    }
    server.stop_having_heard_all();
    client.expect_nothing();
}

/// The weak host model, as it occurs with ARP flux: nic1 receives what is for nic2's address.
fn an_address_asked_over_the_other_nic_of_its_subnet_answers(backend: Backend) {
    let network = OneSubnet::new();
    let server = network.server.echo(on_every_nic(backend));
    let client = network.client.client([0, 0, 0, 0]);
    let [(index1, _), (index2, address2)] = network.nics();
    let mac = mac_of(&network.server, "nic1");
    network.client.configure(&format!("neigh replace {address2} lladdr {mac} dev eth0"));
    let class = Class::Unicast;
    Question { to: address2, class, nic: index2, ifindex: index1, answered_from: address2 }
        .ask(&client, &server);
    server.stop_having_heard_all();
}

/// The question leaves by nic1 with an address of nic2. The answer must not leave by nic1, although
/// nic1's subnet holds the asker, because the asker is this host.
fn a_client_of_this_host_on_the_other_nic_of_the_subnet_is_answered(backend: Backend) {
    let network = OneSubnet::new();
    let server = network.server.echo(on_every_nic(backend));
    let [(index1, address1), (_, address2)] = network.nics();
    let client = network.server.client(address2);
    let (to, class) = (broadcast(1), Class::Subnet);
    Question { to, class, nic: index1, ifindex: index1, answered_from: address1 }
        .ask(&client, &server);
    server.stop_having_heard_all();
    client.expect_nothing();
}

fn mac_of(namespace: &Namespace, nic: &str) -> String {
    let mut command = std::process::Command::new("ip");
    command.args(["-n", &namespace.name, "-o", "link", "show", nic]);
    let line = crate::common::netns::run(&mut command, "").expect("a NIC");
    let mut words = line.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).expect("a veth has an Ethernet address").to_owned()
}

fn a_nic_with_several_addresses_hears_once_and_answers_from_the_right_one(backend: Backend) {
    for listen in [Listen::Class, Listen::Wildcard] {
        let star = Star::new(1);
        // One more address in the same subnet, and one in another subnet.
        star.server.configure(
            "address add 10.77.1.7/24 brd + dev nic1 label nic1:1\n\
             address add 10.78.1.1/24 brd + dev nic1",
        );
        star.client(1).configure("address add 10.78.1.2/24 brd + dev eth0");
        let server = star.server.echo(on_every_nic(backend).listen(listen));
        let index = star.index(1);
        let ask = |client: &Client, to: [u8; 4], class, answered_from: [u8; 4]| {
            let (to, answered_from) = (to.into(), answered_from.into());
            Question { to, class, nic: index, ifindex: index, answered_from }.ask(client, &server);
        };
        let client = star.client(1).client([10, 77, 1, 2]);
        ask(&client, [10, 77, 1, 1], Class::Unicast, [10, 77, 1, 1]);
        ask(&client, [10, 77, 1, 7], Class::Unicast, [10, 77, 1, 7]);
        ask(&client, [10, 78, 1, 1], Class::Unicast, [10, 78, 1, 1]);
        ask(&client, [10, 77, 1, 255], Class::Subnet, [10, 77, 1, 1]);
        // The address whose subnet holds the asker answers, whichever broadcast address was asked.
        ask(&client, [10, 78, 1, 255], Class::Subnet, [10, 77, 1, 1]);
        ask(&client, [255; 4], Class::Limited, [10, 77, 1, 1]);
        let other = star.client(1).client([10, 78, 1, 2]);
        ask(&other, [10, 78, 1, 255], Class::Subnet, [10, 78, 1, 1]);
        ask(&other, [10, 77, 1, 255], Class::Subnet, [10, 78, 1, 1]);
        ask(&other, [255; 4], Class::Limited, [10, 78, 1, 1]);
        ask(&other, GROUPS[0].octets(), Class::Group, [10, 78, 1, 1]);
        server.stop_having_heard_all();
        client.expect_nothing();
        other.expect_nothing();
    }
}

/// nic1 has a /31, nic2 a /32 with a route to its peer: neither has a subnet broadcast.
fn nics_without_a_subnet_hear_what_they_can(backend: Backend) {
    let made = |label: &str| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
    let (server_side, a, b) = (made("s"), made("a"), made("b"));
    server_side.connect("nic1", &a, "eth0").expect("a veth pair");
    server_side.connect("nic2", &b, "eth0").expect("a veth pair");
    server_side.configure(
        "address add 10.77.1.0/31 dev nic1\naddress add 10.77.2.1/32 dev nic2\n\
         route add 10.77.2.2/32 dev nic2",
    );
    a.configure("address add 10.77.1.1/31 dev eth0\nroute add default dev eth0");
    b.configure("address add 10.77.2.2/32 dev eth0\nroute add default dev eth0");
    let server = server_side.echo(on_every_nic(backend));
    let sockets = server.handle.sockets();
    let subnets =
        sockets.iter().filter(|socket| socket.hears == Hears::Class(Class::Subnet)).count();
    assert_eq!(subnets, 1, "lo alone has a subnet: {sockets:#?}");
    let ends = [(&a, "nic1", [10, 77, 1, 0]), (&b, "nic2", [10, 77, 2, 1])];
    for (namespace, nic, address) in ends {
        let client = namespace.client([0, 0, 0, 0]);
        let (index, address) = (server_side.index_of(nic), Ipv4Addr::from(address));
        let rows = [
            (address, Class::Unicast),
            (Ipv4Addr::BROADCAST, Class::Limited),
            (GROUPS[0], Class::Group),
            (GROUPS[1], Class::Group),
        ];
        for (to, class) in rows {
            Question { to, class, nic: index, ifindex: index, answered_from: address }
                .ask(&client, &server);
        }
        client.expect_nothing();
    }
    server.stop_having_heard_all();
}

fn an_engine_serves_where_lo_is_down(backend: Backend) {
    let star = Star::new(1);
    star.server.configure("link set lo down");
    let server = star.server.echo(on_every_nic(backend));
    let client = star.client(1).client([0, 0, 0, 0]);
    for to in [own(1), broadcast(1), Ipv4Addr::BROADCAST, GROUPS[0]] {
        client.ask("up", to, PORT);
        client.expect("up", SocketAddrV4::new(own(1), PORT));
    }
    server.take(4);
    server.stop_having_heard_all();
}
