//! Announces itself on every NIC, again and again, as beacons of EPICS do, and tells of NICs that
//! come and go. Ctrl-C ends it.
//!
//! `cargo run --example announce -- 5999`, then on another host `nc -ul 5999`.

use std::{
    iter,
    net::{Ipv4Addr, SocketAddrV4},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use nicring::{Egress, Engine};

const PERIOD: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(5065);
    // 255.255.255.255 is everyone on the link, whatever the subnet; a group would do as well.
    let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, port);
    // Looks ten times per period whether it is time for the next one.
    let engine = Engine::builder().port(0).tick(PERIOD / 10).open()?;
    let own_port = engine.ports()[0];
    let handle = engine.handle();
    let mut events = handle.events();
    ctrlc::set_handler(move || handle.stop())?;
    println!("from port {own_port} to {everyone}, on {}", engine.handle().heard_nics());
    let (mut next_at, mut number) = (Instant::now(), 0_u32);
    let stats = engine.run(|batch| {
        for event in iter::from_fn(|| events.try_next()) {
            println!("{event}");
        }
        for datagram in batch {
            println!("{} heard it, on {:?}", datagram.source(), batch.nic(&datagram));
        }
        if Instant::now() >= next_at {
            let beacon = format!("beacon {number} from port {own_port}");
            batch.fan_out(Egress::by_route(), everyone, beacon.as_bytes());
            (next_at, number) = (next_at + PERIOD, number + 1);
        }
        ControlFlow::Continue(())
    })?;
    println!("{stats}");
    Ok(())
}
