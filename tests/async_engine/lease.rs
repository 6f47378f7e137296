//! Leases of batches, and the end of the engine.

use std::{
    future::Future,
    net::SocketAddrV4,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake},
    thread,
    time::{Duration, Instant},
};

use nicring::{Backend, Queued};
use tokio::time::timeout;

use crate::{
    PAUSE,
    common::{self, Client, LOCALHOST, for_each_backend, on_loopback},
    echo, next, numbers, open,
    runtimes::current_thread,
    text, within,
};

for_each_backend!(crate::common::on:
    leases_that_are_held_back_stop_reception_until_they_return,
    leases_that_are_held_back_without_an_end_let_the_engine_stop,
    a_lease_outlives_its_engine,
    a_lease_may_be_dropped_on_another_thread,
    replies_leave_when_the_lease_is_dropped,
    a_handle_answers_after_the_batch_is_gone_from_the_port_that_was_asked,
    what_a_handle_cannot_answer_is_refused_and_counted,
    replies_by_a_handle_leave_while_every_batch_is_kept,
    a_lease_that_is_kept_holds_back_no_other_reply,
    batches_are_made_while_tasks_keep_those_that_there_are,
    batches_are_counted_while_they_are_lent,
    datagrams_of_handles_are_counted_while_the_thread_is_blocked,
    a_batch_that_is_there_is_taken_without_waiting,
    replies_of_a_lease_kept_over_the_stop_are_dropped_without_harm,
    a_stop_loses_nothing_while_tasks_take_what_is_there,
    dropping_the_engine_frees_its_port,
    dropping_the_engine_frees_its_port_while_leases_are_held,
    a_waker_may_drop_the_engine_on_its_own_thread,
    engines_come_and_go_many_times,
);

fn leases_that_are_held_back_stop_reception_until_they_return(backend: Backend) {
    const COUNT: usize = 1000;
    current_thread().block_on(async {
        let builder = on_loopback(backend).batch_max(4).buffer_count(16);
        let engine = open(builder.recv_buffer_bytes(4 << 20));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        numbers(COUNT).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        let mut heard = Vec::new();
        // Twice: after it was starved and has recovered, the engine must be able to starve again.
        for _ in 0..2 {
            let mut held = Vec::new();
            while let Ok(batch) = timeout(PAUSE, engine.recv_batch()).await {
                let batch = batch.expect("a batch").expect("it runs");
                heard.extend(batch.iter().map(|datagram| text(datagram.payload())));
                held.push(batch);
            }
            assert!(heard.len() < COUNT, "all was received while leases were held");
            // Held payloads stay unchanged.
            let payloads = held.iter().flat_map(|batch| batch.iter());
            let held_texts: Vec<String> = payloads.map(|one| text(one.payload())).collect();
            assert_eq!(heard[heard.len() - held_texts.len()..], held_texts);
        }
        while heard.len() < COUNT {
            let batch = next(&engine).await;
            heard.extend(batch.iter().map(|datagram| text(datagram.payload())));
        }
        assert_eq!(heard, numbers(COUNT), "what waited in the socket came in order");
        assert_eq!(engine.handle().stats().total().kernel_drop_count().unwrap_or(0), 0);
    });
}

fn leases_that_are_held_back_without_an_end_let_the_engine_stop(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(1).buffer_count(4));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        numbers(80).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        let mut held = Vec::new();
        while let Ok(batch) = timeout(PAUSE, engine.recv_batch()).await {
            held.push(batch.expect("a batch").expect("it runs"));
        }
        if held.len() == 64 {
            assert!(engine.handle().stats().lease_wait_count > 0, "that all are kept is counted");
        }
        let start = Instant::now();
        drop(engine);
        assert!(start.elapsed() < common::PATIENCE / 2, "took {:?}", start.elapsed());
        common::assert_free(port);
        let texts: Vec<String> =
            held.iter().flat_map(|batch| batch.iter()).map(|one| text(one.payload())).collect();
        assert_eq!(texts, numbers(texts.len()));
    });
}

fn a_lease_outlives_its_engine(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        client.ask("kept", LOCALHOST, port);
        let batch = next(&engine).await;
        drop(engine);
        common::assert_free(port);
        let datagram = batch.iter().next().expect("no batch is empty");
        assert_eq!(text(datagram.payload()), "kept");
        assert_eq!(datagram.source(), client.address());
    });
}

