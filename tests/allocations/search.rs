//! A responder that packs its answers allocates nothing, not even in its first batch. A name server
//! over an engine allocates nothing once it is warm.

use std::{net::SocketAddrV4, ops::ControlFlow, panic::AssertUnwindSafe, thread};

use nicring::{
    Backend,
    search::{Answerer, CaResponder, NameTable, Protocol, PvaResponder, Request, RequestHead, ca},
};

use crate::{
    allocations::allocation_count,
    cases::quiet,
    common::{Client, LOCALHOST, cases, for_each_backend, on_loopback_without_port, open},
};

cases!(packed_answers_allocate_nothing, pva_answers_to_a_batch_allocate_nothing,);

fn packed_answers_allocate_nothing() {
    let mut names = NameTable::builder();
    for number in 0..4 {
        let server = format!("192.0.2.{number}:5064").parse().expect("an address");
        names.insert(Protocol::Ca, &format!("pv{number}"), server).expect("a name");
    }
    let names = names.build();
    let mut request = ca::RequestWriter::new();
    request.begin(Some(7));
    for id in 0..30 {
        assert!(request.push(id, format!("pv{}", id % 4).as_bytes()));
    }
    let mut responder = CaResponder::new();

    let _guard = quiet();
    let (before, mut reply_count) = (allocation_count(), 0);
    for _ in 0..100 {
        let mut answers = responder.pack(&names, |_| reply_count += 1);
        for port in 1..=256 {
            let asker = SocketAddrV4::new([192, 0, 2, 99].into(), port % 16 + 1);
            answers.add(request.datagram(), asker, port % 2);
        }
    }
    let count = allocation_count() - before;
    assert_eq!(count, 0, "allocations for {reply_count} replies");
    assert!(reply_count > 0);
}

fn pva_answers_to_a_batch_allocate_nothing() {
    let mut names = NameTable::builder();
    names.insert(Protocol::Pva, "pv", "192.0.2.7:5075".parse().expect("an address")).expect("new");
    let names = names.build();
    let mut request = Request::new(Protocol::Pva);
    request.begin(RequestHead { sequence: 7, is_unicast: false, reply_port: 40_000 });
    (0..30).for_each(|id| assert!(request.push(id, b"pv")));
    let asker: SocketAddrV4 = "192.0.2.99:40000".parse().expect("an address");
    let mut responder = PvaResponder::new(Vec::new());

    let _guard = quiet();
    let (before, mut reply_count) = (allocation_count(), 0);
    for _ in 0..100 {
        let mut answers = responder.pack(&names, |_| reply_count += 1);
        (0..256).for_each(|way| answers.add(request.datagram(), asker.into(), way));
    }
    let count = allocation_count() - before;
    assert_eq!((count, reply_count), (0, 25_600));
}

for_each_backend!(crate::cases::alone:
    an_answerer_allocates_nothing,
);

/// Both protocols at once, with the names of two servers, one unknown name and an ignored source.
fn an_answerer_allocates_nothing(backend: Backend) {
    let mut names = NameTable::builder();
    for protocol in Protocol::ALL {
        for number in 0..2 {
            let server = format!("192.0.2.{number}:5064").parse().expect("an address");
            names.insert(protocol, &format!("pv{number}"), server).expect("a name");
        }
    }
    let names = names.build();
    let engine = open(on_loopback_without_port(backend).ports([0, 0]));
    let ports = [engine.ports()[0], engine.ports()[1]];
    let ignored = Client::on_loopback();
    let mut answerer = Answerer::new();
    for (protocol, port) in Protocol::ALL.into_iter().zip(ports) {
        answerer = answerer.port(port, protocol).ignore(protocol, ignored.address());
    }
    let handle = engine.handle();
    let asker = thread::spawn(move || {
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| ask_for_names(ports, &ignored)));
        handle.stop();
        asked
    });
    let ran = engine.run(|batch| {
        answerer.answer(&names, batch);
        ControlFlow::Continue(())
    });
    ran.expect("a good end");
    asker.join().expect("the asker").expect("nothing was allocated");
    for protocol in Protocol::ALL {
        let counts = answerer.counts(protocol);
        assert!(counts.hit_count == 2 * counts.miss_count && counts.ignored_count > 0);
    }
}

/// Asks and waits for the answers: first to warm everything up, then again, when nothing may be
/// allocated.
fn ask_for_names(ports: [u16; 2], ignored: &Client) {
    let client = Client::on_loopback();
    let questions = Protocol::ALL.map(|protocol| {
        let mut request = Request::new(protocol);
        let reply_port = client.address().port();
        request.begin(RequestHead { sequence: 7, is_unicast: true, reply_port });
        for (id, name) in (0..).zip([&b"pv0"[..], b"pv1", b"none"]) {
            assert!(request.push(id, name));
        }
        (request, SocketAddrV4::new(LOCALHOST, ports[protocol as usize]))
    });
    let ask = |count: usize| {
        for _ in 0..count {
            for (request, to) in &questions {
                for client in [ignored, &client] {
                    client.0.send_to(request.datagram(), to).expect("loopback");
                }
                for _server in 0..2 {
                    client.0.recv_from(&mut [0; 128]).expect("an answer");
                }
            }
        }
    };
    ask(1_000);
    let before = allocation_count();
    ask(4_000);
    assert_eq!(allocation_count() - before, 0, "allocations for 32,000 SEARCHes and answers");
}
