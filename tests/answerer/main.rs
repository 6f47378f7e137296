//! `Answerer`: a name server over real sockets, of both protocols in one engine.

#[path = "../common/mod.rs"]
mod common;
// Elsewhere a group need not be heard on loopback: under Wine it is not.
#[cfg(target_os = "linux")]
mod passed_on;

use std::{
    net::SocketAddrV4,
    ops::ControlFlow,
    sync::{Arc, Mutex},
    thread,
};

use nicring::{
    Backend, Builder,
    search::{
        Answerer, NameTable, Protocol, Reject, Request, RequestHead, SearchCounts, answered_ids,
        pva,
    },
};

use common::{
    Client, LOCALHOST, Server, for_each_backend, on_loopback_without_port, open, wait_until,
};

fn main() -> std::process::ExitCode {
    common::main()
}

for_each_backend!(crate::common::on:
    both_protocols_are_answered_and_counted_by_nic,
    what_comes_to_another_port_is_left_alone,
    what_one_client_asked_in_a_batch_is_answered_together,
    ignored_sources_are_counted_and_not_answered,
    of_a_datagram_longer_than_a_buffer_the_whole_names_are_answered,
    answers_go_to_another_host_only_if_it_is_in_a_reply_subnet,
    async_tasks_answer_leases,
);

const BOTH: [Protocol; 2] = Protocol::ALL;

/// The names `pv0` to `pv9`, with one server each protocol.
fn names() -> NameTable {
    let mut names = NameTable::builder();
    for (protocol, server) in BOTH.into_iter().zip(["192.0.2.7:5064", "192.0.2.7:5075"]) {
        let server = server.parse().expect("an address");
        (0..10).for_each(|id| names.insert(protocol, &format!("pv{id}"), server).expect("a name"));
    }
    names.build()
}

/// A name server on loopback that a test can look into.
struct NameServer {
    server: Server,
    /// Of CA, of PVA, and of neither.
    ports: [u16; 3],
    answerer: Arc<Mutex<Answerer>>,
}

impl NameServer {
    fn start(builder: Builder, answerer: Answerer) -> Self {
        let engine = open(builder.ports([0, 0, 0]));
        let ports = *engine.ports().first_chunk().expect("three ports");
        let [ca, pva, _] = ports;
        let answerer = answerer.port(ca, Protocol::Ca).port(pva, Protocol::Pva);
        let (names, answerer) = (names(), Arc::new(Mutex::new(answerer)));
        let answering = Arc::clone(&answerer);
        let server = Server::over(engine, move |batch| {
            answering.lock().expect("no panic").answer(&names, batch);
            ControlFlow::Continue(())
        });
        Self { server, ports, answerer }
    }

    fn port(&self, protocol: Protocol) -> u16 {
        self.ports[protocol as usize]
    }

    fn counts(&self, protocol: Protocol) -> SearchCounts {
        *self.answerer.lock().expect("no panic").counts(protocol)
    }

    /// Waits until it has read so many datagrams of this protocol.
    #[track_caller]
    fn wait_for(&self, protocol: Protocol, datagram_count: u64) {
        let is_read = || self.counts(protocol).datagram_count == datagram_count;
        wait_until("datagrams are read", is_read);
    }
}

/// A datagram that asks for `pv0` and so on, with these numbers as ids.
fn request(client: &Client, protocol: Protocol, ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut request = Request::new(protocol);
    let reply_port = client.address().port();
    request.begin(RequestHead { sequence: 7, is_unicast: true, reply_port });
    for id in ids {
        assert!(request.push(id, format!("pv{id}").as_bytes()));
    }
    request.datagram().to_vec()
}

/// The ids that the next answer names.
#[track_caller]
fn answered(client: &Client, protocol: Protocol) -> Vec<u32> {
    let (reply, _) = client.receive();
    let mut ids = Vec::new();
    answered_ids(protocol, &reply, |id| ids.push(id)).expect("an answer");
    ids
}

fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(LOCALHOST, port)
}

fn both_protocols_are_answered_and_counted_by_nic(backend: Backend) {
    let server = NameServer::start(on_loopback_without_port(backend), Answerer::new());
    let client = Client::on_loopback();
    for protocol in BOTH {
        let to = at(server.port(protocol));
        client.send(request(&client, protocol, [3, 99, 4]), to);
        let (reply, from) = client.receive();
        let mut ids = Vec::new();
        answered_ids(protocol, &reply, |id| ids.push(id)).expect("an answer");
        assert_eq!((ids, from), (vec![3, 4], to), "{protocol}");
        server.wait_for(protocol, 1);
        let counts = server.counts(protocol);
        assert_eq!((counts.name_count, counts.hit_count, counts.miss_count), (3, 2, 1));
    }
    let lo = server.server.next().nic;
    let answerer = server.answerer.lock().expect("no panic");
    let on_nics = answerer.nic_counts().iter();
    let on_nics = on_nics
        .map(|one| (one.nic, one.protocol, one.datagram_count, one.name_count, one.hit_count));
    assert!(lo.is_some() && on_nics.eq(BOTH.map(|protocol| (lo, protocol, 1, 3, 2))));
}

