//! The bench on Linux.

use std::{env, process::ExitCode};

use criterion::{Criterion, SamplingMode, Throughput};
use nicring_bench::{
    affinity,
    contestant::Contestant,
    filling::{self, Filling},
    network::Network,
    privilege, receiver,
};

use crate::quick::quick;

const NIC_COUNTS: [u8; 4] = [1, 4, 16, 64];
const CONTESTANTS: &[&str] = if cfg!(feature = "peers") {
    &["nicring", "recv_batch", "nicring-portable", "epoll", "udp-v4-ring", "udp-v4-ready", "seed"]
} else {
    &["nicring", "nicring-portable", "epoll"]
};

pub fn main() -> ExitCode {
    if let Some(code) = receiver::serve_if_asked() {
        return code;
    }
    if let Err(code) = privilege::take() {
        return code;
    }
    // The receivers then use the other CPUs.
    if let Err(error) = affinity::pin_to_first_cpu() {
        println!("throughput: sender and receiver are not pinned: {error}");
    }
    let mut criterion = quick(10, [100, 300]);
    let is_test = env::args().any(|argument| argument == "--test");
    for nic_count in NIC_COUNTS.into_iter().take(if is_test { 2 } else { usize::MAX }) {
        let network = match Network::new(nic_count) {
            Ok(network) => network,
            Err(error) => {
                eprintln!("throughput: {error}");
                return ExitCode::FAILURE;
            }
        };
        network.prime().expect("links that are up");
        bench(&mut criterion, &network, "receive", false);
        bench(&mut criterion, &network, "answer", true);
    }
    criterion.final_summary();
    ExitCode::SUCCESS
}

fn bench(criterion: &mut Criterion, network: &Network, what: &str, is_answered: bool) {
    let nic_count = network.nic_count();
    let plural = if nic_count == 1 { "" } else { "s" };
    let mut group = criterion.benchmark_group(format!("{what}, {nic_count} NIC{plural}"));
    group.sampling_mode(SamplingMode::Flat);
    for name in CONTESTANTS {
        let contestant: Contestant = name.parse().expect("a contestant");
        let count = filling::count_of(network, count_max(contestant, nic_count)).expect("a socket");
        group.throughput(Throughput::Elements(count as u64));
        let mut filling = None;
        group.bench_function(format!("{}, {count} datagrams", contestant.title()), |bencher| {
            // Started here, so that only those that a filter leaves are.
            let filling = filling.get_or_insert_with(|| {
                Filling::start(network, contestant, count, is_answered).expect("a receiver")
            });
            bencher.iter_custom(|iteration_count| {
                (0..iteration_count).map(|_| filling.time().expect("nothing lost")).sum()
            });
        });
    }
    group.finish();
}

/// How many datagrams wait, over all NICs. The seed takes 2 ms for each where there are 64 NICs.
fn count_max(contestant: Contestant, nic_count: u8) -> usize {
    if contestant == Contestant::Seed && nic_count > 1 { 128 } else { 1024 }
}
