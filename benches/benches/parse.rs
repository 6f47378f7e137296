//! Parsing CA and PVA SEARCH: names per second of wall time. One element is one name. What
//! answering costs, the bench `lookup` shows.

mod quick;

use std::hint::black_box;

use criterion::Throughput;
use nicring::search::{Protocol, Request, RequestHead, ca, pva};
use nicring_bench::names::name;

use quick::quick;

fn request(protocol: Protocol, name_count: u32) -> Request {
    let mut request = Request::new(protocol);
    request.begin(RequestHead { sequence: 7, is_unicast: false, reply_port: 40_000 });
    for number in 0..name_count {
        assert!(request.push(number, name(number * 37).as_bytes()));
    }
    request
}

fn parse_ca(datagram: &[u8]) -> usize {
    let searches = ca::messages(datagram).flatten().filter_map(|message| message.search().ok());
    searches.map(|search| search.name.len()).sum()
}

fn parse_pva(datagram: &[u8]) -> usize {
    let searches = pva::messages(datagram).flatten().filter_map(|message| message.search().ok());
    searches.flat_map(|search| search.names()).map(|(_, name)| name.len()).sum()
}

fn main() {
    let mut criterion = quick(20, [200, 500]);
    for name_count in [1, 20] {
        let plural = if name_count == 1 { "" } else { "s" };
        let mut group =
            criterion.benchmark_group(format!("parse SEARCH, {name_count} name{plural}"));
        group.throughput(Throughput::Elements(u64::from(name_count)));
        for (protocol, parse) in
            [(Protocol::Ca, parse_ca as fn(&[u8]) -> usize), (Protocol::Pva, parse_pva)]
        {
            let request = request(protocol, name_count);
            group.bench_function(protocol.to_string().to_uppercase(), |bencher| {
                bencher.iter(|| parse(black_box(request.datagram())));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