fn a_lease_may_be_dropped_on_another_thread(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).buffer_count(4).batch_max(2));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        let (sender, leases) = mpsc::channel::<nicring::BatchLease>();
        let answerer = thread::spawn(move || {
            for batch in leases {
                for datagram in batch.iter() {
                    batch.reply(&datagram, datagram.payload());
                }
            }
        });
        for text in numbers(100) {
            client.ask(&text, LOCALHOST, port);
            sender.send(next(&engine).await).expect("the answerer lives");
            client.expect(text, SocketAddrV4::new(LOCALHOST, port));
        }
        drop(sender);
        answerer.join().expect("no panic");
    });
}

fn replies_leave_when_the_lease_is_dropped(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        client.ask("later", LOCALHOST, port);
        let batch = next(&engine).await;
        let datagram = batch.iter().next().expect("no batch is empty");
        assert!(batch.reply(&datagram, b"answer").is_queued());
        client.expect_nothing();
        // Meanwhile another batch is received, answered and returned.
        client.ask("other", LOCALHOST, port);
        assert_eq!(echo(&engine, 1).await, ["other"]);
        client.expect("other", SocketAddrV4::new(LOCALHOST, port));
        drop(batch);
        client.expect("answer", SocketAddrV4::new(LOCALHOST, port));
    });
}

fn a_handle_answers_after_the_batch_is_gone_from_the_port_that_was_asked(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).port(0));
        let (client, handle) = (Client::on_loopback(), engine.handle());
        let ports = engine.ports().to_vec();
        assert_eq!(ports.len(), 2);
        let mut kept = Vec::new();
        for port in &ports {
            client.ask(&port.to_string(), LOCALHOST, *port);
            let batch = next(&engine).await;
            let datagram = batch.iter().next().expect("no batch is empty");
            kept.push((datagram.reply_path(), datagram.source(), datagram.payload().to_vec()));
        }
        for (path, asker, question) in &kept {
            assert!(handle.reply_by(*path, *asker, question).is_queued());
            let port = text(question).parse().expect("the port");
            client.expect(text(question), SocketAddrV4::new(LOCALHOST, port));
            let queued = handle.reply_with(*path, *asker, 100, |buffer| {
                assert!(buffer.iter().all(|byte| *byte == 0) && buffer.len() == 100);
                buffer[..7].copy_from_slice(b"written");
                7
            });
            assert!(queued.is_queued());
            client.expect("written", SocketAddrV4::new(LOCALHOST, port));
        }
    });
}

fn what_a_handle_cannot_answer_is_refused_and_counted(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, handle) = (Client::on_loopback(), engine.handle());
        client.ask("x", LOCALHOST, engine.ports()[0]);
        let path = next(&engine).await.iter().next().expect("no batch is empty").reply_path();
        let everyone = SocketAddrV4::new(std::net::Ipv4Addr::BROADCAST, 9);
        assert_eq!(handle.reply_by(path, everyone, b"x"), Queued::NoHost);
        assert_eq!(handle.reply_with(path, everyone, 1, |_| 1), Queued::NoHost);
        assert_eq!(handle.reply_by(path, client.address(), &[0; 65_508]), Queued::TooLong);
        let refused = || handle.stats().no_host_count == 2;
        common::wait_until("both refusals are counted", refused);
        handle.stop();
        assert_eq!(handle.reply_by(path, client.address(), b"late"), Queued::Stopped);
        assert_eq!(handle.reply_with(path, client.address(), 1, |_| 1), Queued::Stopped);
        assert_eq!(handle.stats().stopped_count, 2, "what is refused is counted");
    });
}

fn replies_by_a_handle_leave_while_every_batch_is_kept(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(1).delay_max(Duration::ZERO));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        let handle = engine.handle();
        let mut kept = Vec::new();
        while handle.stats().lease_wait_count == 0 {
            client.ask("kept", LOCALHOST, port);
            if let Ok(batch) = timeout(PAUSE, engine.recv_batch()).await {
                kept.push(batch.expect("a batch").expect("it runs"));
            }
        }
        let datagram = kept[0].iter().next().expect("no batch is empty");
        for text in numbers(3) {
            let queued = handle.reply_by(datagram.reply_path(), datagram.source(), text.as_bytes());
            assert!(queued.is_queued());
            client.expect(&text, SocketAddrV4::new(LOCALHOST, port));
        }
        drop(engine);
    });
}

