//! The bench on Linux.

use std::{sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use nicring_bench::{load::Load, network::Network, service::Task, thread_bench::Race};

const NIC_COUNT: u8 = 4;
const CONTESTANTS: [&str; 4] = ["nicring", "nicring-portable", "nicring-no-delay", "epoll"];

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
    for name in CONTESTANTS {
        let contestant = name.parse().expect("a contestant");
        let race = Race::start(&network, contestant, Task::Count, Load::Flood(None));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| race.cpu_time_of(count));
        });
        race.stop();
    }
    group.finish();
    criterion.final_summary();
}
