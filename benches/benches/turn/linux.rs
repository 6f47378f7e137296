//! The bench on Linux.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::Duration,
};

use criterion::{Criterion, Throughput};
use nicring_bench::{
    affinity,
    contestant::{Contestant, Setup},
    lot::Lot,
    network::{Host, Network},
    service::{Progress, Service, Task},
};

const NIC_COUNT: u8 = 4;
/// Each has a port of its own: some contestants end with the program only.
const FIRST_PORT: u16 = 5076;
/// How many datagrams wait in each socket.
const DEPTHS: [usize; 3] = [1, 4, 16];
const CONTESTANTS: &[&str] = if cfg!(feature = "peers") {
    &["run", "portable-off", "epoll", "tokio", "tokio-told", "udp-v4-ready", "udp-v4-batch"]
} else {
    &["run", "portable-off", "epoll"]
};

pub fn main() {
    let network = match Network::new(NIC_COUNT) {
        Ok(network) => Arc::new(network),
        Err(error) => {
            println!("turn: skipped: {error}");
            return;
        }
    };
    let mut criterion = Criterion::default().configure_from_args();
    // The receivers then have the others.
    let _ = affinity::pin_to_first_cpu();
    let mut ports = FIRST_PORT..;
    for depth in DEPTHS {
        let name = format!("turn, {NIC_COUNT} NICs, {depth} waiting at each");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for name in CONTESTANTS {
            let contestant = name.parse().expect("a contestant");
            let progress = start(&network, contestant, ports.next().expect("a port"), depth);
            group.bench_function(*name, |bencher| {
                bencher.iter_custom(|count| spent_on(&progress, count));
            });
            lot_of(&progress).stop();
            progress.stop.store(true, Relaxed);
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Starts a contestant in a thread of its own, which ends with the program at the latest.
fn start(network: &Arc<Network>, contestant: Contestant, port: u16, depth: usize) -> Arc<Progress> {
    let (ready, is_ready) = mpsc::channel();
    let network = Arc::clone(network);
    thread::spawn(move || {
        network.enter(Host::Server).expect("the server's namespace");
        affinity::leave_first_cpu_if_pinned().expect("a CPU");
        let addresses: Vec<_> = network.server_addresses().collect();
        let lot = Lot::new(addresses.iter().copied(), port, depth).expect("sockets");
        let progress = Arc::new(Progress { lot: Some(lot), ..Progress::default() });
        let service = Service::new(Task::Count, Arc::clone(&progress));
        let look_every = Some(Duration::from_millis(20));
        let setup = Setup { addresses, port, service, look_every };
        let served = contestant.serve(setup, &mut || {
            lot_of(&progress).start();
            ready.send(Arc::clone(&progress)).expect("a listener");
        });
        served.expect("receiving");
    });
    is_ready.recv().expect("the contestant starts")
}

fn lot_of(progress: &Progress) -> &Lot {
    progress.lot.as_ref().expect("made with one")
}

/// What receiving `count` datagrams takes, in proportion if it is a few more.
fn spent_on(progress: &Progress, count: u64) -> Duration {
    let state = || (progress.received_count.load(Relaxed), lot_of(progress).spent_ns());
    let (first, spent_before) = state();
    loop {
        thread::sleep(Duration::from_millis(1));
        let (last, spent_after) = state();
        if last >= first + count {
            let ratio = count as f64 / (last - first) as f64;
            return Duration::from_nanos(spent_after - spent_before).mul_f64(ratio);
        }
    }
}
