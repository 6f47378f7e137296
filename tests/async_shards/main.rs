//! Shards with async handlers, in a runtime of tokio-uring or of tokio.

#[path = "../common/mod.rs"]
mod common;

use std::{
    net::SocketAddrV4,
    rc::Rc,
    sync::{Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nicring::{Backend, BatchLease, Handle, HandlerRuntime, Shards, Stats};
use tokio::sync::Notify;

use common::{Client, LOCALHOST, assert_free, for_each_backend, on_loopback, wait_until};

fn main() -> std::process::ExitCode {
    common::main()
}

for_each_backend!(crate::common::on:
    every_question_is_answered_by_a_handler_that_answers_at_once,
    a_handler_that_waits_holds_nobody_up,
    handlers_read_files_by_their_runtime,
    a_batch_that_a_task_keeps_comes_back_before_the_end,
    a_task_that_never_ends_does_not_keep_the_shards_from_ending,
    a_panic_in_a_task_that_has_waited_ends_all_shards_and_reaches_the_caller,
    what_handles_ask_for_while_tasks_keep_all_batches_stops_nobody,
    handlers_are_made_within_their_runtime,
    no_reply_stays_behind_when_its_batch_comes_back_as_the_shard_falls_asleep,
    what_came_before_the_shards_run_keeps_nothing_from_being_heard,
);

type Ran = JoinHandle<nicring::Result<Stats>>;

/// Two shards, or one where there are no filters.
fn open(backend: Backend) -> (Shards, Handle, SocketAddrV4) {
    let shards = on_loopback(backend).shards(2).open_shards().expect("shards");
    let (handle, port) = (shards.handle(), shards.ports()[0]);
    (shards, handle, SocketAddrV4::new(LOCALHOST, port))
}

#[track_caller]
fn ended(handle: &Handle, ran: Ran) -> Stats {
    handle.stop();
    ran.join().expect("no panic").expect("a good end")
}

fn every_question_is_answered_by_a_handler_that_answers_at_once(backend: Backend) {
    let (shards, handle, to) = open(backend);
    let (sender, runtimes) = mpsc::channel();
    let run = move || {
        shards.run_async(|_, runtime| {
            sender.send(runtime).expect("the test waits");
            |batch: BatchLease| async move {
                batch.iter().for_each(|datagram| _ = batch.reply(&datagram, datagram.payload()));
            }
        })
    };
    let ran = thread::spawn(run);
    let expected = match backend {
        Backend::IoUring => HandlerRuntime::TokioUring,
        _ => HandlerRuntime::Tokio,
    };
    assert_eq!(runtimes.recv().expect("a shard"), expected);
    // Rare questions, for which the engine sleeps, and many at once.
    for number in 0..300 {
        let client = Client::on_loopback();
        client.send(number.to_string(), to);
        client.expect(number.to_string(), to);
    }
    let clients: Vec<_> = (0..20).map(|_| Client::on_loopback()).collect();
    for round in 0..50 {
        clients.iter().for_each(|client| client.send(round.to_string(), to));
        clients.iter().for_each(|client| client.expect(round.to_string(), to));
    }
    let total = ended(&handle, ran).total();
    assert_eq!((total.received_count(), total.sent_count), (1300, 1300));
    assert_free(to.port());
}

/// "wait" is answered when "go" comes; everything else at once.
fn a_handler_that_waits_holds_nobody_up(backend: Backend) {
    let (shards, handle, to) = open(backend);
    let answerer = handle.clone();
    let gate: &'static Notify = Box::leak(Box::new(Notify::new()));
    let run = move || {
        shards.run_async(|_, _| {
            let handle = answerer.clone();
            move |batch: BatchLease| {
                let handle = handle.clone();
                async move {
                    let mut later = Vec::new();
                    for datagram in batch.iter() {
                        match datagram.payload() {
                            b"wait" => later.push((datagram.reply_path(), datagram.source())),
                            b"go" => gate.notify_waiters(),
                            payload => _ = batch.reply(&datagram, payload),
                        }
                    }
                    drop(batch);
                    if !later.is_empty() {
                        gate.notified().await;
                    }
                    for (path, asker) in later {
                        assert!(handle.reply_by(path, asker, b"at last").is_queued());
                    }
                }
            }
        })
    };
    let ran = thread::spawn(run);
    let waiting: Vec<_> = (0..100).map(|_| Client::on_loopback()).collect();
    waiting.iter().for_each(|client| client.send("wait", to));
    wait_until("all wait", || handle.stats().total().received_count() == 100);
    for number in 0..100 {
        let client = Client::on_loopback();
        client.send(number.to_string(), to);
        client.expect(number.to_string(), to);
    }
    waiting[0].send("go", to);
    waiting.iter().for_each(|client| client.expect("at last", to));
    ended(&handle, ran);
}

fn handlers_read_files_by_their_runtime(backend: Backend) {
    let path = std::env::temp_dir().join(format!("nicring-{}-{backend}", std::process::id()));
    std::fs::write(&path, "what the file says").expect("a file");
    let (shards, handle, to) = open(backend);
    let answerer = handle.clone();
    let file = path.clone();
    let run = move || {
        shards.run_async(|_, runtime| {
            let (handle, file) = (answerer.clone(), Rc::new(file.clone()));
            move |batch: BatchLease| {
                let (handle, file) = (handle.clone(), Rc::clone(&file));
                async move {
                    let asked: Vec<_> =
                        batch.iter().map(|one| (one.reply_path(), one.source())).collect();
                    drop(batch);
                    let text = read(runtime, &file).await;
                    for (path, asker) in asked {
                        assert!(handle.reply_by(path, asker, &text).is_queued());
                    }
                }
            }
        })
    };
    let ran = thread::spawn(run);
    for _ in 0..20 {
        let client = Client::on_loopback();
        client.send("read", to);
        client.expect("what the file says", to);
    }
    ended(&handle, ran);
    let _ = std::fs::remove_file(path);
}

#[cfg(target_os = "linux")]
async fn read(runtime: HandlerRuntime, path: &std::path::Path) -> Vec<u8> {
    if runtime != HandlerRuntime::TokioUring {
        return std::fs::read(path).expect("the file");
    }
    let file = tokio_uring::fs::File::open(path).await.expect("the file");
    let (read, mut bytes) = file.read_at(vec![0; 64], 0).await;
    bytes.truncate(read.expect("its bytes"));
    bytes
}

#[cfg(not(target_os = "linux"))]
async fn read(_: HandlerRuntime, path: &std::path::Path) -> Vec<u8> {
    std::fs::read(path).expect("the file")
}

fn a_batch_that_a_task_keeps_comes_back_before_the_end(backend: Backend) {
    let (shards, handle, to) = open(backend);
    let client = Client::on_loopback();
    let run = move || {
        shards.run_async(|_, _| {
            |batch: BatchLease| async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"late"));
            }
        })
    };
    let ran = thread::spawn(run);
    client.send("now", to);
    wait_until("it is heard", || handle.stats().total().received_count() == 1);
    let stats = ended(&handle, ran);
    client.expect("late", to);
    assert_eq!((stats.total().sent_count, stats.lent_count), (1, 0));
    assert_free(to.port());
}

