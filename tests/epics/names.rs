//! Names as sites have them: rsrv of EPICS Base and QSRV2 of pvxs say which are found, and real
//! clients read them through nicring.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    net::{Ipv4Addr, SocketAddrV4},
};

use nicring::search::{ca, pva};

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

    let names = names();
    let by_rsrv = found(&network, &names, 5066);
    let by_nicring = found(&network, &names, 5064);
    assert!(by_rsrv.len() >= 8 * RECORDS.len(), "{by_rsrv:#?}\n{}", files.logs());
    assert_eq!(by_nicring, by_rsrv, "left: nicring\n{}", files.logs());

    // Whatever else rsrv finds is found.
    let random = random_names();
    let by_rsrv = found(&network, &random, 5066);
    let by_nicring = found(&network, &random, 5064);
    assert!(by_rsrv.len() >= 100, "{by_rsrv:#?}");
    assert_eq!(by_rsrv.difference(&by_nicring).next(), None, "{}", files.logs());
    let is_of_a_record = |name: &&String| RECORDS.iter().any(|record| name.starts_with(record));
    assert_eq!(by_nicring.iter().find(|name| !is_of_a_record(name)), None, "{}", files.logs());

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

/// What is asked for: each record with each of the ends.
fn names() -> Vec<String> {
    let with_ends = |record| ENDS.map(|end| format!("{record}{end}"));
    RECORDS.iter().flat_map(with_ends).collect()
}

/// Names that are put together at random of what names of fields are made of, others each time.
fn random_names() -> Vec<String> {
    const FIRST: [&str; 8] = [".VAL", ".DESC", ".NAME", ".RTYP", ".", "", ":", "{"];
    const NEXT: [&str; 16] = [
        ".",
        "VAL",
        "$",
        "{",
        "}",
        "[",
        "]",
        "0",
        ":",
        "\"",
        " ",
        "XYZ",
        "{\"ts\":{}}",
        "[0:3]",
        "{dbnd:{d:1.5}}",
        ".VAL",
    ];
    let seed = RandomState::new();
    let random = |number: usize, of: usize| seed.hash_one(number) as usize % of;
    let name = |number: usize| {
        let at = 100 * number;
        let begin = [RECORDS[random(at, RECORDS.len())], FIRST[random(at + 1, FIRST.len())]];
        let next = (0..random(at + 2, 4)).map(|next| NEXT[random(at + 3 + next, NEXT.len())]);
        let name: String = begin.into_iter().chain(next).collect();
        // One in eight loses what it begins with.
        if random(at + 50, 8) == 0 { name[1..].to_owned() } else { name }
    };
    (0..2000).map(name).collect()
}

/// The names that the CA server at a port answers for.
fn found(network: &Network, names: &[String], port: u16) -> BTreeSet<String> {
    let request = |id, name: &[u8], _| {
        let mut request = ca::RequestWriter::new();
        request.begin(None);
        assert!(request.push(id, name));
        request.datagram().to_vec()
    };
    found_by(network, names, port, request, |answer, ids| {
        let replies = ca::messages(answer).map_while(Result::ok);
        ids.extend(replies.filter_map(|message| Some(message.search_reply().ok()?.id)));
    })
}

/// The names that the PVA server at a port answers for.
fn found_by_pva(network: &Network, names: &[String], port: u16) -> BTreeSet<String> {
    let request = |id, name: &[u8], reply_to| {
        let mut request = pva::RequestWriter::new();
        let (flags, byte_order) = (pva::FLAG_UNICAST, pva::ByteOrder::Little);
        request.begin(pva::SearchHead { byte_order, sequence: id, flags, reply_to });
        assert!(request.push(id, name));
        request.datagram().to_vec()
    };
    found_by(network, names, port, request, |answer, ids| {
        let messages = pva::messages(answer).map_while(Result::ok);
        let responses = messages.filter_map(|message| message.search_response().ok());
        ids.extend(responses.filter(|response| response.found).flat_map(|found| found.ids()));
    })
}

