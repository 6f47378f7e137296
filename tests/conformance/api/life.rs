//! How an engine starts, idles and ends.

use std::{
    net::UdpSocket,
    ops::ControlFlow,
    panic::resume_unwind,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nicring::Backend;

use crate::common::{self, Client, LOCALHOST, PATIENCE, Server, for_each_backend, on_loopback};

for_each_backend!(crate::common::on:
    a_tick_comes_with_an_empty_batch_when_nothing_else_does,
    a_tick_comes_under_load_too,
    without_a_tick_an_idle_engine_calls_nobody,
    stop_from_another_thread_ends_run_at_once,
    stop_before_run_still_hands_out_what_was_received,
    stop_from_within_the_handler_ends_run,
    an_error_of_the_handler_ends_the_engine_and_is_returned,
    the_port_is_free_when_run_returns,
    the_port_is_free_after_a_drop_without_run,
    the_port_is_free_after_a_panic_in_the_handler,
    an_engine_opened_on_one_thread_runs_on_another,
    engines_come_and_go_many_times,
    a_rescan_without_a_change_loses_nothing,
    nics_that_are_listed_every_ten_milliseconds_cost_nothing_that_is_heard,
);

fn a_tick_comes_with_an_empty_batch_when_nothing_else_does(backend: Backend) {
    let start = Instant::now();
    let (sender, ticks) = mpsc::channel();
    let builder = on_loopback(backend).tick(Duration::from_millis(20));
    let _server = Server::start(builder, move |batch| {
        sender.send(batch.len()).expect("the test waits");
        ControlFlow::Continue(())
    });
    for _ in 0..5 {
        assert_eq!(ticks.recv_timeout(PATIENCE), Ok(0));
    }
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(60), "five ticks of 20 ms within {elapsed:?}");
    assert!(elapsed < Duration::from_secs(2), "five ticks of 20 ms took {elapsed:?}");
}

fn a_tick_comes_under_load_too(backend: Backend) {
    let every = Duration::from_millis(20);
    let (sender, pauses) = mpsc::channel();
    let mut last = Instant::now();
    let server = Server::start(on_loopback(backend).tick(every), move |_| {
        let _ = sender.send(last.elapsed());
        last = Instant::now();
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    for _ in 0..30 {
        client.send("x", server.address());
        thread::sleep(Duration::from_millis(7));
    }
    server.take(30);
    let longest = pauses.try_iter().max().expect("it was called");
    assert!(longest < Duration::from_secs(1), "the handler waited for {longest:?}");
    server.stop_having_heard_all();
}

fn without_a_tick_an_idle_engine_calls_nobody(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        assert!(!batch.is_empty(), "there is nothing to handle");
        ControlFlow::Continue(())
    });
    thread::sleep(Duration::from_millis(100));
    // A request by a handle must not call the handler either.
    server.handle.rescan();
    let turns = server.stop_having_heard_all().turn_count;
    assert!(turns < 20, "an idle engine made {turns} turns");
}

fn stop_from_another_thread_ends_run_at_once(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    thread::sleep(Duration::from_millis(20)); // it waits now
    let start = Instant::now();
    server.handle.stop();
    server.handle.stop();
    server.join().expect("no panic").expect("a good end");
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
}

