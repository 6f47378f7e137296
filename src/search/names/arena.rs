//! How a name lies in the arena: its server, its length with its protocol, and its bytes.

use std::net::SocketAddrV4;

use crate::search::Protocol;

/// Address, port, and the length of the name that follows. The top bit of the length is the
/// protocol.
pub(super) const HEAD_LEN: usize = 8;
const PVA_BIT: u16 = 0x8000;

/// One name as it lies in the arena.
pub(super) struct Record<'a> {
    pub protocol: Protocol,
    pub server: SocketAddrV4,
    pub name: &'a [u8],
}

impl<'a> Record<'a> {
    pub fn append_to(&self, arena: &mut Vec<u8>) {
        arena.extend_from_slice(&self.server.ip().octets());
        arena.extend_from_slice(&self.server.port().to_be_bytes());
        arena.extend_from_slice(&kind_and_len(self.protocol, self.name).to_be_bytes());
        arena.extend_from_slice(self.name);
    }

    /// `None` at the end of the arena.
    pub fn read(arena: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = arena.get(at..)?.split_first_chunk()?;
        let head = Head(*head);
        let bits = head.kind_and_len();
        Some(Self {
            protocol: if bits & PVA_BIT == 0 { Protocol::Ca } else { Protocol::Pva },
            server: head.server(),
            name: rest.get(..usize::from(bits & !PVA_BIT))?,
        })
    }
}

/// What stands before a name.
#[derive(Clone, Copy)]
pub(super) struct Head([u8; HEAD_LEN]);

impl Head {
    pub const EMPTY: Self = Self([0; HEAD_LEN]);

    /// That of the record at a place where one lies.
    #[inline]
    pub fn read(arena: &[u8], at: u32) -> Option<Self> {
        arena.get(at as usize..)?.first_chunk().copied().map(Self)
    }

    /// Whether a name of this length and protocol follows.
    #[inline]
    pub fn is_of(self, protocol: Protocol, name: &[u8]) -> bool {
        self.kind_and_len() == kind_and_len(protocol, name)
    }

    #[inline]
    pub fn server(self) -> SocketAddrV4 {
        let [a, b, c, d, port @ .., _, _] = self.0;
        SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes(port))
    }

    fn kind_and_len(self) -> u16 {
        let [.., high, low] = self.0;
        u16::from_be_bytes([high, low])
    }
}

fn kind_and_len(protocol: Protocol, name: &[u8]) -> u16 {
    let bit = if protocol == Protocol::Pva { PVA_BIT } else { 0 };
    bit | name.len() as u16
}
