//! Which other programs hold a port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use super::host;

/// Another program's socket at a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The process's number and the program's name; `None` if this process may not see them.
    pub process: Option<(u32, String)>,
    pub address: IpAddr,
}

impl Holder {
    pub fn program(&self) -> String {
        match &self.process {
            Some((pid, program)) => format!("{program} (pid {pid})"),
            None => "a program of another user or container".to_owned(),
        }
    }
}

/// Whether somebody holds the port. Where the system does not list its sockets, a bind tells.
pub fn is_held(port: u16) -> bool {
    if let Some(is_held) = host::is_held(port) {
        return is_held;
    }
    let bound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
    port != 0 && bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_with_a_plain_socket_is_held() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(is_held(port));
        drop(socket);
        assert!(!is_held(port));
        assert!(!is_held(0));
    }
}
