//! Names and datagrams that are dealt with together get what they get one by one.

use std::{collections::HashMap, net::SocketAddrV4};

use nicring::search::{
    CaResponder, Fields, Lookup, NameTable, Protocol, PvaResponder, Request, RequestHead, ca, pva,
};
use proptest::{collection::vec, prelude::*};

fn server(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new([192, 0, 2, number].into(), 5064)
}

/// Few letters, so that many names are found, and many are fields of others.
fn any_name() -> impl Strategy<Value = String> {
    "[ab.:{]{1,5}"
}

fn any_table() -> impl Strategy<Value = NameTable> {
    let fields = prop_oneof![Just(Fields::Any), Just(Fields::Known), Just(Fields::None)];
    let names = vec((any_name(), any::<bool>(), 1..5u8), 0..100);
    (names, vec(any_name(), 0..3), fields).prop_map(|(names, patterns, fields)| {
        let mut table = NameTable::builder();
        for (name, is_pva, number) in names {
            // Some have another server already.
            let _ = table.insert(Protocol::ALL[usize::from(is_pva)], &name, server(number));
        }
        for pattern in patterns {
            let _ = table.insert_pattern(Protocol::Ca, &pattern, server(9));
        }
        table.build().with_fields(fields)
    })
}

fn together(table: &dyn Lookup, protocol: Protocol, names: &[&[u8]]) -> Vec<Option<SocketAddrV4>> {
    let mut servers = vec![None; names.len()];
    table.lookup_all(protocol, names, &mut servers);
    servers
}

proptest! {
    #[test]
    fn names_are_found_together_as_one_by_one(
        table in any_table(),
        asked in vec(any_name(), 0..100),
    ) {
        let names: Vec<&[u8]> = asked.iter().map(|name| name.as_bytes()).collect();
        for protocol in Protocol::ALL {
            let alone: Vec<_> = names.iter().map(|name| table.lookup(protocol, name)).collect();
            prop_assert_eq!(together(&table, protocol, &names), alone);
        }
    }

    #[test]
    fn the_first_table_of_a_stack_that_has_a_name_decides(
        tables in vec(any_table(), 0..4),
        asked in vec(any_name(), 0..100),
    ) {
        let names: Vec<&[u8]> = asked.iter().map(|name| name.as_bytes()).collect();
        let first = |name: &&[u8]| tables.iter().find_map(|table| table.lookup(Protocol::Ca, name));
        let expected: Vec<_> = names.iter().map(first).collect();
        prop_assert_eq!(together(&tables, Protocol::Ca, &names), expected);
    }

    #[test]
    fn pva_requests_of_a_batch_are_answered_as_each_alone(
        table in any_table(),
        batch in vec((vec(any_name(), 0..50), 1..4u8, any::<bool>()), 0..60),
    ) {
        let request = |(sequence, (names, _, is_big)): (usize, &(Vec<String>, u8, bool))| {
            let mut request = pva::RequestWriter::new();
            request.begin(pva::SearchHead {
                byte_order: if *is_big { pva::ByteOrder::Big } else { pva::ByteOrder::Little },
                sequence: sequence as u32,
                flags: 0,
                reply_to: "0.0.0.0:40000".parse().unwrap(),
            });
            (0..).zip(names).for_each(|(id, name)| assert!(request.push(id, name.as_bytes())));
            request.datagram().to_vec()
        };
        let datagrams: Vec<_> = batch.iter().enumerate().map(request).collect();
        let mut alone = (PvaResponder::default(), Vec::new());
        let mut packed = (PvaResponder::default(), Vec::new());
        let mut answers = packed.0.pack(&table, |reply| {
            packed.1.push((reply.way, reply.to, reply.payload.to_vec()));
        });
        for (datagram, (_, asker, _)) in datagrams.iter().zip(&batch) {
            let asked = server(*asker).into();
            alone.0.answer(&table, datagram, asked, &mut |to, reply| {
                alone.1.push((*asker, to, reply.to_vec()));
            });
            answers.add(datagram, asked, *asker);
        }
        drop(answers);
        prop_assert_eq!(packed.1, alone.1);
        prop_assert_eq!(packed.0.counts(), alone.0.counts());
    }
}

#[test]
fn a_name_longer_than_any_in_a_table_is_found_by_its_beginning_only() {
    let mut table = NameTable::builder();
    table.insert(Protocol::Ca, "record", server(1)).unwrap();
    table.insert_pattern(Protocol::Ca, "gateway:", server(2)).unwrap();
    let table = table.build();
    let long = [b'x'; 70_000];
    let [of_record, of_pattern] =
        [&b"record."[..], b"gateway:"].map(|beginning| [beginning, &long].concat());
    let names: [&[u8]; 4] = [&of_record, &long, &of_pattern, b"record"];
    let servers = [Some(server(1)), None, Some(server(2)), Some(server(1))];
    assert_eq!(together(&table, Protocol::Ca, &names), servers);
}

/// A table of a server's own.
struct Own(HashMap<Vec<u8>, SocketAddrV4>);

impl Lookup for Own {
    fn lookup_all(
        &self,
        _protocol: Protocol,
        names: &[&[u8]],
        servers: &mut [Option<SocketAddrV4>],
    ) {
        for (name, server) in names.iter().zip(servers) {
            *server = server.or_else(|| self.0.get(*name).copied());
        }
    }
}

#[test]
fn responders_answer_from_a_table_of_ones_own() {
    let own = Own(HashMap::from([(b"own".to_vec(), server(7))]));
    let mut file = NameTable::builder();
    for protocol in Protocol::ALL {
        file.insert(protocol, "file", server(8)).unwrap();
    }
    let file = file.build();
    let stack: [&dyn Lookup; 2] = [&file, &own];
    for protocol in Protocol::ALL {
        let mut request = Request::new(protocol);
        request.begin(RequestHead { sequence: 1, is_unicast: false, reply_port: 40_000 });
        for (id, name) in [(1, "file"), (2, "own"), (3, "none")] {
            assert!(request.push(id, name.as_bytes()));
        }
        let mut servers = Vec::new();
        let mut send = |_to, reply: &[u8]| match protocol {
            Protocol::Ca => {
                let reply = ca::messages(reply).nth(1).unwrap().unwrap().search_reply().unwrap();
                servers.push((reply.server, reply.id));
            }
            Protocol::Pva => {
                let message = pva::messages(reply).next().unwrap().unwrap();
                let response = message.search_response().unwrap();
                servers.extend(response.ids().map(|id| (response.server_ipv4(), id)));
            }
        };
        let source = server(99);
        match protocol {
            Protocol::Ca => {
                CaResponder::new().answer(&stack, request.datagram(), source, &mut send);
            }
            Protocol::Pva => {
                let mut responder = PvaResponder::new(Vec::new());
                responder.answer(&stack, request.datagram(), source.into(), &mut send);
            }
        }
        servers.sort();
        let expected = [(Some(*server(7).ip()), 2), (Some(*server(8).ip()), 1)];
        assert_eq!(servers, expected, "{protocol}");
    }
}
