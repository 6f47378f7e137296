//! Looking up the names of whole datagrams together, in one table or in several.

use std::{net::SocketAddrV4, sync::Arc};

use super::Protocol;

/// Who knows the servers of names: a [`NameTable`](super::NameTable), a stack of them, or a table
/// of your own.
///
/// In a stack, which is a slice, the first table that has a name decides.
///
/// ```
/// use nicring::search::{Lookup, NameTable, Protocol};
///
/// let mut file = NameTable::builder();
/// file.insert(Protocol::Ca, "ioc1:temp", "192.0.2.7:5064".parse()?)?;
/// let mut live = NameTable::builder();
/// live.insert(Protocol::Ca, "ioc1:temp", "192.0.2.8:5064".parse()?)?;
/// live.insert(Protocol::Ca, "ioc2:temp", "192.0.2.9:5064".parse()?)?;
/// let tables = [file.build(), live.build()];
///
/// let names: [&[u8]; 3] = [b"ioc1:temp", b"ioc2:temp.EGU", b"elsewhere"];
/// let mut servers = [None; 3];
/// tables.lookup_all(Protocol::Ca, &names, &mut servers);
/// assert_eq!(servers[0], Some("192.0.2.7:5064".parse()?), "that of the first table");
/// assert_eq!(servers[1], Some("192.0.2.9:5064".parse()?), "that of the record");
/// assert_eq!(servers[2], None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Lookup {
    /// Writes down the server of each name that it has. Places that are not `None` stay as they
    /// are: an earlier table of a stack had those names.
    ///
    /// A [`NameTable`](super::NameTable) with millions of names finds names several times as fast
    /// together as one by one, because it waits for the memory of all of them at once.
    ///
    /// # Panics
    ///
    /// May panic if there are not as many places for servers as names.
    fn lookup_all(&self, protocol: Protocol, names: &[&[u8]], servers: &mut [Option<SocketAddrV4>]);
}

impl<T: Lookup> Lookup for [T] {
    fn lookup_all(
        &self,
        protocol: Protocol,
        names: &[&[u8]],
        servers: &mut [Option<SocketAddrV4>],
    ) {
        self.iter().for_each(|table| table.lookup_all(protocol, names, servers));
    }
}

/// Looks up in what a type holds or refers to.
macro_rules! look_up_in {
    ($([$($generic:tt)*] $outer:ty: $inner:ty;)*) => { $(
        impl<$($generic)*> Lookup for $outer {
            fn lookup_all(
                &self,
                protocol: Protocol,
                names: &[&[u8]],
                servers: &mut [Option<SocketAddrV4>],
            ) {
                let inner: &$inner = self;
                inner.lookup_all(protocol, names, servers);
            }
        }
    )* };
}

look_up_in! {
    [T: Lookup, const COUNT: usize] [T; COUNT]: [T];
    [T: Lookup] Vec<T>: [T];
    [T: Lookup + ?Sized] &T: T;
    [T: Lookup + ?Sized] Arc<T>: T;
    [T: Lookup + ?Sized] Box<T>: T;
}
