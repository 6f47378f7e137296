//! The same as `echo`, with async tasks: several answer at once, on any runtime.
//!
//! `cargo run --example echo_async -- 5999`, then `nc -u 127.0.0.1 5999`.

use std::sync::Arc;

use nicring::Engine;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let engine = Arc::new(Engine::builder().port(port).open_async()?);
    println!("port {} on {}", engine.ports()[0], engine.handle().backend());
    let tasks = (0..2).map(|_| tokio::spawn(answer(Arc::clone(&engine))));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    println!("{}", engine.handle().stats());
    Ok(())
}

async fn answer(engine: Arc<nicring::AsyncEngine>) -> nicring::Result<()> {
    while let Some(batch) = engine.recv_batch().await? {
        for datagram in batch.iter() {
            batch.reply(&datagram, datagram.payload());
        }
    } // the replies leave, and the buffers go back, when the batch is dropped
    Ok(())
}
