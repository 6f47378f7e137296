//! The bench on Linux.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use nicring::Backend;
use nicring_bench::{
    clock::ThreadClock,
    contestant::{Contestant, Progress},
    network::{Host, Network},
    sender::Sender,
};

const NIC_COUNT: u8 = 4;
const PORT: u16 = 5076;

pub fn main() {
    let network = match Network::new(NIC_COUNT) {
        Ok(network) => Arc::new(network),
        Err(error) => {
            println!("receive: skipped: {error}");
            return;
        }
    };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(format!("receive, {NIC_COUNT} NICs, CPU time"));
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.measurement_time(Duration::from_secs(5));
    for contestant in [
        Contestant::Run(Backend::IoUring),
        Contestant::Run(Backend::Portable),
        Contestant::Coalescing(Duration::ZERO),
        Contestant::Epoll,
    ] {
        bench(&mut group, &network, contestant);
    }
    group.finish();
    criterion.final_summary();
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, network: &Arc<Network>, contestant: Contestant) {
    let progress = Arc::new(Progress::default());
    let (receiver, clock) = start_receiver(network, contestant, &progress);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = start_sender(network, &stop);
    group.bench_function(contestant.to_string(), |bencher| {
        bencher.iter_custom(|count| cpu_time_of(count, &progress, clock));
    });
    stop.store(true, Relaxed);
    sender.join().expect("the sender");
    progress.stop.store(true, Relaxed);
    receiver.join().expect("the receiver");
}

/// The receiver's CPU time while it receives `count` datagrams, in proportion if it is a few more.
fn cpu_time_of(count: u64, progress: &Progress, clock: ThreadClock) -> Duration {
    let received = || progress.received_count.load(Relaxed);
    let (first, cpu_before) = (received(), clock.cpu_time().expect("a running thread"));
    let end = Instant::now() + Duration::from_secs(60);
    while received() < first + count && Instant::now() < end {
        thread::sleep(Duration::from_micros(200));
    }
    let (last, cpu_after) = (received(), clock.cpu_time().expect("a running thread"));
    let ratio = count as f64 / (last - first).max(1) as f64;
    (cpu_after - cpu_before).mul_f64(ratio)
}

fn start_receiver(
    network: &Arc<Network>,
    contestant: Contestant,
    progress: &Arc<Progress>,
) -> (JoinHandle<()>, ThreadClock) {
    let (network, progress) = (Arc::clone(network), Arc::clone(progress));
    let (ready, is_ready) = mpsc::channel();
    let receiver = thread::spawn(move || {
        network.enter(Host::Server).expect("the server's namespace");
        let addresses: Vec<_> = network.server_addresses().collect();
        let ready = || ready.send(ThreadClock::of_this_thread()).expect("the bench waits");
        contestant.receive(&addresses, PORT, &progress, ready).expect("receiving");
    });
    (receiver, is_ready.recv().expect("the receiver starts"))
}

fn start_sender(network: &Arc<Network>, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (network, stop) = (Arc::clone(network), Arc::clone(stop));
    thread::spawn(move || {
        network.enter(Host::Client).expect("the client's namespace");
        let sender = Sender::new(network.server_addresses(), PORT, None);
        let time_max = Duration::from_secs(120);
        sender.send(time_max, &stop, &AtomicU64::new(0)).expect("sending");
    })
}
