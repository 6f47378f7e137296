//! `Engine::run` and `Shards::run`.

use std::{io, net::Ipv4Addr, ops::ControlFlow};

use nicring::{Batch, Egress, Nics, search::Answerer};

use super::{Setup, Tuning};
use crate::service::{Question, Service, Way};

pub(super) fn run(tuning: Tuning, setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let Setup { addresses, port, service, look_every } = setup;
    let builder = tuning.builder().port(port);
    let builder = match look_every {
        Some(every) => builder.tick(every),
        None => builder,
    };
    if tuning.shard_count.is_some() {
        let shards = builder.open_shards()?;
        let ways = ways(&shards.handle().nics(), &addresses);
        ready();
        shards.run(|_| handler(service.fork(), port, &ways))?;
    } else {
        let engine = builder.open()?;
        let ways = ways(&engine.handle().nics(), &addresses);
        ready();
        engine.run(handler(service, port, &ways))?;
    }
    Ok(())
}

/// Serves one engine.
fn handler(
    mut service: Service,
    port: u16,
    ways: &[Egress],
) -> impl FnMut(&Batch) -> ControlFlow<()> {
    let protocol = service.answered_protocol();
    let mut answerer = protocol.map(|protocol| Answerer::new().port(port, protocol));
    move |batch| {
        match &mut answerer {
            Some(answerer) => {
                answerer.answer(service.names(), batch);
                service.received(batch.len());
            }
            None => answer(batch, &mut service, ways),
        }
        match service.is_stopped() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
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
