//! A Channel Access name server whose names are looked up by tasks, which takes a while: the batch
//! is long gone when the answer is there.
//!
//! `cargo run --example async_lookup`, then `caget` with `EPICS_CA_ADDR_LIST=127.0.0.1`; or with a
//! port of its own: `cargo run --example async_lookup -- 5999`.

use std::{net::SocketAddrV4, pin::pin, time::Duration};

use nicring::{Engine, Handle, ReplyPath, search::ca};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(5064), |port| port.parse())?;
    let engine = Engine::builder().port(port).open_async()?;
    println!("port {} on {}", engine.ports()[0], engine.handle().backend());
    let (mut tasks, mut ctrl_c) = (JoinSet::new(), pin!(tokio::signal::ctrl_c()));
    loop {
        let received = tokio::select! {
            received = engine.recv_batch() => received?,
            Some(_) = tasks.join_next() => continue, // one has answered
            _ = &mut ctrl_c => None,
        };
        let Some(batch) = received else { break };
        for datagram in &batch {
            let question = datagram.payload().to_vec();
            let (path, asker) = (datagram.reply_path(), datagram.source());
            tasks.spawn(answer(engine.handle(), path, asker, question));
        }
    }
    // Those that are still at it can send until the engine is told to stop.
    while tasks.join_next().await.is_some() {}
    println!("{}", engine.shutdown().await?);
    Ok(())
}

/// Answers one datagram, from the port that was asked.
async fn answer(handle: Handle, path: ReplyPath, asker: SocketAddrV4, question: Vec<u8>) {
    let messages: Vec<_> = ca::messages(&question).map_while(Result::ok).collect();
    let sequence = messages.iter().find_map(ca::Message::sequence);
    let searches: Vec<_> = messages.iter().filter_map(|message| message.search().ok()).collect();
    let servers = look_up(searches.iter().map(|search| search.name).collect()).await;
    let found =
        searches.iter().zip(servers).filter_map(|(search, server)| Some((search.id, server?)));
    let mut reply = ca::ReplyWriter::new();
    reply.begin(sequence);
    // The statistics count what is refused; the asker asks again.
    let send = |reply: &ca::ReplyWriter| handle.reply_by(path, asker, reply.datagram());
    for (id, server) in found {
        if !reply.push(id, server) {
            let _ = send(&reply);
            reply.begin(sequence);
            reply.push(id, server);
        }
    }
    if reply.name_count() > 0 {
        let _ = send(&reply);
    }
}

/// Asks a directory for all names of a datagram, which takes 1 ms: a database, another server.
async fn look_up(names: Vec<&[u8]>) -> Vec<Option<SocketAddrV4>> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let server = SocketAddrV4::new([127, 0, 0, 1].into(), 5064);
    names.iter().map(|name| name.starts_with(b"ioc1:").then_some(server)).collect()
}
