//! A server that fits on a screen. It answers every datagram with the datagram's own payload.
//!
//! `cargo run --example echo -- 5999`, then `nc -u 127.0.0.1 5999`.

use std::ops::ControlFlow;

use nicring::Engine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let engine = Engine::builder().port(port).open()?;
    println!("port {} on {}", engine.ports()[0], engine.handle().backend());
    for socket in engine.handle().sockets() {
        println!("  {socket}");
    }
    let handle = engine.handle();
    ctrlc::set_handler(move || handle.stop())?;
    let stats = engine.run(|batch| {
        for datagram in batch {
            println!("{datagram:?}");
            batch.reply(&datagram, datagram.payload());
        }
        ControlFlow::Continue(())
    })?;
    println!("{stats}");
    Ok(())
}
