//! A device of BACnet/IP that can be found: it answers Who-Is by I-Am (ASHRAE 135, annex J), which
//! controllers of buildings broadcast on every subnet. A stranger to EPICS with the same needs:
//! each broadcast heard once, and answered by the NIC that it came by.
//!
//! `cargo run --example bacnet_device -- 260001`, the device's number; on another host any BACnet
//! client, such as bacpypes3's `app.who_is()`.

use std::{net::SocketAddrV4, ops::ControlFlow};

use nicring::{Batch, Datagram, Egress, Engine};

/// The port of BACnet/IP, 0xBAC0.
const PORT: u16 = 47808;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = std::env::args().nth(1).map_or(Ok(260_001), |number| number.parse())?;
    let engine = Engine::builder().port(PORT).open()?;
    println!("device {device} on {}", engine.handle().heard_nics());
    let announcement = i_am(device);
    let handle = engine.handle();
    ctrlc::set_handler(move || handle.stop())?;
    let stats = engine.run(|batch| {
        for datagram in batch {
            if who_is(datagram.payload()).is_some_and(|wanted| wanted.contains(&device)) {
                announce(batch, &datagram, &announcement);
            }
        }
        ControlFlow::Continue(())
    })?;
    println!("{stats}");
    Ok(())
}

/// Everyone on the subnet is to know: I-Am goes to the broadcast address of the NIC that heard the
/// question, from its own address. Where there is none the asker alone is told.
fn announce(batch: &Batch, datagram: &Datagram<'_>, announcement: &[u8]) {
    let asker = *datagram.source().ip();
    let own = batch.nic(datagram).and_then(|nic| {
        let own = nic.addresses.iter().find(|own| own.contains(asker))?;
        Some((nic.index, own.address, own.broadcast?))
    });
    match own {
        Some((index, address, broadcast)) => {
            let egress = Egress::by_nic(index).with_source(address);
            batch.send(egress, SocketAddrV4::new(broadcast, PORT), announcement);
        }
        None => _ = batch.reply(datagram, announcement),
    }
}

/// The devices that a datagram asks for; `None` if it is no Who-Is. Total: any bytes may come.
fn who_is(datagram: &[u8]) -> Option<std::ops::RangeInclusive<u32>> {
    let npdu = match datagram {
        [0x81, 0x0a | 0x0b, _, _, npdu @ ..] => npdu, // from the link
        [0x81, 0x04, _, _, _, _, _, _, _, _, npdu @ ..] => npdu, // from another link, by a router
        _ => return None,
    };
    match apdu(npdu)? {
        [0x10, 0x08] => Some(0..=u32::MAX),
        // Two context tags, each with its length in the lower three bits.
        [0x10, 0x08, range @ ..] => {
            let (low, rest) = tagged(range, 0x08)?;
            let (high, _) = tagged(rest, 0x18)?;
            Some(low..=high)
        }
        _ => None,
    }
}

/// What the network layer carries; `None` if that is a message of its own.
fn apdu(npdu: &[u8]) -> Option<&[u8]> {
    let [1, control, rest @ ..] = npdu else { return None };
    let mut rest = rest;
    let (has_destination, has_source) = (control & 0x20 != 0, control & 0x08 != 0);
    for is_there in [has_destination, has_source] {
        if is_there {
            let [_, _, address_len, after @ ..] = rest else { return None };
            rest = after.get(usize::from(*address_len)..)?;
        }
    }
    let hop_count = usize::from(has_destination);
    (control & 0x80 == 0).then(|| rest.get(hop_count..))?
}

/// An unsigned number behind a tag, and what follows it.
fn tagged(bytes: &[u8], tag: u8) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let len = usize::from(first & 0x07);
    if first & 0xf8 != tag || !(1..=4).contains(&len) || rest.len() < len {
        return None;
    }
    let (number, rest) = rest.split_at(len);
    Some((number.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)), rest))
}

fn i_am(device: u32) -> Vec<u8> {
    let [_, high, middle, low] = device.to_be_bytes();
    let mut datagram = vec![0x81, 0x0b, 0, 0]; // an original broadcast; its length is below
    datagram.extend([0x01, 0x00]); // the network layer: no destination, no source
    datagram.extend([0x10, 0x00]); // an unconfirmed request: I-Am
    datagram.extend([0xc4, 0x02, high, middle, low]); // the object: device (8), shifted by 22 bits
    datagram.extend([0x22, 0x05, 0xc4]); // takes 1,476 bytes
    datagram.extend([0x91, 0x03]); // without segments
    datagram.extend([0x21, 0x0f]); // the vendor
    datagram[3] = datagram.len() as u8;
    datagram
}
