//! Compares what the engine hears with what a plain server hears.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nicring::{Backend, Builder, Engine, Listen, Unicast};

use crate::{
    common::{Client, PATIENCE, Server, sandbox},
    exceptions,
    host::{GROUP, Host},
};

/// Where the plain server hears what the engine is to hear at [`PORT`].
const ORACLE_PORT: u16 = 5080;
pub const PORT: u16 = 5076;
/// If nothing came for so long, nothing more will come.
const QUIET: Duration = Duration::from_millis(60);

/// How the engine listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub listen: Listen,
    pub unicast: Unicast,
    /// Whether sockets may be bound to devices.
    pub has_devices: bool,
}

/// All of them.
pub const MODES: [Mode; 5] = [
    Mode { listen: Listen::Class, unicast: Unicast::Take, has_devices: true },
    Mode { listen: Listen::Class, unicast: Unicast::Leave, has_devices: true },
    Mode { listen: Listen::Wildcard, unicast: Unicast::Take, has_devices: true },
    Mode { listen: Listen::Class, unicast: Unicast::Take, has_devices: false },
    Mode { listen: Listen::Class, unicast: Unicast::Leave, has_devices: false },
];

/// How often each question was heard, by its number.
type Counts = BTreeMap<usize, usize>;

/// Checks that the engine hears on this host what a plain server hears, in every mode.
#[track_caller]
pub fn assert_heard_as_by_a_plain_server(host: &Host, backend: Backend) {
    for mode in MODES {
        compare(host, mode, builder(backend).listen(mode.listen).unicast(mode.unicast));
    }
}

/// Settings for the port and the group.
pub fn builder(backend: Backend) -> Builder {
    Engine::builder().backend(backend).port(PORT).join(GROUP)
}

/// Starts an echo server on the host, in a sandbox if no socket may be bound to a device.
#[track_caller]
pub fn serve(host: &Host, mode: Mode, builder: Builder) -> Server {
    host.server.run(move || match mode.has_devices {
        true => Server::echo(builder),
        false => sandbox::without_devices(move || Server::echo(builder)),
    })
}

#[track_caller]
pub fn compare(host: &Host, mode: Mode, builder: Builder) {
    let oracle = host.plain_server(ORACLE_PORT);
    // A wildcard socket takes all unicasts.
    let has_beside = mode.unicast == Unicast::Leave
        || mode.listen == Listen::Class && host.questions().iter().any(|asked| !asked.is_chosen);
    let beside = has_beside.then(|| host.plain_server(PORT));
    let server = serve(host, mode, builder);
    let clients: Vec<Client> = host.questions().iter().map(|asked| host.client(asked)).collect();
    for (number, (question, client)) in host.questions().iter().zip(&clients).enumerate() {
        for port in [ORACLE_PORT, PORT] {
            client.ask(&number.to_string(), question.to, port);
        }
    }
    let mut heard = Heard::default();
    let (start, mut last_at) = (Instant::now(), Instant::now());
    loop {
        let has_news = heard.take(&oracle, beside.as_ref(), &server, &clients);
        if has_news {
            last_at = Instant::now();
        }
        if last_at.elapsed() < QUIET {
            continue;
        }
        let differences = heard.differences(host, mode);
        if differences.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{mode:?}: {differences:#?}\n{}", describe(&server));
    }
    server.stop_having_heard_all();
}

fn describe(server: &Server) -> String {
    let sockets: Vec<_> = server.handle.sockets().iter().map(ToString::to_string).collect();
    format!("{}\nnot heard: {:#?}", sockets.join("\n"), server.handle.failed_nics())
}

/// What everybody has heard so far.
#[derive(Debug, Default)]
struct Heard {
    by_oracle: Counts,
    by_engine: Counts,
    by_beside: Counts,
    /// The answers of the engine.
    by_clients: Counts,
}

impl Heard {
    /// Takes what has come. Returns whether there was anything.
    fn take(
        &mut self,
        oracle: &Client,
        beside: Option<&Client>,
        server: &Server,
        clients: &[Client],
    ) -> bool {
        let before = self.total();
        take_texts(oracle, &mut self.by_oracle);
        if let Some(beside) = beside {
            take_texts(beside, &mut self.by_beside);
        }
        for heard in server.take_ready() {
            *self.by_engine.entry(number(heard.text())).or_default() += 1;
        }
        for client in clients {
            client.0.set_read_timeout(Some(Duration::from_micros(10))).expect("a timeout");
            take_texts(client, &mut self.by_clients);
        }
        self.total() > before
    }

    fn total(&self) -> usize {
        let all = [&self.by_oracle, &self.by_engine, &self.by_beside, &self.by_clients];
        all.iter().flat_map(|counts| counts.values()).sum()
    }

    /// What is not as it should be, in words.
    fn differences(&self, host: &Host, mode: Mode) -> Vec<String> {
        let mut found = Vec::new();
        let count = |counts: &Counts, number| counts.get(&number).copied().unwrap_or(0);
        for (number, question) in host.questions().iter().enumerate() {
            let oracle = count(&self.by_oracle, number);
            let mut differs = |who: &str, count: usize, expected: usize| {
                if count != expected {
                    found.push(format!("{who} {count} of {expected} times: {question:?}"));
                }
            };
            differs("a plain server hears it", oracle.min(1), question.is_heard.into());
            let is_unicast = self.is_unicast(host, question.to);
            let leaves = mode.unicast == Unicast::Leave;
            if exceptions::reason(host, mode, question).is_some() {
                continue;
            }
            let is_left = leaves && is_unicast || !question.is_chosen;
            let expected = if is_left { 0 } else { oracle };
            differs("the engine hears it", count(&self.by_engine, number), expected);
            differs("it is answered", count(&self.by_clients, number), expected);
            if leaves || !question.is_chosen && mode.listen == Listen::Class {
                differs("the server beside hears it", count(&self.by_beside, number), oracle);
            }
        }
        found
    }

    fn is_unicast(&self, host: &Host, to: std::net::Ipv4Addr) -> bool {
        !to.is_multicast() && !to.is_broadcast() && !host.is_subnet_broadcast(to)
    }
}

fn take_texts(client: &Client, counts: &mut Counts) {
    let mut payload = [0; 64];
    while let Ok((len, _)) = client.0.recv_from(&mut payload) {
        let text = std::str::from_utf8(&payload[..len]).expect("the tests send text");
        *counts.entry(number(text)).or_default() += 1;
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("the number of a question")
}
