//! The bench on Linux.

use std::{net::SocketAddrV4, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use nicring_bench::{
    load::Load, network::Network, outcome::CLIENT_PORT, service::Task, thread_bench::Race,
};

const NIC_COUNT: u8 = 4;
const CONTESTANTS: [&str; 4] = ["nicring", "nicring-portable", "nicring-no-delay", "epoll"];
const REPLY_RATE: u32 = 100_000;
const FAN_OUT_RATE: u32 = 20_000;

pub fn main() {
    let network = match Network::new(NIC_COUNT) {
        Ok(network) => Arc::new(network),
        Err(error) => {
            println!("answer: skipped: {error}");
            return;
        }
    };
    let mut criterion = Criterion::default().configure_from_args();
    let to = |nic| SocketAddrV4::new(Network::client_address(nic), CLIENT_PORT);
    let fan_out = Task::FanOut((0..NIC_COUNT).map(to).collect());
    bench(&mut criterion, &network, "reply", &Task::Echo, REPLY_RATE);
    bench(&mut criterion, &network, "fan-out", &fan_out, FAN_OUT_RATE);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, network: &Arc<Network>, what: &str, task: &Task, rate: u32) {
    let mut group = criterion.benchmark_group(format!("{what}, {NIC_COUNT} NICs, CPU time"));
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.measurement_time(Duration::from_secs(5));
    for name in CONTESTANTS {
        let contestant = name.parse().expect("a contestant");
        let race = Race::start(network, contestant, task.clone(), Load::Paced(rate));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| race.cpu_time_of(count));
        });
        race.stop();
    }
    group.finish();
}
