//! What matters because one ring serves every bundle of the process.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use nicring::Backend;
use tokio::time;

use crate::{
    Bundle, block_on,
    common::{Client, LOCALHOST, PATIENCE, assert_free, for_each_backend, unused_port},
    on_loopback, receive, receive_nothing,
};

for_each_backend!(crate::common::on:
    what_was_queued_before_the_first_receive_is_heard,
    a_bundle_that_is_flooded_and_not_drained_stalls_no_other,
    dozens_of_bundles_each_hear_their_own,
    a_waker_may_drop_a_bundle,
    bundles_come_and_go_beside_one_that_stays,
);

fn port(bundle: &Bundle) -> u16 {
    bundle.local_addrs()[0].port()
}

fn what_was_queued_before_the_first_receive_is_heard(backend: Backend) {
    block_on(async {
        let bundle = on_loopback(backend, 0);
        let client = Client::on_loopback();
        for text in ["one", "two", "three"] {
            client.ask(text, LOCALHOST, port(&bundle));
        }
        // Before the bundle receives, its sockets can be read directly.
        let mut buf = [0; 8];
        assert_eq!(bundle.ifaces()[0].sock.recv_from(&mut buf).await.unwrap().0, 3);
        assert_eq!(receive(&bundle).await.0, "two");
        assert_eq!(receive(&bundle).await.0, "three");
        receive_nothing(&bundle).await;
    });
}

/// The flooded bundle is full. What it holds, what its socket holds and what was dropped there add
/// up to what was sent.
fn a_bundle_that_is_flooded_and_not_drained_stalls_no_other(backend: Backend) {
    block_on(async {
        let (flooded, other) = (on_loopback(backend, 0), on_loopback(backend, 0));
        flooded.enable_so_rxq_ovfl().unwrap();
        receive_nothing(&flooded).await;
        let client = Client::on_loopback();
        let mut sent_count = 0;
        for round in 0..20 {
            for _ in 0..200 {
                client.0.send_to(&[b'f'; 1_000], flooded.local_addrs()[0]).unwrap();
                sent_count += 1;
            }
            let question = round.to_string();
            client.ask(&question, LOCALHOST, port(&other));
            let heard = time::timeout(Duration::from_secs(1), receive(&other)).await;
            assert_eq!(heard.expect("it was stalled").0, question);
        }
        let (mut heard_count, mut drop_count) = (0, 0);
        while heard_count + drop_count < sent_count {
            let (payload, meta, dropped_count) = receive(&flooded).await;
            assert_eq!((meta.n, payload.as_bytes()[0]), (1_000, b'f'));
            heard_count += 1;
            assert!(dropped_count >= drop_count);
            drop_count = dropped_count;
        }
        assert_eq!(heard_count + drop_count, sent_count, "{drop_count} dropped");
        receive_nothing(&flooded).await;
        assert!(drop_count > 0, "it was never full");
        client.ask("again", LOCALHOST, port(&flooded));
        assert_eq!(receive(&flooded).await.0, "again");
    });
}

fn dozens_of_bundles_each_hear_their_own(backend: Backend) {
    block_on(async {
        // Ports that no other test gets by chance when they become free.
        let ports: Vec<u16> = (0..40).map(|_| unused_port()).collect();
        let bundles: Vec<Bundle> = ports.iter().map(|port| on_loopback(backend, *port)).collect();
        let client = Client::on_loopback();
        for round in 0..3 {
            for (number, bundle) in bundles.iter().enumerate() {
                client.ask(&format!("{round} {number}"), LOCALHOST, port(bundle));
            }
            for (number, bundle) in bundles.iter().enumerate() {
                assert_eq!(receive(bundle).await.0, format!("{round} {number}"));
            }
        }
        drop(bundles);
        ports.into_iter().for_each(assert_free);
    });
}

/// A task that ends when it is woken has the last reference to the bundle.
fn a_waker_may_drop_a_bundle(backend: Backend) {
    type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

    struct EndOnWake {
        task: Mutex<Option<Task>>,
        port: u16,
        told: mpsc::Sender<(u16, Option<String>)>,
    }

    impl EndOnWake {
        fn wait(&self, task: Task, waker: &Waker) {
            let mut slot = self.task.lock().unwrap();
            let task = slot.insert(task);
            assert!(task.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
    }

    impl Wake for EndOnWake {
        fn wake(self: Arc<Self>) {
            let Some(task) = self.task.lock().unwrap().take() else { return };
            drop(task);
            // When the drop returns, the port is free, although this is the ring's own thread.
            assert_free(self.port);
            let name = thread::current().name().map(str::to_owned);
            self.told.send((self.port, name)).unwrap();
        }
    }

    block_on(async {
        let stays = on_loopback(backend, 0);
        receive_nothing(&stays).await;
        for _ in 0..20 {
            let bundle = on_loopback(backend, 0);
            let port = port(&bundle);
            let task: Task = Box::pin(async move {
                let _ = bundle.recv_from(&mut [0; 8]).await;
            });
            let (told, tells) = mpsc::channel();
            let end = Arc::new(EndOnWake { task: Mutex::new(None), port, told });
            let waker = Waker::from(Arc::clone(&end));
            end.wait(task, &waker);
            Client::on_loopback().ask("x", LOCALHOST, port);
            Client::on_loopback().ask("x", LOCALHOST, self::port(&stays));
            // By readiness, the waker runs on this thread, when the runtime polls its sockets.
            assert_eq!(receive(&stays).await.0, "x");
            let (freed, name) = tells.recv_timeout(PATIENCE).expect("it was woken");
            assert_eq!(freed, port);
            if backend == Backend::IoUring {
                assert_eq!(name.as_deref(), Some("nicring-udp-v4"));
            }
        }
    });
}

fn bundles_come_and_go_beside_one_that_stays(backend: Backend) {
    block_on(async {
        let stays = on_loopback(backend, 0);
        let client = Client::on_loopback();
        let mut heard_count = 0;
        for number in 0..200 {
            let brief = on_loopback(backend, 0);
            client.ask("stays", LOCALHOST, port(&stays));
            client.ask("brief", LOCALHOST, port(&brief));
            assert_eq!(receive(&brief).await.0, "brief");
            client.ask("never taken", LOCALHOST, port(&brief));
            let freed = port(&brief);
            drop(brief);
            assert_free(freed);
            if number % 10 == 9 {
                for _ in 0..10 {
                    assert_eq!(receive(&stays).await.0, "stays");
                    heard_count += 1;
                }
            }
        }
        assert_eq!(heard_count, 200);
        receive_nothing(&stays).await;
    });
}
