//! The example on Linux.

use nicring::Engine;

pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    tokio_uring::start(async move {
        let engine = Engine::builder().port(port).open_async()?;
        println!("port {} on {}", engine.ports()[0], engine.handle().backend());
        while let Some(batch) = engine.recv_batch().await? {
            for datagram in batch.iter() {
                batch.reply(&datagram, datagram.payload());
            }
        }
        Ok(())
    })
}
