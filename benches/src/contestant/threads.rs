//! `std::net::UdpSocket`, one blocking thread per socket.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread,
};

use super::{BUFFER_LEN, Setup, open_sockets};
use crate::service::{Service, Way};

pub(super) fn serve(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let sockets = open_sockets(&setup, true)?.into_iter().map(UdpSocket::from);
    let sockets: Arc<[UdpSocket]> = sockets.collect();
    let start = |index| {
        let (sockets, service) = (Arc::clone(&sockets), setup.service.fork());
        thread::spawn(move || serve_one(&sockets, index, service))
    };
    let threads: Vec<_> = (0..sockets.len()).map(start).collect();
    ready();
    for thread in threads {
        thread.join().expect("no panic")?;
    }
    Ok(())
}

fn serve_one(sockets: &[UdpSocket], index: usize, mut service: Service) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let (len, SocketAddr::V4(source)) = sockets[index].recv_from(&mut buffer)? else {
            continue;
        };
        service.handle(source, &buffer[..len], &mut |way, to, payload| {
            let socket = match way {
                Way::Back(_) => &sockets[index],
                Way::Nic(nic) => &sockets[nic],
            };
            let _ = socket.send_to(payload, to);
        });
        service.received(1);
    }
}
