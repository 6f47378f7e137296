//! Names as sites have them: rsrv of EPICS Base and QSRV2 of pvxs say which are found, and real
//! clients read them through nicring.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    net::{Ipv4Addr, SocketAddrV4},
};

use nicring::search::{ca, pva};

use crate::{
    cases::{
        CLIENTS, Client as EpicsClient, EpicsServer, Network, SERVERS, TemporaryDirectory,
        python_and_network, start_nicring,
    },
    common::{Client, PATIENCE, cases, need_io_uring},
};

cases!(
    names_and_broken_datagrams_are_answered_as_by_rsrv_by_io_uring,
    names_and_broken_datagrams_are_answered_as_by_rsrv_by_portable,
    names_and_broken_datagrams_are_answered_as_by_qsrv_by_io_uring,
    names_and_broken_datagrams_are_answered_as_by_qsrv_by_portable,
    pva_names_with_braces_and_six_hundred_bytes_are_found_by_io_uring,
    pva_names_with_braces_and_six_hundred_bytes_are_found_by_portable,
);

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

fn names_and_broken_datagrams_are_answered_as_by_rsrv_by_io_uring() {
    need_io_uring();
    answered_as_by(&rsrv(), "io_uring");
}

fn names_and_broken_datagrams_are_answered_as_by_rsrv_by_portable() {
    answered_as_by(&rsrv(), "portable");
}

fn names_and_broken_datagrams_are_answered_as_by_qsrv_by_io_uring() {
    need_io_uring();
    answered_as_by(&qsrv(), "io_uring");
}

fn names_and_broken_datagrams_are_answered_as_by_qsrv_by_portable() {
    answered_as_by(&qsrv(), "portable");
}

/// A server that says what is right.
struct Oracle {
    label: &'static str,
    server: EpicsServer,
    search_port: u16,
    /// The protocol of its lines in the table, and its address there.
    lines: (&'static str, &'static str),
    protocol: Protocol,
    /// Where nicring is asked.
    nicring_port: u16,
    /// How many of the ends it knows at least.
    end_count_min: usize,
    /// Where it answers broken datagrams otherwise, and why nicring does not.
    differences: &'static [(&'static str, &'static str)],
    clients: Vec<EpicsClient>,
    read: &'static [&'static str],
}

fn rsrv() -> Oracle {
    let [_, server, _] = SERVERS;
    // caproto's client takes braces for a filter, on the IOC itself too.
    let [_, libca, .., repics] = CLIENTS;
    Oracle {
        label: "rsrv",
        server,
        search_port: 5066,
        lines: ("ca", "10.77.1.1:5066"),
        protocol: CA,
        nicring_port: 5064,
        end_count_min: 8,
        differences: &[
            ("byte 23 is ", "of a request of a version before 4 rsrv drops what follows, too"),
            ("byte 47 is ", "the same of the second request"),
            ("byte 39 is ", "rsrv writes an end over the last byte of a name that has none"),
        ],
        clients: vec![libca, repics],
        read: &["XF:31IDA-OP{Tbl-Ax:X1}Mtr.VAL", "XF{DET:1}", "XF{DET:1}.VAL", "nr:temp.VAL"],
    }
}

fn qsrv() -> Oracle {
    let [p4p, _, _, pvapy, repics, _] = CLIENTS;
    Oracle {
        label: "qsrv",
        server: EpicsServer {
            script: "pva_ioc_softioc.py",
            pvs: ["", ""],
            address: "10.77.1.1",
            ports: &["--port", "5089", "--search-port", "5090"],
        },
        search_port: 5090,
        lines: ("pva", "10.77.1.1:5089"),
        protocol: PVA,
        nicring_port: 5076,
        end_count_min: 5,
        differences: &[
            ("byte 4 is ", "pvxs does not look at the length of a message if more was received"),
            ("byte 36 is ", "pvxs offers TCP to clients that do not accept it"),
            ("byte 37 is ", "the same"),
            ("byte 38 is ", "the same"),
        ],
        clients: vec![p4p, pvapy, repics],
        read: &["XF:31IDA-OP{Tbl-Ax:X1}Mtr.VAL", "XF{DET:1}", "nr:temp.VAL"],
    }
}

