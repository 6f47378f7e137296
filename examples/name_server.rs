//! A name server of Channel Access and PVAccess. It answers for the names in a file, on every NIC,
//! and says every 10 seconds what it answered.
//!
//! `cargo run --example name_server -- pvs.txt`, or with ports of its own for CA and PVA:
//! `cargo run --example name_server -- pvs.txt 5999 5998`, then `caget` with
//! `EPICS_CA_ADDR_LIST=127.0.0.1:5999`. The program `nicring serve` reads the file again when it
//! changes, and does much more.

use std::{
    env,
    fs::File,
    io::BufReader,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use nicring::{
    Engine,
    search::{Answerer, Protocol, pva, read_pv_file},
};

const PERIOD: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = env::args().nth(1).ok_or("which file? Its lines: ca ioc1:temp 192.0.2.7:5064")?;
    let names = read_pv_file(BufReader::new(File::open(&path)?), &path)?;
    let mut ports = Protocol::ALL.map(Protocol::search_port);
    for (port, argument) in ports.iter_mut().zip(env::args().skip(2)) {
        *port = argument.parse()?;
    }

    // By this group the servers of this host pass on what only one of them heard.
    let builder = Engine::builder().ports(ports).join(pva::forwarded(ports[1]));
    let engine = builder.tick(PERIOD).open()?;
    let mut answerer = Answerer::new();
    for (protocol, port) in Protocol::ALL.into_iter().zip(engine.ports()) {
        println!("{protocol}: {} names", names.len(protocol));
        answerer = answerer.port(*port, protocol);
    }
    let (ports, handle) = (engine.ports(), engine.handle());
    println!("ready: CA port {}, PVA port {}, {}", ports[0], ports[1], handle.backend());

    ctrlc::set_handler(move || handle.stop())?;

    let mut next = Instant::now() + PERIOD;
    let stats = engine.run(|batch| {
        answerer.answer(&names, batch);
        if Instant::now() >= next {
            next += PERIOD;
            for protocol in Protocol::ALL {
                let counts = answerer.counts(protocol);
                println!("{protocol}: {} of {} answered", counts.hit_count, counts.name_count);
            }
        }
        ControlFlow::Continue(())
    })?;
    println!("{stats:#}");
    Ok(())
}
