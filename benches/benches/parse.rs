//! Parsing and answering CA and PVA SEARCH: names per second, by the wall clock.

use std::{hint::black_box, net::SocketAddrV4, time::Duration};

use criterion::{Criterion, Throughput};
use nicring::search::{CaResponder, NameTable, Protocol, PvaResponder, ca, pva};

/// How many names a table has. Half of the names in a request are among them.
const NAME_COUNT: u32 = 10_000;

fn name(number: u32) -> String {
    format!("bench:device{:03}:channel{:02}", number / 100, number % 100)
}

/// Every second name of a request is in the table.
fn asked_name(number: u32) -> String {
    match number % 2 {
        0 => name(number * 37 % NAME_COUNT),
        _ => format!("elsewhere:device{number:03}"),
    }
}

fn ca_request(name_count: u32) -> Vec<u8> {
    let mut request = ca::RequestWriter::new();
    request.begin(Some(7));
    for number in 0..name_count {
        assert!(request.push(number, asked_name(number).as_bytes()));
    }
    request.datagram().to_vec()
}

fn pva_request(name_count: u32) -> Vec<u8> {
    let mut request = pva::RequestWriter::new();
    request.begin(pva::SearchHead {
        byte_order: pva::ByteOrder::Little,
        sequence: 7,
        flags: 0,
        reply_to: "0.0.0.0:40000".parse().expect("an address"),
    });
    for number in 0..name_count {
        assert!(request.push(number, asked_name(number).as_bytes()));
    }
    request.datagram().to_vec()
}

fn names() -> NameTable {
    let server = "192.0.2.7:5075".parse().expect("an address");
    let mut names = NameTable::builder();
    for protocol in Protocol::ALL {
        for number in 0..NAME_COUNT {
            names.insert(protocol, &name(number), server).expect("a name like others");
        }
    }
    names.build()
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
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let names = names();
    let source: SocketAddrV4 = "192.0.2.99:40000".parse().expect("an address");
    for name_count in [1, 20] {
        let (ca, pva) = (ca_request(name_count), pva_request(name_count));
        let mut group = criterion.benchmark_group(format!("SEARCH for {name_count} names"));
        group.throughput(Throughput::Elements(u64::from(name_count)));
        group.bench_function("parse CA", |b| b.iter(|| parse_ca(black_box(&ca))));
        group.bench_function("parse PVA", |b| b.iter(|| parse_pva(black_box(&pva))));
        let mut responder = CaResponder::new();
        group.bench_function("answer CA", |b| {
            b.iter(|| responder.answer(&names, black_box(&ca), source, &mut discard));
        });
        let mut responder = PvaResponder::new(Vec::new());
        group.bench_function("answer PVA", |b| {
            b.iter(|| responder.answer(&names, black_box(&pva), source.into(), &mut discard));
        });
        group.finish();
    }
    criterion.final_summary();
}

fn discard(to: SocketAddrV4, reply: &[u8]) {
    black_box((to, reply));
}
