//! Names as sites have them: EPICS Base's own server (rsrv) says which are found, and real clients
//! read them through nicring.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use nicring::search::ca;

use crate::{
    CLIENTS, EpicsServer, Network, SERVERS, TemporaryDirectory,
    common::{Client, PATIENCE, has_io_uring},
    python_and_network, start_nicring,
};

/// The style of names of a large site, braces and all.
const RECORDS: [&str; 4] = [
    "nr:temp",
    "XF:31IDA-OP{Tbl-Ax:X1}Mtr",
    "XF{DET:1}",
    "nr:a-name-that-is-as-long-as-records-may-be:x",
];
/// What clients add to the name of a record, and what is no field of one.
const ENDS: [&str; 12] = [
    "",
    ".VAL",
    ".EGU",
    ".DESC$",
    ".",
    r#".VAL{"dbnd":{"d":1.5}}"#,
    r#".{"ts":{}}"#,
    ".VAL.EGU",
    ":",
    "x.VAL",
    "{",
    " ",
];

#[test]
fn names_are_found_as_rsrv_finds_them_by_io_uring() {
    if has_io_uring() {
        names_are_found_as_rsrv_finds_them("io_uring");
    }
}

#[test]
fn names_are_found_as_rsrv_finds_them_by_portable() {
    names_are_found_as_rsrv_finds_them("portable");
}

fn names_are_found_as_rsrv_finds_them(backend: &str) {
    let Some((python, network)) = python_and_network() else { return };
    let files = TemporaryDirectory::new(&format!("names-{backend}"));
    let [_, rsrv, _] = SERVERS;
    let pvs: Vec<_> = RECORDS.iter().map(|record| format!("{record}=1.25")).collect();
    let _rsrv = rsrv.start_with(&pvs, &network.server, &python, &files);
    let lines = RECORDS.iter().map(|record| format!("ca {record} 10.77.1.1:5066\n"));
    let table: String = lines.collect();
    let nicring = start_nicring(&network.server, backend, &table, &["--unicast", "take"], &files);

    let names: Vec<String> = RECORDS
        .iter()
        .flat_map(|record| ENDS.iter().map(move |end| format!("{record}{end}")))
        .collect();
    let by_rsrv = found(&network, &names, 5066);
    let by_nicring = found(&network, &names, 5064);
    assert!(by_rsrv.len() >= 8 * RECORDS.len(), "{by_rsrv:#?}\n{}", files.logs());
    assert_eq!(by_nicring, by_rsrv, "left: nicring\n{}", files.logs());

    // libca and epics-rs read them. caproto's client takes braces for a filter, on the IOC itself
    // too.
    let [_, libca, .., repics] = CLIENTS;
    let read = ["XF:31IDA-OP{Tbl-Ax:X1}Mtr.VAL", "XF{DET:1}", "XF{DET:1}.VAL", "nr:temp.VAL"];
    for client in [libca, repics] {
        let asker = &network.clients[0];
        let read = client.read(asker, &python, &read, &["--addr-list", "10.77.1.255"]);
        assert_eq!(read, Ok(()), "{}", files.logs());
    }
    assert!(nicring.ends_well_when_asked(), "{}", files.logs());
}

/// The names that the server at a port answers for, each asked for in a datagram of its own.
fn found(network: &Network, names: &[String], port: u16) -> BTreeSet<String> {
    let client: Client = network.clients[0].client(Ipv4Addr::UNSPECIFIED);
    for (id, name) in names.iter().enumerate() {
        let mut request = ca::RequestWriter::new();
        request.begin(None);
        assert!(request.push(id as u32, name.as_bytes()));
        client.send(request.datagram(), SocketAddrV4::new([10, 77, 1, 1].into(), port));
    }
    let (mut found, start, mut last_at) = (BTreeSet::new(), Instant::now(), Instant::now());
    client.0.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    while last_at.elapsed() < Duration::from_millis(500) && start.elapsed() < PATIENCE {
        let mut payload = [0; 1024];
        let Ok(len) = client.0.recv(&mut payload) else { continue };
        last_at = Instant::now();
        for message in ca::messages(&payload[..len]).map_while(Result::ok) {
            if let Ok(reply) = message.search_reply() {
                found.insert(names[reply.id as usize].clone());
            }
        }
    }
    found
}

#[test]
fn pva_names_with_braces_and_six_hundred_bytes_are_found_by_io_uring() {
    if has_io_uring() {
        pva_names_with_braces_and_six_hundred_bytes_are_found("io_uring");
    }
}

#[test]
fn pva_names_with_braces_and_six_hundred_bytes_are_found_by_portable() {
    pva_names_with_braces_and_six_hundred_bytes_are_found("portable");
}

fn pva_names_with_braces_and_six_hundred_bytes_are_found(backend: &str) {
    let Some((python, network)) = python_and_network() else { return };
    let files = TemporaryDirectory::new(&format!("pva-names-{backend}"));
    let long = |len: usize| format!("nr:{}", "x".repeat(len - 3));
    let names = ["XF:31IDA-OP{Tbl-Ax:X1}Mtr.RBV", &long(490), &long(600)];
    let [pvxs, ..] = SERVERS;
    let pvs = names.map(|name| format!("{name}=1.25"));
    let _pvxs = EpicsServer { ..pvxs }.start_with(&pvs, &network.server, &python, &files);
    let [_, medium, longest] = names;
    let table = format!(
        "pva XF:31IDA-OP{{Tbl-Ax:X1}}Mtr 10.77.1.1:5085
         PVA {medium} 10.77.1.1:5085
         pva {longest} 10.77.1.1:5085\n"
    );
    let nicring = start_nicring(&network.server, backend, &table, &["--unicast", "take"], &files);
    // pvAccessCPP, below pvapy, asks for no name of more than 500 bytes, of no server.
    let [p4p, _, _, pvapy, repics, _] = CLIENTS;
    for (client, names) in [(p4p, &names[..]), (pvapy, &names[..2]), (repics, &names[..])] {
        let asker = &network.clients[0];
        let read = client.read(asker, &python, names, &["--addr-list", "10.77.1.255"]);
        assert_eq!(read, Ok(()), "{}", files.logs());
    }
    assert!(nicring.ends_well_when_asked(), "{}", files.logs());
}