/// Asks for each name in a datagram of its own. After every 16th one it asks for a name that is
/// known and waits for that answer, so that nothing is lost and no answer is missed.
fn found_by(
    network: &Network,
    names: &[String],
    port: u16,
    request: impl Fn(u32, &[u8], SocketAddrV4) -> Vec<u8>,
    collect: impl Fn(&[u8], &mut BTreeSet<u32>),
) -> BTreeSet<String> {
    let client: Client = network.clients[0].client(Ipv4Addr::UNSPECIFIED);
    let from = client.0.local_addr().expect("a bound socket").port();
    let reply_to = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, from);
    let ask = |id, name: &str| {
        let server = SocketAddrV4::new([10, 77, 1, 1].into(), port);
        client.send(&request(id, name.as_bytes(), reply_to), server);
    };
    client.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut ids = BTreeSet::new();
    for (number, some) in names.chunks(16).enumerate() {
        for (at, name) in some.iter().enumerate() {
            ask((16 * number + at) as u32, name);
        }
        let last = (names.len() + number) as u32;
        ask(last, RECORDS[0]);
        while !ids.contains(&last) {
            let mut payload = [0; 1500];
            let len = client.0.recv(&mut payload).expect("an answer for the known name");
            collect(&payload[..len], &mut ids);
        }
    }
    ids.into_iter().filter_map(|id| names.get(id as usize).cloned()).collect()
}

#[test]
fn names_are_found_as_qsrv_finds_them_by_io_uring() {
    if has_io_uring() {
        names_are_found_as_qsrv_finds_them("io_uring");
    }
}

#[test]
fn names_are_found_as_qsrv_finds_them_by_portable() {
    names_are_found_as_qsrv_finds_them("portable");
}

fn names_are_found_as_qsrv_finds_them(backend: &str) {
    let Some((python, network)) = python_and_network() else { return };
    let files = TemporaryDirectory::new(&format!("qsrv-{backend}"));
    let qsrv = EpicsServer {
        script: "pva_ioc_softioc.py",
        pvs: ["", ""],
        address: "10.77.1.1",
        ports: &["--port", "5089", "--search-port", "5090"],
    };
    let pvs: Vec<_> = RECORDS.iter().map(|record| format!("{record}=1.25")).collect();
    let _qsrv = qsrv.start_with(&pvs, &network.server, &python, &files);
    let lines = RECORDS.iter().map(|record| format!("pva {record} 10.77.1.1:5089\n"));
    let table: String = lines.collect();
    let nicring = start_nicring(&network.server, backend, &table, &["--unicast", "take"], &files);

    let names = names();
    let by_qsrv = found_by_pva(&network, &names, 5090);
    let by_nicring = found_by_pva(&network, &names, 5076);
    assert!(by_qsrv.len() >= 5 * RECORDS.len(), "{by_qsrv:#?}\n{}", files.logs());
    assert_eq!(by_nicring, by_qsrv, "left: nicring\n{}", files.logs());
    // Whatever else QSRV2 finds is found.
    let random = random_names();
    let by_qsrv = found_by_pva(&network, &random, 5090);
    let by_nicring = found_by_pva(&network, &random, 5076);
    assert!(by_qsrv.len() >= 100, "{by_qsrv:#?}");
    assert_eq!(by_qsrv.difference(&by_nicring).next(), None, "{}", files.logs());

    let [p4p, _, _, pvapy, repics, _] = CLIENTS;
    let read = ["XF:31IDA-OP{Tbl-Ax:X1}Mtr.VAL", "XF{DET:1}", "nr:temp.VAL"];
    for client in [p4p, pvapy, repics] {
        let asker = &network.clients[0];
        let read = client.read(asker, &python, &read, &["--addr-list", "10.77.1.255"]);
        assert_eq!(read, Ok(()), "{}", files.logs());
    }
    assert!(nicring.ends_well_when_asked(), "{}", files.logs());
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
