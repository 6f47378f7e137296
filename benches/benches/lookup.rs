//! Names per second of wall time, by the size of the table: look-ups one by one, and SEARCH with 20
//! names in each datagram answered. One element is one name.
//!
//! Names are asked for in an order in which neighbours lie far apart in the table, each once before
//! the first is asked for again: as on a site, where everybody asks for other names. Questions are
//! written between the measurements, so they are in the caches as if they had just been received.

use std::{
    env,
    hint::black_box,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use nicring::search::{CaResponder, NameTable, Protocol, PvaResponder, Request, RequestHead};
use nicring_bench::names::{push_name, shuffled, table};

const NAME_COUNTS: [u32; 3] = [10_000, 1_000_000, 5_000_000];
const NAMES_PER_DATAGRAM: u64 = 20;
/// How many names are asked for between two looks at the clock.
const CHUNK_LEN: u64 = 64 * NAMES_PER_DATAGRAM;
const HIT_OR_MISS: [(&str, bool); 2] = [("hits", true), ("misses", false)];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .nresamples(10_000)
        .noise_threshold(0.1)
        .without_plots()
        .configure_from_args();
    // Once, unoptimised, a table of millions of names shows nothing.
    let is_test = env::args().any(|argument| argument == "--test");
    for name_count in NAME_COUNTS.into_iter().take(if is_test { 1 } else { NAME_COUNTS.len() }) {
        let mut group = criterion.benchmark_group(format!("table of {name_count} names"));
        for protocol in Protocol::ALL {
            let names = table(protocol, name_count);
            for (title, is_hit) in HIT_OR_MISS {
                let asked = Asked::new(name_count, is_hit);
                if protocol == Protocol::Ca {
                    look_up(&mut group, title, &names, asked);
                }
                answer(&mut group, title, protocol, &names, asked);
            }
        }
        group.finish();
    }
    criterion.final_summary();
}

fn look_up(group: &mut Group<'_>, title: &str, names: &NameTable, mut asked: Asked) {
    let mut texts = vec![String::new(); CHUNK_LEN as usize];
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("look up, {title}"), |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for len in chunks(count) {
                let texts = &mut texts[..len as usize];
                texts.iter_mut().for_each(|text| asked.write_next(text));
                let began = Instant::now();
                for text in &*texts {
                    black_box(names.lookup(Protocol::Ca, black_box(text.as_bytes())));
                }
                spent += began.elapsed();
            }
            spent
        });
    });
}

fn answer(
    group: &mut Group<'_>,
    title: &str,
    protocol: Protocol,
    names: &NameTable,
    mut asked: Asked,
) {
    let mut responder = Responder::new(protocol);
    let mut requests = vec![Request::new(protocol); (CHUNK_LEN / NAMES_PER_DATAGRAM) as usize];
    let name = protocol.to_string().to_uppercase();
    group.throughput(Throughput::Elements(NAMES_PER_DATAGRAM));
    group.bench_function(format!("answer {name}, 20 {title} a datagram"), |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for len in chunks(count * NAMES_PER_DATAGRAM) {
                let requests = &mut requests[..(len / NAMES_PER_DATAGRAM) as usize];
                requests.iter_mut().for_each(|request| write_next(request, &mut asked));
                let began = Instant::now();
                for request in &*requests {
                    responder.answer(names, black_box(request.datagram()));
                }
                spent += began.elapsed();
            }
            spent
        });
    });
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Names in the order in which they are asked for.
#[derive(Clone, Copy)]
struct Asked {
    name_count: u32,
    is_hit: bool,
    next: u64,
}

impl Asked {
    fn new(name_count: u32, is_hit: bool) -> Self {
        Self { name_count, is_hit, next: 0 }
    }

    fn write_next(&mut self, text: &mut String) {
        text.clear();
        push_name(shuffled(self.next, self.name_count), self.is_hit, text);
        self.next += 1;
    }
}

/// Chunks of names that have `count` together.
fn chunks(count: u64) -> impl Iterator<Item = u64> {
    (0..count).step_by(CHUNK_LEN as usize).map(move |done| CHUNK_LEN.min(count - done))
}

/// Writes a datagram.
fn write_next(request: &mut Request, asked: &mut Asked) {
    request.begin(RequestHead { sequence: 7, is_unicast: false, reply_port: 40_000 });
    let mut text = String::new();
    for id in 0..NAMES_PER_DATAGRAM {
        asked.write_next(&mut text);
        assert!(request.push(id as u32, text.as_bytes()), "20 names fit");
    }
}

enum Responder {
    Ca(CaResponder),
    Pva(PvaResponder),
}

impl Responder {
    fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Ca => Self::Ca(CaResponder::new()),
            Protocol::Pva => Self::Pva(PvaResponder::new(Vec::new())),
        }
    }

    fn answer(&mut self, names: &NameTable, datagram: &[u8]) {
        let source = SocketAddrV4::new([192, 0, 2, 99].into(), 40_000);
        let send = &mut |to: SocketAddrV4, reply: &[u8]| {
            black_box((to, reply));
        };
        match self {
            Self::Ca(responder) => responder.answer(names, datagram, source, send),
            Self::Pva(responder) => responder.answer(names, datagram, source.into(), send),
        }
    }
}