fn stop_before_run_still_hands_out_what_was_received(backend: Backend) {
    let engine = common::open(on_loopback(backend).batch_max(2));
    let port = engine.ports()[0];
    let client = Client::on_loopback();
    let texts = ["one", "two", "three", "four", "five"];
    texts.iter().for_each(|text| client.ask(text, LOCALHOST, port));
    engine.handle().stop();
    let mut heard = Vec::new();
    let stats = engine.run(|batch| {
        for datagram in batch {
            heard.push(String::from_utf8_lossy(datagram.payload()).into_owned());
            batch.reply(&datagram, datagram.payload());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(heard, texts);
    assert_eq!(stats.expect("a good end").total().sent_count, 5);
    for text in texts {
        client.expect(text, std::net::SocketAddrV4::new(LOCALHOST, port));
    }
    common::assert_free(port);
}

fn stop_from_within_the_handler_ends_run(backend: Backend) {
    let engine = common::open(on_loopback(backend));
    let (port, handle) = (engine.ports()[0], engine.handle());
    Client::on_loopback().ask("stop", LOCALHOST, port);
    let mut calls = 0;
    let stats = engine.run(|_| {
        calls += 1;
        handle.stop();
        ControlFlow::Continue(())
    });
    assert_eq!(stats.expect("a good end").total().received_count(), 1);
    assert_eq!(calls, 1);
}

fn an_error_of_the_handler_ends_the_engine_and_is_returned(backend: Backend) {
    let engine = common::open(on_loopback(backend));
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    client.ask("first", LOCALHOST, port);
    client.ask("second", LOCALHOST, port);
    let failed = engine.try_run(|batch| -> Result<ControlFlow<()>, Box<dyn std::error::Error>> {
        for datagram in batch {
            batch.reply(&datagram, datagram.payload());
            if datagram.payload() == b"second" {
                return Err("the disk is full".into());
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(failed.expect_err("the handler failed").to_string(), "the disk is full");
    // What was answered before it leaves all the same, as after a break.
    for text in ["first", "second"] {
        client.expect(text, std::net::SocketAddrV4::new(LOCALHOST, port));
    }
    common::assert_free(port);
}

fn the_port_is_free_when_run_returns(backend: Backend) {
    let port = common::unused_port();
    for shares in [false, true] {
        let builder = common::on_loopback_without_port(backend).port(port);
        let builder = if shares { builder } else { builder.exclusive() };
        let engine = common::open(builder);
        assert!(UdpSocket::bind((LOCALHOST, port)).is_err(), "the engine holds it");
        let handle = engine.handle();
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            handle.stop();
        });
        engine.run(|_| ControlFlow::Continue(())).expect("a good end");
        common::assert_free(port);
        stopper.join().expect("the stopper");
    }
}

fn the_port_is_free_after_a_drop_without_run(backend: Backend) {
    let engine = common::open(on_loopback(backend));
    let (port, handle) = (engine.ports()[0], engine.handle());
    Client::on_loopback().ask("nobody listens", LOCALHOST, port);
    drop(engine);
    common::assert_free(port);
    assert!(handle.sockets().is_empty(), "a handle that is left holds nothing");
}

fn the_port_is_free_after_a_panic_in_the_handler(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        for datagram in batch {
            batch.reply_with(&datagram, 100, |_| resume_unwind(Box::new("a bug in a handler")));
        }
        ControlFlow::Continue(())
    });
    let port = server.port;
    Client::on_loopback().send("panic", server.address());
    assert!(server.join().is_err(), "the panic reaches the caller of run");
    common::assert_free(port);
}

fn an_engine_opened_on_one_thread_runs_on_another(backend: Backend) {
    let opener = thread::spawn(move || common::open(on_loopback(backend)));
    // The thread that opened it has ended by now.
    let server = Server::over(opener.join().expect("it opens"), |batch| {
        for datagram in batch {
            batch.reply(&datagram, datagram.payload());
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    client.send("still there", server.address());
    client.expect("still there", server.address());
}

fn a_rescan_without_a_change_loses_nothing(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let (client, sockets) = (Client::on_loopback(), server.handle.sockets());
    for number in 0..100 {
        server.handle.rescan();
        client.send(number.to_string(), server.address());
        client.expect(number.to_string(), server.address());
    }
    assert_eq!((server.handle.sockets(), server.handle.failed_nics().len()), (sockets, 0));
    server.take(100);
    server.stop_having_heard_all();
}

fn nics_that_are_listed_every_ten_milliseconds_cost_nothing_that_is_heard(backend: Backend) {
    let server = Server::echo(on_loopback(backend).list_nics_every(Duration::from_millis(10)));
    let sockets = server.handle.sockets();
    let client = Client::on_loopback();
    for number in 0..50 {
        client.send(number.to_string(), server.address());
        client.expect(number.to_string(), server.address());
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!((server.handle.sockets(), server.handle.failed_nics().len()), (sockets, 0));
    server.take(50);
    server.stop_having_heard_all();
}

fn engines_come_and_go_many_times(backend: Backend) {
    let port = common::unused_port();
    for round in 0..20 {
        let builder = common::on_loopback_without_port(backend).port(port).exclusive();
        let server = Server::echo(builder);
        let client = Client::on_loopback();
        client.send("again", server.address());
        client.expect("again", server.address());
        server.handle.stop();
        server.join().expect("no panic").unwrap_or_else(|error| panic!("{round}: {error}"));
    }
}