fn a_task_that_never_ends_does_not_keep_the_shards_from_ending(backend: Backend) {
    let (shards, handle, to) = open(backend);
    let dropped = std::sync::Arc::new(Mutex::new(0));
    let told = std::sync::Arc::clone(&dropped);
    let run = move || {
        shards.run_async(|_, _| {
            let told = std::sync::Arc::clone(&told);
            move |batch: BatchLease| {
                let on_drop = common::OnDrop({
                    let told = std::sync::Arc::clone(&told);
                    move || *told.lock().expect("no panic") += 1
                });
                async move {
                    let _kept = (batch, on_drop);
                    std::future::pending().await
                }
            }
        })
    };
    let ran = thread::spawn(run);
    for _ in 0..5 {
        Client::on_loopback().send("forever", to);
    }
    wait_until("all are heard", || handle.stats().total().received_count() == 5);
    ended(&handle, ran);
    assert!(*dropped.lock().expect("no panic") > 0, "tasks are dropped with their runtime");
    assert_free(to.port());
}

fn a_panic_in_a_task_that_has_waited_ends_all_shards_and_reaches_the_caller(backend: Backend) {
    let (shards, _, to) = open(backend);
    let run = move || {
        shards.run_async(|_, _| {
            |_: BatchLease| async {
                tokio::task::yield_now().await;
                panic!("on purpose");
            }
        })
    };
    let ran = thread::spawn(run);
    Client::on_loopback().send("panic", to);
    let panic = ran.join().expect_err("it reaches the caller");
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert_free(to.port());
}