fn a_lease_that_is_kept_holds_back_no_other_reply(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        let mut kept = Vec::new();
        for text in numbers(20) {
            client.ask("kept", LOCALHOST, port);
            kept.push(next(&engine).await);
            client.ask(&text, LOCALHOST, port);
            assert_eq!(echo(&engine, 1).await, [text.as_str()]);
            client.expect(&text, SocketAddrV4::new(LOCALHOST, port));
        }
        let payloads = kept.iter().flat_map(|batch| batch.iter());
        assert!(payloads.map(|datagram| text(datagram.payload())).all(|text| text == "kept"));
    });
}

fn a_batch_that_is_there_is_taken_without_waiting(backend: Backend) {
    let engine = open(on_loopback(backend));
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    assert!(engine.try_recv_batch().expect("it runs").is_none());
    for round in 0..100 {
        client.ask("there", LOCALHOST, port);
        let mut taken = None;
        common::wait_until("it is there", || {
            taken = engine.try_recv_batch().expect("it runs");
            taken.is_some()
        });
        let batch = taken.expect("it is there");
        for datagram in batch.iter() {
            assert!(batch.reply(&datagram, b"taken").is_queued(), "round {round}");
        }
        drop(batch);
        client.expect("taken", SocketAddrV4::new(LOCALHOST, port));
    }
    engine.handle().stop();
    common::wait_until("it has ended", || engine.try_recv_batch().is_err());
}

/// A task that takes what is ready, and keeps it, must not wait for a batch to come back.
fn batches_are_made_while_tasks_keep_those_that_there_are(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(1).delay_max(Duration::ZERO));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        numbers(60).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        let mut kept = Vec::new();
        while kept.len() < 60 {
            kept.push(next(&engine).await);
        }
        let heard: Vec<_> =
            kept.iter().flat_map(|batch| batch.iter()).map(|one| text(one.payload())).collect();
        assert_eq!(heard, numbers(60));
    });
}

fn batches_are_counted_while_they_are_lent(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, handle) = (Client::on_loopback(), engine.handle());
        let lent = || {
            let stats = handle.stats();
            (stats.lent_count, stats.lent_peak_count)
        };
        assert_eq!(lent(), (0, 0));
        let mut kept = Vec::new();
        for count in 1..=3 {
            client.ask("kept", LOCALHOST, engine.ports()[0]);
            kept.push(next(&engine).await);
            assert_eq!(lent(), (count, count));
        }
        drop(kept.pop());
        assert_eq!(lent(), (2, 3), "the peak stays");
        client.ask("tried", LOCALHOST, engine.ports()[0]);
        common::wait_until("it is there", || {
            kept.extend(engine.try_recv_batch().expect("it runs"));
            kept.len() == 3
        });
        assert_eq!(lent(), (3, 3));
        drop(engine);
        assert_eq!(lent(), (3, 3), "a lease that outlives its engine is lent still");
        thread::scope(|scope| scope.spawn(|| kept.clear()).join()).expect("no panic");
        assert_eq!(lent(), (0, 3));
    });
}

/// A waker runs on the engine's thread: while it blocks, there is no turn.
fn datagrams_of_handles_are_counted_while_the_thread_is_blocked(backend: Backend) {
    struct Blocks {
        is_called: mpsc::SyncSender<()>,
        may_return: Mutex<mpsc::Receiver<()>>,
    }
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            let _ = self.is_called.send(());
            let _ = self.may_return.lock().expect("no panic").recv();
        }
    }
    let engine = open(on_loopback(backend));
    let (client, handle) = (Client::on_loopback(), engine.handle());
    let posted = || {
        let stats = handle.stats();
        (stats.posted_count, stats.posted_peak_count)
    };
    let (is_called, called) = mpsc::sync_channel(1);
    let (release, may_return) = mpsc::channel();
    let waker = Arc::new(Blocks { is_called, may_return: Mutex::new(may_return) }).into();
    let mut receiving = Box::pin(engine.recv_batch());
    assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    client.ask("wake", LOCALHOST, engine.ports()[0]);
    called.recv_timeout(common::PATIENCE).expect("the waker is called");
    assert_eq!(posted(), (0, 0));
    for count in 1..=3 {
        let sent = handle.send(Default::default(), client.address(), b"posted");
        assert!(sent.is_queued());
        assert_eq!(posted(), (count, count));
    }
    drop(release);
    let address = SocketAddrV4::new(LOCALHOST, engine.ports()[0]);
    (0..3).for_each(|_| client.expect("posted", address));
    assert_eq!(posted(), (0, 3), "the peak stays");
}

