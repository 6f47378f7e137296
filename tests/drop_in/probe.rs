//! Receives once with the `AsyncUdpV4` of epics-base-rs, then prints the backend that it uses here.

use std::net::Ipv4Addr;

use epics_base_rs::net::AsyncUdpV4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let bundle = AsyncUdpV4::bind_single(Ipv4Addr::LOCALHOST, 0, false)?;
    bundle.send_to(b"search", bundle.local_addrs()[0]).await?;
    let mut buf = [0; 64];
    let (len, _) = bundle.recv_from(&mut buf).await?;
    assert_eq!(&buf[..len], b"search");
    // Only nicring's type has this method.
    println!("{}", bundle.backend());
    Ok(())
}