fn what_handles_ask_for_while_tasks_keep_all_batches_stops_nobody(backend: Backend) {
    let shards = on_loopback(backend).batch_max(1).shards(2).open_shards().expect("shards");
    let (handle, port) = (shards.handle(), shards.ports()[0]);
    let to = SocketAddrV4::new(LOCALHOST, port);
    let run = move || {
        shards.run_async(|_, _| {
            |batch: BatchLease| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"kept"));
            }
        })
    };
    let ran = thread::spawn(run);
    // More than a shard has batches, whichever it is that the kernel chooses.
    let clients: Vec<_> = (0..300).map(|_| Client::on_loopback()).collect();
    clients.iter().for_each(|client| client.send("keep", to));
    wait_until("tasks keep some", || handle.stats().lent_count > 32);
    let listener = Client::on_loopback();
    for _ in 0..10 {
        let queued = handle.send(nicring::Egress::by_route(), listener.address(), b"beacon");
        assert!(queued.is_queued());
        listener.expect("beacon", to);
        handle.rescan();
    }
    clients.iter().for_each(|client| client.expect("kept", to));
    ended(&handle, ran);
}

fn what_came_before_the_shards_run_keeps_nothing_from_being_heard(backend: Backend) {
    let filter = nicring::Filter::new().payload(nicring::Pattern::new().byte(0, b'k'));
    let shards = on_loopback(backend).filter(filter).shards(2).open_shards().expect("shards");
    let (handle, port) = (shards.handle(), shards.ports()[0]);
    let to = SocketAddrV4::new(LOCALHOST, port);
    let clients: Vec<_> = (0..20).map(|_| Client::on_loopback()).collect();
    // Dropped without a batch, but each ends a receive.
    clients.iter().for_each(|client| client.send("", to));
    let run = move || {
        shards.run_async(|_, _| {
            |batch: BatchLease| async move {
                batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"heard"));
            }
        })
    };
    let ran = thread::spawn(run);
    for client in &clients {
        client.send("kept", to);
        client.expect("heard", to);
    }
    ended(&handle, ran);
}

fn handlers_are_made_within_their_runtime(backend: Backend) {
    let (shards, handle, to) = open(backend);
    let run = move || {
        shards.run_async(|_, _| {
            let mut timer = tokio::time::interval(Duration::from_millis(1));
            tokio::task::spawn_local(async move { timer.tick().await });
            |batch: BatchLease| async move {
                batch.iter().for_each(|one| _ = batch.reply(&one, one.payload()));
            }
        })
    };
    let ran = thread::spawn(run);
    let client = Client::on_loopback();
    client.send("made", to);
    client.expect("made", to);
    ended(&handle, ran);
}

/// Other threads answer and give batches back just when the shard looks for the last time.
fn no_reply_stays_behind_when_its_batch_comes_back_as_the_shard_falls_asleep(backend: Backend) {
    const COUNT: u32 = 20_000;
    let (shards, handle, to) = open(backend);
    let (sender, batches) = mpsc::channel::<(u32, BatchLease)>();
    let run = move || {
        shards.run_async(|_, _| {
            let (sender, mut number) = (sender.clone(), 0);
            move |batch: BatchLease| {
                number += 1;
                let _ = sender.send((number, batch));
                std::future::ready(())
            }
        })
    };
    let ran = thread::spawn(run);
    let answers = thread::spawn(move || {
        for (number, batch) in batches {
            // Up to 12 us, in steps that repeat late.
            let end = Instant::now() + Duration::from_nanos(u64::from(number * 769 % 12_000));
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            batch.iter().for_each(|one| _ = batch.reply(&one, one.payload()));
        }
    });
    let client = Client::on_loopback();
    for number in 0..COUNT {
        let text = number.to_string();
        client.send(&text, to);
        client.expect(&text, to);
    }
    ended(&handle, ran);
    answers.join().expect("no panic");
}
