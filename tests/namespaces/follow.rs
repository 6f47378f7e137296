//! An engine that watches the NICs itself.

use nicring::{Backend, Class, Event, Events, Hears};

use crate::{
    common::{for_each_backend, is_on, wait_until},
    star::{GROUPS, PORT, Star, on_every_nic, own},
};

for_each_backend!(crate::common::netns::on:
    a_nic_that_comes_is_heard_without_a_rescan_by_hand,
    events_tell_of_nics_sockets_and_groups_that_come_and_go,
);

fn a_nic_that_comes_is_heard_without_a_rescan_by_hand(backend: Backend) {
    let star = Star::new(2);
    star.server.configure("link delete nic2");
    let server = star.server.echo(on_every_nic(backend));
    for round in 0..2 {
        star.connect(2);
        wait_until("the engine hears on the NIC", || {
            server.handle.sockets().iter().any(|socket| is_on(socket, "nic2"))
        });
        let client = star.client(2).client([0, 0, 0, 0]);
        let text = format!("round {round}");
        client.ask(&text, own(2), PORT);
        client.expect(&text, std::net::SocketAddrV4::new(own(2), PORT));
        star.server.configure("link delete nic2");
        wait_until("the engine has forgotten the NIC", || {
            server.handle.nics().by_name("nic2").is_none()
        });
    }
    let (stats, heard) = server.stop();
    assert_eq!(heard.len(), 2, "{stats}");
}

fn events_tell_of_nics_sockets_and_groups_that_come_and_go(backend: Backend) {
    let star = Star::new(2);
    star.server.configure("link delete nic2");
    let server = star.server.echo(on_every_nic(backend));
    let mut events = server.handle.events();
    for _ in 0..2 {
        star.connect(2);
        let came = until(&mut events, |event| is_unicast_at(event, true));
        let index = star.index(2);
        assert!(
            came.iter().any(|event| matches!(event, Event::NicCame(nic) if nic.index == index))
        );
        // What has been told can be seen.
        assert!(server.handle.sockets().iter().any(|socket| is_on(socket, "nic2")));
        assert_eq!(groups(&came, index), [(GROUPS[0], true), (GROUPS[1], true)], "{came:#?}");
        star.server.configure("link delete nic2");
        let went = until(&mut events, |event| is_unicast_at(event, false));
        assert!(
            went.iter().any(|event| matches!(event, Event::NicWent(nic) if nic.name == "nic2"))
        );
        assert_eq!(groups(&went, index), [(GROUPS[0], false), (GROUPS[1], false)], "{went:#?}");
    }
    star.server.configure("link set nic1 down");
    let is_nic1 = |event: &Event| matches!(event, Event::NicWent(nic) if nic.name == "nic1");
    until(&mut events, is_nic1);
    star.server.configure("link set nic1 up");
    until(&mut events, |event| matches!(event, Event::NicCame(nic) if nic.name == "nic1"));
    let other = server.handle.events();
    server.stop_having_heard_all();
    assert_eq!(other.count(), 0, "who comes late is told of nothing that was before");
    assert_eq!(
        (events.by_ref().last().map(|event| event.to_string()), events.missed_count()),
        (None, 0)
    );
}

/// The events up to one that is wanted. A NIC's unicast socket is the last of them.
#[track_caller]
fn until(events: &mut Events, is_last: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut told = Vec::new();
    wait_until("the engine tells of it", || {
        told.extend(events.try_next());
        told.last().is_some_and(&is_last)
    });
    // What was told with it is there too.
    told.extend(std::iter::from_fn(|| events.try_next()));
    told
}

fn is_unicast_at(event: &Event, is_open: bool) -> bool {
    let socket = match event {
        Event::SocketOpened(socket) if is_open => socket,
        Event::SocketClosed(socket) if !is_open => socket,
        _ => return false,
    };
    socket.hears == Hears::Class(Class::Unicast) && *socket.address.ip() == own(2)
}

/// The groups that were joined (true) or left on a NIC.
fn groups(events: &[Event], index: u32) -> Vec<(std::net::Ipv4Addr, bool)> {
    let of_nic = |event: &Event| match event {
        Event::GroupJoined { group, ifindex, .. } if *ifindex == index => Some((*group.ip(), true)),
        Event::GroupLeft { group, ifindex, .. } if *ifindex == index => Some((*group.ip(), false)),
        _ => None,
    };
    let mut groups: Vec<_> = events.iter().filter_map(of_nic).collect();
    groups.sort();
    groups
}
