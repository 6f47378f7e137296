//! `Engine::run`.

use std::{io, net::Ipv4Addr, ops::ControlFlow};

use nicring::{Batch, Builder, Egress, Nics};

use super::Setup;
use crate::service::{Question, Service, Way};

pub(super) fn run(builder: Builder, setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let Setup { addresses, port, mut service, look_every } = setup;
    let builder = builder.port(port);
    let builder = match look_every {
        Some(every) => builder.tick(every),
        None => builder,
    };
    let engine = builder.open()?;
    let ways = ways(&engine.handle().nics(), &addresses);
    ready();
    engine.run(|batch| {
        answer(batch, &mut service, &ways);
        match service.is_stopped() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok(())
}

/// The egress for each NIC.
pub(super) fn ways(nics: &Nics, addresses: &[Ipv4Addr]) -> Vec<Egress> {
    let way = |address: &Ipv4Addr| {
        let nic = nics.owner(*address).map(|nic| Egress::by_nic(nic.index));
        nic.unwrap_or_default().with_source(*address)
    };
    addresses.iter().map(way).collect()
}

pub(super) fn answer(batch: &Batch, service: &mut Service, ways: &[Egress]) {
    let questions = batch.iter().map(|datagram| Question {
        source: datagram.source(),
        payload: datagram.payload(),
        path: Some(datagram.reply_path()),
    });
    // What does not fit the outbox is counted as lost by the client.
    service.handle_all(questions, &mut |way, to, payload| {
        let _ = match way {
            Way::Back(path) => batch.reply_by(path.expect("an engine's"), to, payload),
            Way::Nic(nic) => batch.send(ways[nic], to, payload),
        };
    });
    service.received(batch.len());
}
