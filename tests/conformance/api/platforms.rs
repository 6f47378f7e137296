//! Checks the table of `src/platforms.rs`. The tests that a row names must exist. The cell for the
//! system and backend of this run must agree with what is observed.

use std::{env::consts::OS, net::Ipv4Addr};

use nicring::{Backend, BackendSetup, Egress, Listen, Nics, Unicast};

use crate::common::{self, Client, Server, for_each_backend, on_loopback};

for_each_backend!(crate::common::on:
    the_table_tells_what_is_so,
);

const PAGE: &str = include_str!("../../../src/platforms.rs");

/// The source files of the cases that the table names.
const CASES: [(&str, &str); 10] = [
    ("api::life", include_str!("life.rs")),
    ("api::platforms", include_str!("platforms.rs")),
    ("api::receive", include_str!("receive.rs")),
    ("api::reply", include_str!("reply.rs")),
    ("api::settings", include_str!("settings.rs")),
    ("namespaces::announce", include_str!("../../namespaces/announce.rs")),
    ("os_semantics::linux", include_str!("../os_semantics/linux.rs")),
    ("os_semantics::sharing", include_str!("../os_semantics/sharing.rs")),
    ("os_semantics::windows", include_str!("../os_semantics/windows.rs")),
    ("udp_v4::contract", include_str!("../../udp_v4/contract.rs")),
];

/// How to find out whether a promise is offered here. There is one probe for each promise that is
/// not offered everywhere and that nicring's own code decides. What the system decides has its case
/// in `os_semantics`.
const PROBES: [(&str, Probe); 11] = [
    ("the destination of a datagram", |backend| hears(backend).destination.is_some()),
    ("the interface it arrived on", |backend| hears(backend).ifindex.is_some()),
    ("`Egress::ifindex` chooses the interface", minds_the_interface),
    ("`Builder::shards` opens as many as asked for", |backend| {
        on_loopback(backend).shards(2).open_shards().expect("shards").len() == 2
    }),
    ("`Listen::Wildcard`", |backend| on_loopback(backend).listen(Listen::Wildcard).open().is_ok()),
    ("`Unicast::Leave`", |backend| on_loopback(backend).unicast(Unicast::Leave).open().is_ok()),
    ("`leave_unicast`", |backend| {
        let left = "127.0.0.1";
        on_loopback(backend).leave_unicast(left).open().is_ok()
    }),
    ("every address of 127.0.0.0/8 is heard", hears_all_of_127),
    ("`kernel_time`", |backend| hears(backend).kernel_time.is_some()),
    ("`kernel_drop_count`", |backend| {
        common::open(on_loopback(backend)).handle().stats().total().kernel_drop_count().is_some()
    }),
    ("many datagrams per system call", |backend| {
        let engine = common::open(on_loopback(backend));
        match engine.handle().backend().setup {
            BackendSetup::Portable { datagrams_per_call_max, .. } => datagrams_per_call_max > 1,
            _ => backend == Backend::IoUring,
        }
    }),
];

type Probe = fn(Backend) -> bool;

struct Row {
    promise: &'static str,
    cells: Vec<&'static str>,
    tests: &'static str,
}

fn rows() -> Vec<Row> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"));
    let rows = lines.map(|line| {
        let cells: Vec<_> = line.split(" | ").collect();
        let [promise, cells @ .., tests] = &cells[..] else {
            panic!("no row: {line}");
        };
        Row { promise, cells: cells.to_vec(), tests }
    });
    rows.collect()
}

fn column(backend: Backend) -> &'static str {
    match (OS, backend) {
        ("linux", Backend::IoUring) => "Linux, io_uring",
        ("linux", _) => "Linux, portable",
        ("macos", _) => "macOS",
        ("freebsd", _) => "FreeBSD",
        ("windows", _) => "Windows",
        _ => panic!("the table has no column for {OS}"),
    }
}

