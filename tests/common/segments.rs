//! A server that answers with as many datagrams as it is asked for, and a client that checks them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    ops::ControlFlow,
};

use nicring::{Batch, Builder, Datagram, Egress};
use socket2::SockRef;

use super::{Client, Server};

/// How many datagrams of which lengths are asked for, and where they go if not to the asker.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub count: usize,
    pub len: usize,
    /// One of every `spread` datagrams is `spread` bytes shorter than `len`; 0 for none.
    pub spread: usize,
    pub destination: Option<SocketAddrV4>,
}

impl Wanted {
    /// Datagrams of one length, to the asker.
    pub fn equal(count: usize, len: usize) -> Self {
        Self { count, len, spread: 0, destination: None }
    }

    pub fn mixed(count: usize, len: usize, spread: usize) -> Self {
        Self { spread, ..Self::equal(count, len) }
    }

    fn encode(&self) -> String {
        let Self { count, len, spread, destination } = self;
        let destination = destination.map_or(String::new(), |to| to.to_string());
        format!("{count} {len} {spread} {destination}")
    }

    fn decode(question: &[u8]) -> Self {
        let question = std::str::from_utf8(question).expect("the tests send text");
        let mut words = question.split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        let [count, len, spread] = [number(), number(), number()];
        Self { count, len, spread, destination: words.next().and_then(|word| word.parse().ok()) }
    }

    /// The payloads. Each repeats its own number, as far as it has room for it.
    pub fn payloads(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let Self { len, spread, .. } = *self;
        (0..self.count).map(move |number| {
            let is_shorter = spread > 0 && number % spread == spread - 1;
            let len = if is_shorter { len.saturating_sub(spread) } else { len };
            (number as u16).to_be_bytes().into_iter().cycle().take(len).collect()
        })
    }
}

pub fn serve(builder: Builder) -> Server {
    Server::start(builder.replies_max(512), |batch| {
        batch.iter().for_each(|datagram| answer(batch, &datagram));
        ControlFlow::Continue(())
    })
}

fn answer(batch: &Batch, datagram: &Datagram<'_>) {
    let wanted = Wanted::decode(datagram.payload());
    for payload in wanted.payloads() {
        let queued = match wanted.destination {
            None => batch.reply(datagram, &payload),
            Some(to) => {
                let egress = datagram.nic().map_or(Egress::by_route(), Egress::by_nic);
                batch.send(egress, to, &payload)
            }
        };
        assert!(queued.is_queued(), "{queued:?}");
    }
}

impl Client {
    /// Enlarges the receive buffer so that a whole run of segments fits.
    pub fn with_room(self) -> Self {
        SockRef::from(&self.0).set_recv_buffer_size(1 << 20).expect("SO_RCVBUF");
        self
    }

    /// Asks, and checks that every reply comes once, in order and unchanged.
    #[track_caller]
    pub fn ask_for(&self, wanted: Wanted, address: Ipv4Addr, port: u16) {
        self.ask(&wanted.encode(), address, port);
        for (number, payload) in wanted.payloads().enumerate() {
            let (got, source) = self.receive();
            assert!(got == payload, "{wanted:?}: number {number} is {got:?}");
            assert_eq!(source, SocketAddrV4::new(address, port), "{wanted:?}");
        }
    }

    /// As [`Client::ask_for`], in any order.
    #[track_caller]
    pub fn ask_for_in_any_order(&self, wanted: Wanted, address: Ipv4Addr, port: u16) {
        self.ask(&wanted.encode(), address, port);
        let mut got: Vec<_> = (0..wanted.count).map(|_| self.receive().0).collect();
        let mut expected: Vec<_> = wanted.payloads().collect();
        got.sort_unstable();
        expected.sort_unstable();
        assert!(got == expected, "{wanted:?}: {got:?}");
    }

    /// Asks for datagrams to a broadcast address or a group. Checks that each listener hears each.
    #[track_caller]
    pub fn ask_for_all(&self, wanted: Wanted, address: Ipv4Addr, port: u16, listeners: &[Client]) {
        self.ask(&wanted.encode(), address, port);
        for listener in listeners {
            for (number, payload) in wanted.payloads().enumerate() {
                let (got, _) = listener.receive();
                assert!(got == payload, "{wanted:?}: number {number} is {got:?}");
            }
        }
    }
}

/// Requests whose replies the kernel sends as segments, as single datagrams, and as both.
pub fn rows() -> Vec<Wanted> {
    let mut rows: Vec<_> =
        [1, 2, 3, 63, 64, 65, 128, 200].map(|count| Wanted::equal(count, 40)).into();
    rows.extend([0, 1, 2, 1471, 1472, 1473, 4000].map(|len| Wanted::equal(20, len)));
    rows.extend([Wanted::equal(64, 1472), Wanted::equal(100, 100)]);
    rows.extend([2, 3, 7, 39, 40].map(|spread| Wanted::mixed(200, 40, spread)));
    rows.extend([2, 3, 19].map(|spread| Wanted::mixed(40, 1475, spread)));
    rows
}

/// How many datagrams all rows ask for.
pub fn count_of(rows: &[Wanted]) -> usize {
    rows.iter().map(|wanted| wanted.count).sum()
}
