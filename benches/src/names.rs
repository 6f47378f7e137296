//! The names that servers of the benches know, and the order in which they are asked for.

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::search::{NameTable, Protocol};

/// A name that servers know: they know those from 0 up to the size of their table.
#[must_use]
pub fn name(number: u32) -> String {
    let mut text = String::new();
    push_name(number, true, &mut text);
    text
}

/// Appends [`name`], or one of the same length that no server knows.
///
/// It is put together digit by digit in a few ns. A list of millions of names would be slower to
/// read at random, and would take the servers' share of the CPUs' common cache.
pub fn push_name(number: u32, is_known: bool, text: &mut String) {
    let mut bytes = *b"bench:dev00000:channel00";
    if !is_known {
        bytes[6..9].copy_from_slice(b"nil");
    }
    let mut rest = number;
    for position in [23, 22, 13, 12, 11, 10, 9] {
        bytes[position] += (rest % 10) as u8;
        rest /= 10;
    }
    text.push_str(std::str::from_utf8(&bytes).expect("ASCII"));
}

/// The number of the name that is asked for as the `number`th: all of a table, once each, in an
/// order in which neighbours lie far apart. The factor is a prime, and so has no divisor in common
/// with the size of a table.
#[must_use]
pub fn shuffled(number: u64, name_count: u32) -> u32 {
    (number.wrapping_mul(2_654_435_761) % u64::from(name_count)) as u32
}

/// A table of [`name`] 0 and up for a protocol.
///
/// # Panics
///
/// If it has more than ten million.
#[must_use]
pub fn table(protocol: Protocol, name_count: u32) -> NameTable {
    assert!(name_count <= 10_000_000, "seven digits tell the names apart");
    let server = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 5075);
    let mut names = NameTable::builder();
    let mut text = String::new();
    for number in 0..name_count {
        text.clear();
        push_name(number, true, &mut text);
        names.insert(protocol, &text, server).expect("a name like others");
    }
    names.build()
}