fn replies_of_a_lease_kept_over_the_stop_are_dropped_without_harm(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        client.ask("too late", LOCALHOST, port);
        let batch = next(&engine).await;
        drop(engine);
        let datagram = batch.iter().next().expect("no batch is empty");
        let _ = batch.reply(&datagram, b"never");
        drop(batch);
        client.expect_nothing();
        common::assert_free(port);
    });
}

fn a_stop_loses_nothing_while_tasks_take_what_is_there(backend: Backend) {
    const COUNT: usize = 20;
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(1).delay_max(Duration::ZERO));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        numbers(COUNT).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        // By now the engine has filled all batches, and no task has taken one.
        thread::sleep(PAUSE);
        engine.handle().stop();
        let mut heard = Vec::new();
        while let Ok(Some(batch)) = engine.recv_batch().await {
            for datagram in batch.iter() {
                heard.push(text(datagram.payload()));
                assert!(batch.reply(&datagram, datagram.payload()).is_queued());
            }
        }
        assert_eq!(heard, numbers(COUNT));
        for text in numbers(COUNT) {
            client.expect(&text, SocketAddrV4::new(LOCALHOST, port));
        }
        let send =
            engine.handle().send(Default::default(), SocketAddrV4::new(LOCALHOST, port), b"late");
        assert_eq!(send, Queued::Stopped);
    });
}

fn dropping_the_engine_frees_its_port(backend: Backend) {
    let engine = open(on_loopback(backend));
    let port = engine.ports()[0];
    // Once right away, and once after its thread has begun to wait.
    drop(engine);
    common::assert_free(port);
    let engine = open(on_loopback(backend));
    let port = engine.ports()[0];
    thread::sleep(PAUSE);
    drop(engine);
    common::assert_free(port);
}

fn dropping_the_engine_frees_its_port_while_leases_are_held(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(1));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        numbers(3).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        let held = [next(&engine).await, next(&engine).await];
        drop(engine);
        common::assert_free(port);
        drop(held);
    });
}

/// The waker holds the future, which holds the last reference to the engine, and drops it when it
/// is called. That happens on the engine's own thread: a drop that waited for that thread would
/// wait for ever.
fn a_waker_may_drop_the_engine_on_its_own_thread(backend: Backend) {
    type Receiving = Pin<Box<dyn Future<Output = nicring::Result<usize>> + Send>>;
    struct Owner {
        receiving: Mutex<Option<Receiving>>,
        dropped: Mutex<mpsc::Sender<Option<String>>>,
    }
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.receiving.lock().expect("no panic").take());
            let name = thread::current().name().map(str::to_owned);
            let _ = self.dropped.lock().expect("no panic").send(name);
        }
    }
    let engine = open(on_loopback(backend));
    let port = engine.ports()[0];
    let (sender, dropped) = mpsc::channel();
    let owner = Arc::new(Owner { receiving: Mutex::default(), dropped: Mutex::new(sender) });
    let waker = Arc::clone(&owner).into();
    let mut receiving: Receiving =
        Box::pin(
            async move { engine.recv_batch().await.map(|batch| batch.expect("it runs").len()) },
        );
    assert!(matches!(receiving.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending));
    *owner.receiving.lock().expect("no panic") = Some(receiving);
    Client::on_loopback().ask("wake", LOCALHOST, port);
    let name = dropped.recv_timeout(common::PATIENCE).expect("the waker comes to an end");
    assert_eq!(name.as_deref(), Some("nicring"), "woken on the engine's thread");
    common::wait_until("the engine has ended by itself", || common::is_free(port));
}

fn engines_come_and_go_many_times(backend: Backend) {
    let port = common::unused_port();
    current_thread().block_on(async {
        for _ in 0..20 {
            let builder = common::on_loopback_without_port(backend).port(port);
            let engine = open(builder.exclusive());
            let client = Client::on_loopback();
            client.ask("again", LOCALHOST, port);
            assert_eq!(within(echo(&engine, 1)).await, ["again"]);
        }
    });
}