fn answered_as_by(oracle: &Oracle, backend: &str) {
    let (python, network) = python_and_network();
    let files = TemporaryDirectory::new(&format!("{}-{backend}", oracle.label));
    let pvs: Vec<_> = RECORDS.iter().map(|record| format!("{record}=1.25")).collect();
    let _server = oracle.server.start_with(&pvs, &network.server, &python, &files);
    let (protocol, address) = oracle.lines;
    let table: String =
        RECORDS.iter().map(|record| format!("{protocol} {record} {address}\n")).collect();
    let nicring = start_nicring(&network.server, backend, &table, &["--unicast", "take"], &files);

    let asker = Asker::new(&network, &oracle.protocol);
    let names = names();
    let by_oracle = asker.found(&names, oracle.search_port);
    let by_nicring = asker.found(&names, oracle.nicring_port);
    let count_min = oracle.end_count_min * RECORDS.len();
    assert!(by_oracle.len() >= count_min, "{by_oracle:#?}\n{}", files.logs());
    assert_eq!(by_nicring, by_oracle, "left: nicring\n{}", files.logs());

    // Whatever else the oracle finds is found.
    let random = random_names();
    let by_oracle = asker.found(&random, oracle.search_port);
    let by_nicring = asker.found(&random, oracle.nicring_port);
    assert!(by_oracle.len() >= 100, "{by_oracle:#?}");
    assert_eq!(by_oracle.difference(&by_nicring).next(), None, "{}", files.logs());
    let is_of_a_record = |name: &&String| RECORDS.iter().any(|record| name.starts_with(record));
    assert_eq!(by_nicring.iter().find(|name| !is_of_a_record(name)), None, "{}", files.logs());

    asker.assert_answered_alike(oracle.search_port, oracle.nicring_port, oracle.differences);

    for client in &oracle.clients {
        let namespace = &network.clients[0];
        let read = client.read(namespace, &python, oracle.read, &["--addr-list", "10.77.1.255"]);
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

/// Writes one datagram that asks for some names, each with its id.
type Request = fn(&[(u32, &str)], reply_to: SocketAddrV4) -> Vec<u8>;

struct Protocol {
    request: Request,
    /// The ids that a datagram answers.
    ids: fn(&[u8]) -> Vec<u32>,
}

const CA: Protocol = Protocol {
    request: |names, _| {
        let mut request = ca::RequestWriter::new();
        request.begin(None);
        assert!(names.iter().all(|&(id, name)| request.push(id, name.as_bytes())));
        request.datagram().to_vec()
    },
    ids: |answer| {
        let replies = ca::messages(answer).map_while(Result::ok);
        replies.filter_map(|message| Some(message.search_reply().ok()?.id)).collect()
    },
};

const PVA: Protocol = Protocol {
    request: |names, reply_to| {
        let mut request = pva::RequestWriter::new();
        let (flags, byte_order) = (pva::FLAG_UNICAST, pva::ByteOrder::Little);
        request.begin(pva::SearchHead { byte_order, sequence: 1, flags, reply_to });
        assert!(names.iter().all(|&(id, name)| request.push(id, name.as_bytes())));
        request.datagram().to_vec()
    },
    ids: |answer| {
        let messages = pva::messages(answer).map_while(Result::ok);
        let responses = messages.filter_map(|message| message.search_response().ok());
        responses.filter(|response| response.found).flat_map(|found| found.ids()).collect()
    },
};

/// A client of one of the protocols.
struct Asker<'a> {
    client: Client,
    protocol: &'a Protocol,
    reply_to: SocketAddrV4,
}

impl<'a> Asker<'a> {
    fn new(network: &Network, protocol: &'a Protocol) -> Self {
        let client = network.clients[0].client(Ipv4Addr::UNSPECIFIED);
        client.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let port = client.0.local_addr().expect("a bound socket").port();
        Self { client, protocol, reply_to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port) }
    }

    fn request(&self, names: &[(u32, &str)]) -> Vec<u8> {
        (self.protocol.request)(names, self.reply_to)
    }

    /// The ids that the server at a port answers when it is sent a datagram. A name that it knows
    /// is asked for after it: with that answer, all are there.
    fn answered(&self, datagram: &[u8], port: u16) -> BTreeSet<u32> {
        const LAST: u32 = 0xfeed_beef;
        let server = SocketAddrV4::new([10, 77, 1, 1].into(), port);
        self.client.send(datagram, server);
        self.client.send(self.request(&[(LAST, RECORDS[0])]), server);
        let mut ids = BTreeSet::new();
        while !ids.remove(&LAST) {
            let mut payload = [0; 1500];
            let len = self.client.0.recv(&mut payload).expect("an answer for the known name");
            ids.extend((self.protocol.ids)(&payload[..len]));
        }
        ids
    }

    /// Which of the names the server at a port answers for, each asked for by itself.
    fn found(&self, names: &[String], port: u16) -> BTreeSet<String> {
        let is_found =
            |name: &&String| self.answered(&self.request(&[(7, name)]), port).contains(&7);
        names.iter().filter(is_found).cloned().collect()
    }

    /// Sends datagrams with three names to both servers: cut at each length, and with each byte
    /// changed. Their answers differ where it is said, and nowhere else.
    fn assert_answered_alike(&self, oracle: u16, nicring: u16, explained: &[(&str, &str)]) {
        let whole = self.request(&[(1, RECORDS[0]), (2, RECORDS[1]), (3, RECORDS[2])]);
        let cut = |len| (format!("cut at {len}"), whole[..len].to_vec());
        let changed = |(at, byte): (usize, u8)| {
            let mut datagram = whole.clone();
            datagram[at] = byte;
            (format!("byte {at} is {byte}"), datagram)
        };
        let changes = (0..whole.len()).flat_map(|at| [0, 1, 0x7f, 0x80, 0xff].map(|to| (at, to)));
        let mut left: Vec<_> = explained.iter().map(|(what, _)| *what).collect();
        for (what, datagram) in (0..=whole.len()).map(cut).chain(changes.map(changed)) {
            let by_oracle = self.answered(&datagram, oracle);
            let by_nicring = self.answered(&datagram, nicring);
            if by_oracle != by_nicring {
                let is_explained = explained.iter().any(|(begin, _)| what.starts_with(begin));
                assert!(is_explained, "{what}: oracle {by_oracle:x?}, nicring {by_nicring:x?}");
                left.retain(|begin| !what.starts_with(begin));
            }
        }
        assert!(left.is_empty(), "no difference any more: {left:?}");
    }
}

fn pva_names_with_braces_and_six_hundred_bytes_are_found_by_io_uring() {
    need_io_uring();
    pva_names_with_braces_and_six_hundred_bytes_are_found("io_uring");
}

fn pva_names_with_braces_and_six_hundred_bytes_are_found_by_portable() {
    pva_names_with_braces_and_six_hundred_bytes_are_found("portable");
}

fn pva_names_with_braces_and_six_hundred_bytes_are_found(backend: &str) {
    let (python, network) = python_and_network();
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
        let namespace = &network.clients[0];
        let read = client.read(namespace, &python, names, &["--addr-list", "10.77.1.255"]);
        assert_eq!(read, Ok(()), "{}", files.logs());
    }
    assert!(nicring.ends_well_when_asked(), "{}", files.logs());
}
