//! What is of no interest is dropped, by the kernel or by the engine, with the same verdict.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
};

use nicring::{Backend, Class, Filter, Subnet, search::Protocol};
use socket2::{Domain, Socket, Type};

use crate::{
    common::{Client, for_each_backend, netns::Namespace, skip, wait_until},
    star::{GROUPS, Star, at_port, broadcast, on_every_nic, own, peer},
};

for_each_backend!(crate::common::netns::on:
    what_is_no_search_is_dropped_by_the_kernel_and_by_the_engine_alike,
    a_filter_that_is_too_long_for_the_kernel_keeps_the_same,
    a_filter_that_the_kernel_has_no_memory_for_keeps_the_same,
    shards_and_a_filter_drop_what_either_does_not_keep,
);

const CA_VERSION: &[u8] = &[0, 0, 0, 0, 0, 1, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0];
const PVA_SEARCH: &[u8] = &[0xca, 2, 0x80, 3, 0, 0, 0, 4, 0, 0, 0, 1];

fn filter() -> Filter {
    let ignored = "10.77.2.0/24".parse().expect("a subnet");
    Filter::new().search(Protocol::Ca).search(Protocol::Pva).ignore(ignored)
}

/// Payloads, and whether they are kept.
fn payloads() -> Vec<(Vec<u8>, bool)> {
    let beacon = [&[0, 13][..], &[0; 14]].concat();
    let (control, echo) = ([0xca, 2, 0x81, 3, 0, 0, 0, 0], [0xca, 2, 0x80, 2, 0, 0, 0, 0]);
    // Longer than a frame: it comes in fragments.
    let long = |start: &[u8]| [start, &[7; 3000]].concat();
    vec![
        (CA_VERSION.to_vec(), true),
        (PVA_SEARCH.to_vec(), true),
        (vec![0xca, 2, 0, 22, 1], true),
        (beacon.clone(), false),
        (control.to_vec(), false),
        (echo.to_vec(), false),
        (Vec::new(), false),
        (vec![0], false),
        (vec![0, 6], true),
        (vec![0xca, 2, 0x80], false),
        (long(PVA_SEARCH), true),
        (long(&beacon), false),
    ]
}

fn what_is_no_search_is_dropped_by_the_kernel_and_by_the_engine_alike(backend: Backend) {
    let by_engine = keeps_searches(&Star::new(2), backend, filter());
    assert_eq!(by_engine, 0, "the kernel drops what is no unicast");
}

/// Ignores so many hosts more.
fn ignoring(count: u32) -> Filter {
    let other = |number| Subnet::of_host(Ipv4Addr::from_bits(0xC633_6400 + number));
    (0..count).map(other).fold(filter(), Filter::ignore)
}

fn a_filter_that_is_too_long_for_the_kernel_keeps_the_same(backend: Backend) {
    let by_engine = keeps_searches(&Star::new(2), backend, ignoring(200));
    assert!(by_engine > 0, "the engine drops all by itself");
}

fn a_filter_that_the_kernel_has_no_memory_for_keeps_the_same(backend: Backend) {
    let star = Star::new(2);
    let limited = star.server.run(|| fs::write("/proc/sys/net/core/optmem_max", "2048"));
    if let Err(error) = limited {
        skip("optmem_max", &format!("a namespace has no limit of its own: {error}"));
    }
    let by_engine = keeps_searches(&star, backend, ignoring(80));
    assert!(by_engine > 0, "the engine drops all by itself");
}

