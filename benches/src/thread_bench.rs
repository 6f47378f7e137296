//! What the criterion benches share: a contestant in a thread, the load on it, and its CPU time.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    clock::ThreadClock,
    contestant::{Contestant, Setup},
    load::{Load, Running},
    network::{Host, Network},
    service::{Progress, Service, Task},
};

const PORT: u16 = 5076;

/// A single-threaded contestant that serves while a load runs. Both run in threads of this process.
#[derive(Debug)]
pub struct Race {
    progress: Arc<Progress>,
    clock: ThreadClock,
    receiver: JoinHandle<()>,
    load: Running,
}

impl Race {
    /// Starts the contestant and the load.
    ///
    /// # Panics
    ///
    /// If the contestant cannot serve.
    #[must_use]
    pub fn start(network: &Arc<Network>, contestant: Contestant, task: Task, load: Load) -> Self {
        let progress = Arc::new(Progress::default());
        let service = Service::new(task, Arc::clone(&progress));
        let (ready, is_ready) = mpsc::channel();
        let receiver = {
            let network = Arc::clone(network);
            thread::spawn(move || {
                network.enter(Host::Server).expect("the server's namespace");
                let setup = Setup {
                    addresses: network.server_addresses().collect(),
                    port: PORT,
                    service,
                    look_every: Some(Duration::from_millis(20)),
                };
                let ready = &mut || ready.send(ThreadClock::of_this_thread()).expect("a listener");
                contestant.serve(setup, ready).expect("receiving");
            })
        };
        let clock = is_ready.recv().expect("the receiver starts");
        Self { progress, clock, receiver, load: load.start(network, PORT) }
    }

    /// The receiver's CPU time for `count` datagrams. If it receives a few more, the time is scaled
    /// down.
    ///
    /// # Panics
    ///
    /// If the receiver has ended.
    #[must_use]
    pub fn cpu_time_of(&self, count: u64) -> Duration {
        let received = || self.progress.received_count.load(Relaxed);
        let cpu_time = || self.clock.cpu_time().expect("a running thread");
        let (first, cpu_before) = (received(), cpu_time());
        let end = Instant::now() + Duration::from_secs(60);
        while received() < first + count && Instant::now() < end {
            thread::sleep(Duration::from_micros(200));
        }
        let (last, cpu_after) = (received(), cpu_time());
        let ratio = count as f64 / (last - first).max(1) as f64;
        (cpu_after - cpu_before).mul_f64(ratio)
    }

    /// Ends the contestant and the load.
    ///
    /// # Panics
    ///
    /// If one of them failed.
    pub fn stop(self) {
        self.load.stop().expect("sending");
        self.progress.stop.store(true, Relaxed);
        self.receiver.join().expect("the receiver");
    }
}
