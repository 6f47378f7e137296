//! Names per second of wall time, by the size of the table: look-ups one by one and 20 together,
//! and SEARCH with 20 names in each datagram answered. One element is one name.
//!
//! `hashbrown` is what the table could be made of instead: the same arena of names, found by
//! hashbrown's `HashTable` of places, with the same hash.
//!
//! Names are asked for in an order in which neighbours lie far apart in the table, each once before
//! the first is asked for again: as on a site, where everybody asks for other names. Questions are
//! written between the measurements, so they are in the caches as if they had just been received.

mod quick;

use std::{
    env,
    hash::{BuildHasher, Hasher},
    hint::black_box,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use nicring::search::{
    CaResponder, Lookup, NameTable, Protocol, PvaResponder, Request, RequestHead,
};
use nicring_bench::names::{push_name, shuffled, table};

use quick::quick;

const NAME_COUNTS: [u32; 3] = [10_000, 1_000_000, 5_000_000];
const NAMES_PER_DATAGRAM: u64 = 20;
/// How many names are asked for between two looks at the clock.
const CHUNK_LEN: u64 = 64 * NAMES_PER_DATAGRAM;
const HIT_OR_MISS: [(&str, bool); 2] = [("hits", true), ("misses", false)];

fn main() {
    let mut criterion = quick(10, [200, 500]);
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
                    look_up_by_hashbrown(&mut group, title, &HashbrownTable::new(&names), asked);
                }
                answer(&mut group, title, protocol, &names, asked);
            }
        }
        group.finish();
    }
    criterion.final_summary();
}

fn look_up(group: &mut Group<'_>, title: &str, names: &NameTable, asked: Asked) {
    look_up_with(group, &format!("look up one by one, {title}"), asked, |name| {
        black_box(names.lookup(Protocol::Ca, black_box(name[0])));
    });
    let together = NAMES_PER_DATAGRAM as usize;
    look_up_with(group, &format!("look up {together} together, {title}"), asked, |asked| {
        let mut servers = [None; NAMES_PER_DATAGRAM as usize];
        names.lookup_all(Protocol::Ca, black_box(asked), &mut servers[..asked.len()]);
        black_box(servers);
    });
}

fn look_up_by_hashbrown(group: &mut Group<'_>, title: &str, names: &HashbrownTable, asked: Asked) {
    look_up_with(group, &format!("look up by hashbrown, {title}"), asked, |name| {
        black_box(names.lookup(black_box(name[0])));
    });
}

/// Measures `look_up` of as many names at a time as `title` says: 20 where they are together.
fn look_up_with(
    group: &mut Group<'_>,
    title: &str,
    mut asked: Asked,
    mut look_up: impl FnMut(&[&[u8]]),
) {
    let at_once = if title.contains("together") { NAMES_PER_DATAGRAM as usize } else { 1 };
    let mut texts = vec![String::new(); CHUNK_LEN as usize];
    group.throughput(Throughput::Elements(1));
    group.bench_function(title, |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for len in chunks(count) {
                let texts = &mut texts[..len as usize];
                texts.iter_mut().for_each(|text| asked.write_next(text));
                let names: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
                let began = Instant::now();
                names.chunks(at_once).for_each(&mut look_up);
                spent += began.elapsed();
            }
            spent
        });
    });
}

/// Names in an arena, each behind its length, found by hashbrown.
struct HashbrownTable {
    hasher: RandomState,
    arena: Vec<u8>,
    places: HashTable<u32>,
}

impl HashbrownTable {
    fn new(names: &NameTable) -> Self {
        let (hasher, mut arena) = (RandomState::default(), Vec::new());
        let mut places = HashTable::with_capacity(names.len(Protocol::Ca));
        for (_, name, server) in names {
            let at = arena.len() as u32;
            arena.extend_from_slice(&server.ip().octets());
            arena.extend_from_slice(&server.port().to_be_bytes());
            arena.extend_from_slice(&(name.len() as u16).to_be_bytes());
            arena.extend_from_slice(name.as_bytes());
            let never = |_: &u32| unreachable!("it has its capacity");
            places.insert_unique(hash(&hasher, name.as_bytes()), at, never);
        }
        Self { hasher, arena, places }
    }

    fn lookup(&self, name: &[u8]) -> Option<SocketAddrV4> {
        let record = |at: u32| self.arena[at as usize..].split_first_chunk::<8>();
        let is_it = |at: &u32| {
            record(*at).is_some_and(|([.., high, low], rest)| {
                rest.get(..usize::from(u16::from_be_bytes([*high, *low]))) == Some(name)
            })
        };
        let (head, _) = record(*self.places.find(hash(&self.hasher, name), is_it)?)?;
        let [a, b, c, d, port @ .., _, _] = *head;
        Some(SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes(port)))
    }
}

fn hash(hasher: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(name);
    hasher.finish()
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
