//! Names by their beginning: one server for all names that begin so.

use std::{collections::HashMap, fmt, net::SocketAddrV4};

use super::Protocol;

/// The patterns of a table. The longest one that a name begins with decides.
#[derive(Clone, Default)]
pub(super) struct Patterns {
    by_protocol: [OfProtocol; 2],
}

#[derive(Clone, Default)]
struct OfProtocol {
    servers: HashMap<Box<[u8]>, SocketAddrV4>,
    /// The lengths that there are, the longest first.
    lens: Vec<usize>,
}

impl Patterns {
    /// Adds a pattern. Returns the server that it has, if that is another one.
    pub fn insert(
        &mut self,
        protocol: Protocol,
        prefix: &str,
        server: SocketAddrV4,
    ) -> Result<(), SocketAddrV4> {
        let of_protocol = &mut self.by_protocol[protocol as usize];
        if let Some(known) = of_protocol.servers.get(prefix.as_bytes()) {
            return if *known == server { Ok(()) } else { Err(*known) };
        }
        of_protocol.servers.insert(prefix.as_bytes().into(), server);
        let place = of_protocol.lens.partition_point(|len| *len > prefix.len());
        if of_protocol.lens.get(place) != Some(&prefix.len()) {
            of_protocol.lens.insert(place, prefix.len());
        }
        Ok(())
    }

    #[inline]
    pub fn find(&self, protocol: Protocol, name: &[u8]) -> Option<SocketAddrV4> {
        let OfProtocol { servers, lens } = &self.by_protocol[protocol as usize];
        let beginnings = lens.iter().filter_map(|len| name.get(..*len));
        beginnings.filter_map(|beginning| servers.get(beginning)).next().copied()
    }

    pub fn len(&self, protocol: Protocol) -> usize {
        self.by_protocol[protocol as usize].servers.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Protocol, &str, SocketAddrV4)> {
        let of_protocol = |protocol: Protocol| {
            let servers = self.by_protocol[protocol as usize].servers.iter();
            servers.map(move |(prefix, server)| {
                let prefix = std::str::from_utf8(prefix).expect("patterns are inserted as str");
                (protocol, prefix, *server)
            })
        };
        Protocol::ALL.into_iter().flat_map(of_protocol)
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