fn what_comes_to_another_port_is_left_alone(backend: Backend) {
    let server = NameServer::start(on_loopback_without_port(backend), Answerer::new());
    let (client, [.., neither]) = (Client::on_loopback(), server.ports);
    for protocol in BOTH {
        client.send(request(&client, protocol, [1]), at(neither));
    }
    server.server.take(2);
    client.expect_nothing();
    for protocol in BOTH {
        assert_eq!(server.counts(protocol), SearchCounts::default());
    }
}

fn what_one_client_asked_in_a_batch_is_answered_together(backend: Backend) {
    let engine = open(on_loopback_without_port(backend).port(0));
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    for id in 0..5 {
        client.send(request(&client, Protocol::Ca, [id]), at(port)); // before the engine runs
    }
    let (names, mut answerer) = (names(), Answerer::new().port(port, Protocol::Ca));
    let server = Server::over(engine, move |batch| {
        answerer.answer(&names, batch);
        ControlFlow::Continue(())
    });
    assert_eq!(answered(&client, Protocol::Ca), [0, 1, 2, 3, 4]);
    assert_eq!(server.stop().0.total().sent_count, 1);
}

fn ignored_sources_are_counted_and_not_answered(backend: Backend) {
    let [ignored, other] = [(); 2].map(|()| Client::on_loopback());
    let answerer = Answerer::new()
        .ignore(Protocol::Ca, ignored.address())
        .ignore(Protocol::Pva, SocketAddrV4::new(LOCALHOST, 0));
    let server = NameServer::start(on_loopback_without_port(backend), answerer);
    for protocol in BOTH {
        for client in [&ignored, &other] {
            client.send(request(client, protocol, [1]), at(server.port(protocol)));
        }
    }
    assert_eq!(answered(&other, Protocol::Ca), [1]);
    let ignored_counts = || BOTH.map(|protocol| server.counts(protocol).ignored_count);
    wait_until("all are counted", || ignored_counts() == [1, 2]);
    [ignored, other].iter().for_each(Client::expect_nothing);
    assert_eq!(BOTH.map(|protocol| server.counts(protocol).datagram_count), [1, 0]);
    let answerer = server.answerer.lock().expect("no panic");
    assert_eq!(answerer.nic_counts().iter().map(|one| one.datagram_count).sum::<u64>(), 1);
}

fn of_a_datagram_longer_than_a_buffer_the_whole_names_are_answered(backend: Backend) {
    let builder = on_loopback_without_port(backend).buffer_bytes(72);
    let server = NameServer::start(builder, Answerer::new());
    let client = Client::on_loopback();
    for protocol in BOTH {
        client.send(request(&client, protocol, 0..9), at(server.port(protocol)));
        let ids = answered(&client, protocol);
        assert!(!ids.is_empty() && (0..8).take(ids.len()).eq(ids.iter().copied()), "{ids:?}");
        server.wait_for(protocol, 1);
        let counts = server.counts(protocol);
        assert!(Reject::ALL.iter().all(|reject| counts.rejected(*reject) == 0), "{counts:?}");
    }
}

fn answers_go_to_another_host_only_if_it_is_in_a_reply_subnet(backend: Backend) {
    let mut request = pva::RequestWriter::new();
    request.begin(pva::SearchHead {
        byte_order: pva::ByteOrder::Big,
        sequence: 7,
        flags: 0,
        reply_to: "127.9.9.9:40000".parse().expect("an address"),
    });
    assert!(request.push(1, b"pv1"));
    for (answerer, refused_count) in [
        (Answerer::new(), 1),
        (Answerer::new().reply_subnets(["127.9.9.0/24".parse().expect("a subnet")]), 0),
    ] {
        let server = NameServer::start(on_loopback_without_port(backend), answerer);
        Client::on_loopback().send(request.datagram(), at(server.port(Protocol::Pva)));
        server.wait_for(Protocol::Pva, 1);
        let counts = server.counts(Protocol::Pva);
        let refused = counts.rejected(Reject::RefusedReplyAddress);
        assert_eq!((refused, counts.reply_count), (refused_count, 1 - refused_count));
    }
}

fn async_tasks_answer_leases(backend: Backend) {
    let builder = on_loopback_without_port(backend).ports([0, 0]);
    let engine = builder.open_async().expect("an engine");
    let (handle, ports) = (engine.handle(), [engine.ports()[0], engine.ports()[1]]);
    let asker = thread::spawn(move || {
        let client = Client::on_loopback();
        for (protocol, port) in BOTH.into_iter().zip(ports) {
            for id in 0..10 {
                client.send(request(&client, protocol, [id]), at(port));
                assert_eq!(answered(&client, protocol), [id]);
            }
        }
    });
    let stopper = thread::spawn(move || {
        let asked = asker.join();
        handle.stop();
        asked
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let names = names();
    let mut answerer = Answerer::new();
    for (protocol, port) in BOTH.into_iter().zip(ports) {
        answerer = answerer.port(port, protocol);
    }
    runtime.block_on(async {
        while let Ok(Some(batch)) = engine.recv_batch().await {
            answerer.answer(&names, &batch);
        }
    });
    stopper.join().expect("the stopper").expect("every answer came");
    assert_eq!(BOTH.map(|protocol| answerer.counts(protocol).hit_count), [10, 10]);
}