fn the_table_tells_what_is_so(backend: Backend) {
    let rows = rows();
    let [heads, rows @ ..] = &rows[..] else {
        panic!("no table");
    };
    let column = heads.cells.iter().position(|head| *head == column(backend)).expect("its column");
    for row in rows {
        assert_eq!(row.cells.len(), heads.cells.len(), "{}", row.promise);
        for test in row.tests.split(", ") {
            assert_is_a_case(test.trim_matches('`'));
        }
        for cell in &row.cells {
            let reason = cell.strip_prefix("not offered: ").unwrap_or("so");
            let is_known = *cell == "kept" || *cell == "in user space" || reason != "so";
            assert!(is_known && !reason.is_empty(), "{}: {cell}", row.promise);
        }
        let is_told = !row.cells[column].starts_with("not offered");
        match PROBES.iter().find(|(promise, _)| *promise == row.promise) {
            Some((_, probe)) => assert_eq!(probe(backend), is_told, "{}", row.promise),
            None => {
                let is_everywhere = !row.cells.iter().any(|cell| cell.starts_with("not offered"));
                // The cases of these two look for themselves.
                let is_of_the_system =
                    row.tests.contains("os_semantics::") || row.tests.contains("namespaces::");
                let is_of_udp_v4 = row.tests.contains("udp_v4::");
                assert!(
                    is_everywhere || is_of_the_system || is_of_udp_v4,
                    "nothing observes: {}",
                    row.promise
                );
            }
        }
    }
    for (promise, _) in PROBES {
        assert!(rows.iter().any(|row| row.promise == promise), "not in the table: {promise}");
    }
}

#[track_caller]
fn assert_is_a_case(test: &str) {
    let (module, name) = test.rsplit_once("::").expect("a path");
    let source = CASES.iter().find(|(path, _)| *path == module);
    let (_, source) = source.unwrap_or_else(|| panic!("no module {module}"));
    let is_listed = source.contains(&format!("\n    {name},\n"));
    assert!(is_listed && source.contains(&format!("fn {name}(")), "no such case: {test}");
}

/// What the server hears of a datagram if everything is asked for.
fn hears(backend: Backend) -> common::Heard {
    let server = Server::echo(on_loopback(backend).kernel_time());
    let client = Client::on_loopback();
    client.send("what is told", server.address());
    // The kernel begins to take times a moment after the first socket asks for them.
    server.next();
    std::thread::sleep(common::SETTLE);
    client.send("what is told", server.address());
    server.next()
}

fn hears_all_of_127(backend: Backend) -> bool {
    let lo = Nics::enumerate().expect("NICs").loopback().expect("every host has one").name.clone();
    let builder = common::builder(backend).port(common::unused_port());
    let server = Server::echo(builder.nic(lo.as_str()));
    let client = Client::on_loopback();
    // Where the system does not know the address, it refuses or sends it elsewhere.
    let _ = client.0.send_to(b"at 127.0.1.1", (Ipv4Addr::new(127, 0, 1, 1), server.port));
    client.send("at 127.0.0.1", server.address());
    let mut heard = server.take(1);
    heard.extend(server.drain());
    heard.iter().any(|heard| heard.text() == "at 127.0.1.1")
}

/// Whether sending heeds the interface that it is given. No interface has this index.
fn minds_the_interface(backend: Backend) -> bool {
    let engine = common::open(on_loopback(backend));
    let listener = Client::on_loopback();
    let nowhere = Egress::by_nic(0x7fff_fff0);
    assert!(engine.handle().send(nowhere, listener.address(), b"by no NIC").is_queued());
    let server = Server::over(engine, |_| std::ops::ControlFlow::Continue(()));
    let counts = || {
        let total = server.handle.stats().total();
        (total.sent_count, total.send_error_count)
    };
    common::wait_until("it is sent, or not", || counts() != (0, 0));
    counts() == (0, 1)
}
