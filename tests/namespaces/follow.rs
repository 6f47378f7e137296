//! An engine that watches the NICs itself.

use nicring::Backend;

use crate::{
    common::{for_each_backend, is_on, wait_until},
    star::{PORT, Star, on_every_nic, own},
};

for_each_backend!(crate::common::netns::on:
    a_nic_that_comes_is_heard_without_a_rescan_by_hand,
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
