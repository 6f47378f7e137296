//! A PVAccess server over the public API of epics-pva-rs, at the standard ports of that protocol:
//! `server NAME=VALUE...`. It prints `READY` and runs until its standard input closes.

use std::{env, error::Error, io::Read, thread};

use epics_pva_rs::{EpicsValue, server::PvaServer};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(EnvFilter::new("warn,nicring=info"))
        .with_writer(std::io::stderr)
        .init();
    let mut builder = PvaServer::builder();
    for pv in env::args().skip(1) {
        let (name, value) = pv.split_once('=').ok_or("NAME=VALUE is wanted")?;
        builder = builder.pv(name, EpicsValue::Double(value.parse()?));
    }
    let server = builder.build().await?;
    let (closed, closes) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = closed.send(());
    });
    println!("READY");
    tokio::select! {
        ended = server.run() => Ok(ended?),
        _ = closes => Ok(()),
    }
}