/// Asks in every class, from a NIC of interest and from one that is not. Returns how many the
/// engine has dropped of what was no unicast.
#[track_caller]
fn keeps_searches(star: &Star, backend: Backend, filter: Filter) -> u64 {
    let server = star.server.echo(on_every_nic(backend).buffer_bytes(4096).filter(filter));
    let (mut heard_count, mut unicast_count, mut other_count) = (0, 0, 0);
    for number in 1..=2 {
        let client = star.client(number).client([0, 0, 0, 0]);
        for to in [own(number), broadcast(number), Ipv4Addr::BROADCAST, GROUPS[0]] {
            for (payload, is_search) in payloads() {
                client.send(&payload, at_port(to));
                let is_kept = is_search && number == 1;
                heard_count += u64::from(is_kept);
                match is_kept {
                    true => {
                        let heard = server.next();
                        assert_eq!((heard.payload, heard.destination), (payload.clone(), Some(to)));
                        client.expect(&payload, at_port(own(number)));
                    }
                    false if to == own(number) => unicast_count += 1,
                    false => other_count += 1,
                }
            }
        }
        let classes = [own(number), broadcast(number)];
        for (to, payload) in classes.iter().flat_map(|to| [CA_VERSION, b"x"].map(|p| (*to, p))) {
            send_with_options(star.client(number), peer(number), at_port(to), payload);
            let is_kept = payload == CA_VERSION && number == 1;
            if is_kept {
                assert_eq!(server.next().payload, payload);
                heard_count += 1;
            } else if to == own(number) {
                unicast_count += 1;
            } else {
                other_count += 1;
            }
        }
    }
    // What was sent before has come by then.
    let client = star.client(1).client([0, 0, 0, 0]);
    client.send(CA_VERSION, at_port(own(1)));
    server.next();
    wait_until("all are counted", || server.handle.stats().total().filtered_count >= unicast_count);
    let total = server.stop_having_heard_all().total();
    assert_eq!(total.received_count(), heard_count + 1);
    let by_engine = total.filtered_count - unicast_count;
    assert!(by_engine == 0 || by_engine == other_count, "{by_engine} of {other_count}");
    assert_eq!(total.kernel_drop_count().is_none(), by_engine == 0, "it cannot be told");
    by_engine
}

/// Sends a datagram whose IP header has options (RFC 791, section 3.1), from port 4000.
#[track_caller]
fn send_with_options(from: &Namespace, source: Ipv4Addr, to: SocketAddrV4, payload: &[u8]) {
    const OPTIONS: [u8; 8] = [1; 8]; // no operation
    let udp_len = 8 + payload.len() as u16;
    let mut packet = vec![0x47, 0];
    packet.extend((28 + udp_len).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]); // the kernel fills in the checksum
    packet.extend(source.octets());
    packet.extend(to.ip().octets());
    packet.extend(OPTIONS);
    for field in [4000, to.port(), udp_len, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    let raw = from.run(|| {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::UDP))?;
        raw.set_header_included_v4(true)?;
        raw.set_broadcast(true)?;
        Ok::<_, std::io::Error>(raw)
    });
    raw.expect("root may").send_to(&packet, &to.into()).expect("a raw datagram");
}

fn shards_and_a_filter_drop_what_either_does_not_keep(backend: Backend) {
    let star = Star::new(1);
    let builder = on_every_nic(backend).shards(2).filter(filter());
    let shards = star.server.run(|| builder.open_shards()).expect("shards");
    let (handle, (sender, heard)) = (shards.handle(), std::sync::mpsc::channel());
    let thread = star.server.run(|| {
        std::thread::spawn(move || {
            shards.run(|number| {
                let sender = sender.clone();
                move |batch: &nicring::Batch| {
                    let one = |d: nicring::Datagram<'_>| (number, d.source(), d.class());
                    batch.iter().for_each(|d| _ = sender.send(one(d)));
                    std::ops::ControlFlow::Continue(())
                }
            })
        })
    });
    let clients: Vec<Client> = (0..40).map(|_| star.client(1).client([0, 0, 0, 0])).collect();
    for client in &clients {
        for payload in [PVA_SEARCH, b"no search"] {
            client.send(payload, at_port(broadcast(1)));
        }
    }
    let patience = crate::common::PATIENCE;
    let told: Vec<_> = clients.iter().map(|_| heard.recv_timeout(patience).expect("one")).collect();
    assert!(heard.recv_timeout(crate::common::SETTLE).is_err(), "heard twice");
    let mut sources: Vec<_> = told.iter().map(|(_, source, _)| *source).collect();
    sources.sort();
    sources.dedup();
    assert_eq!(sources.len(), clients.len());
    assert!([0, 1].iter().all(|shard| told.iter().any(|(of, ..)| of == shard)));
    assert!(told.iter().all(|(_, _, class)| *class == Class::Subnet));
    handle.stop();
    let stats = thread.join().expect("no panic").expect("a good end");
    assert_eq!(stats.total().kernel_drop_count(), None, "it cannot be told");
}
