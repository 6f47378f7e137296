//! Groups that are joined on some NICs, and at some ports, only.

use nicring::{Backend, Engine, Join, Listen};

use crate::{
    common::{for_each_backend, sandbox::without_devices},
    star::{GROUPS, PORT, Star},
};

const OTHER_PORT: u16 = 5064;

for_each_backend!(crate::common::netns::on:
    a_group_is_heard_only_where_it_was_joined_by_class_sockets,
    a_group_is_heard_only_where_it_was_joined_by_a_wildcard_socket,
    a_group_is_heard_only_where_it_was_joined_by_class_sockets_without_devices,
);

fn a_group_is_heard_only_where_it_was_joined_by_class_sockets(backend: Backend) {
    only_where_joined(backend, Listen::Class);
}

fn a_group_is_heard_only_where_it_was_joined_by_a_wildcard_socket(backend: Backend) {
    only_where_joined(backend, Listen::Wildcard);
}

fn a_group_is_heard_only_where_it_was_joined_by_class_sockets_without_devices(backend: Backend) {
    without_devices(|| only_where_joined(backend, Listen::Class));
}

fn only_where_joined(backend: Backend, listen: Listen) {
    let star = Star::new(3);
    let some = Join::group(GROUPS[1]).on("nic2").on([10, 77, 3, 1]).port(OTHER_PORT);
    let builder = Engine::builder().backend(backend).listen(listen).ports([PORT, OTHER_PORT]);
    let server = star.server.echo(builder.join(GROUPS[0]).join(some));
    let mut heard_count = 0;
    for number in 1..=3 {
        let client = star.client(number).client([0, 0, 0, 0]);
        for port in [PORT, OTHER_PORT] {
            client.ask("who", GROUPS[1], port);
            let is_heard = number != 1 && port == OTHER_PORT;
            heard_count += usize::from(is_heard);
            client.ask("all", GROUPS[0], port);
            heard_count += 1;
            let expected: &[&str] = if is_heard { &["all", "who"] } else { &["all"] };
            let mut heard = server.take(expected.len());
            heard.sort_by(|one, other| one.payload.cmp(&other.payload)); // of two sockets
            for (heard, text) in heard.iter().zip(expected) {
                let seen = (heard.text(), heard.port, heard.nic);
                assert_eq!(seen, (*text, port, Some(star.index(number))), "by nic{number}");
            }
        }
    }
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.total().received_count(), heard_count as u64, "{stats}");
}
