//! A Channel Access name server on several threads, whose names are in a file that is larger than
//! the memory that it wants: sorted lines of NAME SERVER, in which each name is searched for by
//! halving. What it has found before it answers at once; the rest is read from the file, by
//! tokio-uring where io_uring is granted, while other questions are answered.
//!
//! `LC_ALL=C sort names.txt > sorted.txt`, then `cargo run --features tokio-uring --example
//! sharded_name_server -- sorted.txt 5064`. A line is such as `ioc1:temp 192.0.2.7:5064`.

#[cfg(target_os = "linux")]
#[path = "file_uring.rs"]
mod file;
#[cfg(not(target_os = "linux"))]
#[path = "file_std.rs"]
mod file;

use std::{cell::RefCell, collections::HashMap, net::SocketAddrV4, rc::Rc, str};

use nicring::{BatchLease, Engine, Handle, ReplyPath, search::ca};

use file::SortedFile;

/// How many names a shard remembers.
const KNOWN_COUNT_MAX: usize = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path =
        std::env::args().nth(1).ok_or("which file? Sorted lines: ioc1:temp 192.0.2.7:5064")?;
    let port = std::env::args().nth(2).map_or(Ok(5064), |port| port.parse())?;
    let shards = Engine::builder().port(port).shards(2).open_shards()?;
    let handle = shards.handle();
    println!("{} shards, port {}, {}", shards.len(), shards.ports()[0], handle.backend());
    let stopper = handle.clone();
    ctrlc::set_handler(move || stopper.stop())?;
    let stats = shards.run_async(|_, runtime| {
        // Of this shard alone: nothing is shared, nothing is locked.
        let names = Rc::new(Names::new(SortedFile::open(&path, runtime)));
        let handle = handle.clone();
        move |batch: BatchLease| {
            let (names, handle) = (Rc::clone(&names), handle.clone());
            async move { answer(&names, &handle, batch).await }
        }
    })?;
    println!("{stats}");
    Ok(())
}

/// What a client asked, and the way of the answer.
struct Question {
    path: ReplyPath,
    asker: SocketAddrV4,
    sequence: Option<u32>,
    id: u32,
    name: Vec<u8>,
}

/// Answers at once what is known, and then, without the batch, what has to be read.
async fn answer(names: &Names, handle: &Handle, batch: BatchLease) {
    let mut to_read = Vec::new();
    for datagram in &batch {
        let messages: Vec<_> = ca::messages(datagram.payload()).map_while(Result::ok).collect();
        let sequence = messages.iter().find_map(ca::Message::sequence);
        let searches = messages.iter().filter_map(|message| message.search().ok());
        for search in searches {
            let (path, asker) = (datagram.reply_path(), datagram.source());
            match names.known(search.name) {
                Some(Some(server)) => {
                    batch.reply_by(path, asker, reply(sequence, search.id, server).datagram());
                }
                Some(None) => {} // no such name
                None => {
                    let (id, name) = (search.id, search.name.to_vec());
                    to_read.push(Question { path, asker, sequence, id, name });
                }
            }
        }
    }
    drop(batch); // its replies leave; nothing is held up by what has to be read
    for Question { path, asker, sequence, id, name } in to_read {
        if let Some(server) = names.read(name).await {
            // The statistics count what is refused; the asker asks again.
            let _ = handle.reply_by(path, asker, reply(sequence, id, server).datagram());
        }
    }
}

fn reply(sequence: Option<u32>, id: u32, server: SocketAddrV4) -> ca::ReplyWriter {
    let mut reply = ca::ReplyWriter::new();
    reply.begin(sequence);
    reply.push(id, server);
    reply
}

/// The names of the file, and what is known of them.
struct Names {
    file: SortedFile,
    known: RefCell<HashMap<Vec<u8>, Option<SocketAddrV4>>>,
}

impl Names {
    fn new(file: SortedFile) -> Self {
        Self { file, known: RefCell::default() }
    }

    /// The server of a name that was read before; `None` if it was not.
    fn known(&self, name: &[u8]) -> Option<Option<SocketAddrV4>> {
        self.known.borrow().get(name).copied()
    }

    async fn read(&self, name: Vec<u8>) -> Option<SocketAddrV4> {
        let line = self.file.find(&name).await;
        let server = line.and_then(|line| {
            let server = line.strip_prefix(name.as_slice())?.trim_ascii();
            str::from_utf8(server).ok()?.parse().ok()
        });
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN_COUNT_MAX {
            known.clear(); // simple, and bounded; asking again costs a read
        }
        known.insert(name, server);
        server
    }
}
