//! `Engine::run` and `Shards::run`.

use std::{io, net::Ipv4Addr, ops::ControlFlow};

use nicring::{Batch, Builder, Egress, Nics, Shards, search::Answerer};

use super::{Setup, Tuning};
use crate::service::{Question, Service, Way};

pub(super) fn run(tuning: Tuning, setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    if tuning.shard_count.is_some() {
        let (shards, handler_of) = open_shards(tuning, setup)?;
        ready();
        shards.run(|_| {
            let mut handler = handler_of();
            move |batch: &Batch| handler.handle(batch)
        })?;
    } else {
        let engine = builder(tuning, &setup).open()?;
        let ways = ways(&engine.handle().nics(), &setup.addresses);
        ready();
        let mut handler = Handler::new(setup.service, setup.port, ways);
        engine.run(|batch| handler.handle(batch))?;
    }
    Ok(())
}

/// Shards, and what makes their handlers.
pub(super) fn open_shards(
    tuning: Tuning,
    setup: Setup,
) -> nicring::Result<(Shards, impl Fn() -> Handler + Sync)> {
    let shards = builder(tuning, &setup).open_shards()?;
    let ways = ways(&shards.handle().nics(), &setup.addresses);
    Ok((shards, move || Handler::new(setup.service.fork(), setup.port, ways.clone())))
}

fn builder(tuning: Tuning, setup: &Setup) -> Builder {
    let builder = tuning.builder().port(setup.port);
    match setup.look_every {
        Some(every) => builder.tick(every),
        None => builder,
    }
}

/// Serves one engine.
pub(super) struct Handler {
    service: Service,
    answerer: Option<Answerer>,
    ways: Vec<Egress>,
}

impl Handler {
    fn new(service: Service, port: u16, ways: Vec<Egress>) -> Self {
        let protocol = service.answered_protocol();
        let answerer = protocol.map(|protocol| Answerer::new().port(port, protocol));
        Self { service, answerer, ways }
    }

    pub(super) fn handle(&mut self, batch: &Batch) -> ControlFlow<()> {
        match &mut self.answerer {
            Some(answerer) => {
                answerer.answer(self.service.names(), batch);
                self.service.received(batch.len());
            }
            None => answer(batch, &mut self.service, &self.ways),
        }
        match self.service.is_stopped() {
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
