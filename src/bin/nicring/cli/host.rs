//! What Linux reports about itself, this process, and the holders of a port.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    path::Path,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
    socket::{getsockopt, setsockopt, sockopt},
    time::TimeValLike,
};

use super::{port_holders::Holder, text::printable};

/// Whether the loopback interface hears 127.255.255.255.
pub const HAS_LOOPBACK_BROADCAST: bool = true;

/// The CPU time of the calling thread, user and system time together.
pub fn thread_cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    let us = (usage.user_time() + usage.system_time()).num_microseconds();
    Some(Duration::from_micros(us.try_into().ok()?))
}

/// Raises the limit of open files as far as this process may: each NIC takes several sockets. The
/// soft limit is low for the sake of programs that use select(2).
pub fn raise_open_files_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < hard {
            // It stays as it is where a sandbox forbids it, and errors name it if it is too low.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}

/// Facts that decide what works here, each with its meaning.
pub fn facts() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let uring_disabled = match read("/proc/sys/kernel/io_uring_disabled").as_deref() {
        None if read("/proc/sys/kernel/osrelease").is_none() => {
            "unknown: /proc/sys cannot be read here".to_owned()
        }
        None => "no such setting: this kernel does not restrict io_uring by sysctl".to_owned(),
        Some("0") => "0: anyone may use io_uring".to_owned(),
        Some("1") => "1: io_uring is for CAP_SYS_ADMIN and kernel.io_uring_group only".to_owned(),
        Some(value) => format!("{value}: nobody may use io_uring"),
    };
    let rmem_max = match read("/proc/sys/net/core/rmem_max") {
        None => "unknown".to_owned(),
        Some(bytes) => format!("{bytes} bytes: the most that --recv-buffer-bytes gives"),
    };
    vec![
        ("kernel", format!("Linux {release}, {}", std::env::consts::ARCH)),
        ("kernel.io_uring_disabled", uring_disabled),
        ("RLIMIT_MEMLOCK", memlock_limit(&read("/proc/self/limits").unwrap_or_default())),
        ("RLIMIT_NOFILE", open_files_limit()),
        ("net.core.rmem_max", rmem_max),
        ("net.core.wmem_max", send_buffers(read("/proc/sys/net/core/wmem_max"))),
    ]
}

/// What an engine asks for, in bytes.
const SEND_BUFFER_BYTES: u64 = 4 << 20;

fn send_buffers(wmem_max: Option<String>) -> String {
    let Some(bytes) = wmem_max.and_then(|bytes| bytes.parse::<u64>().ok()) else {
        return "unknown".to_owned();
    };
    let granted = socket_bytes();
    if granted >= SEND_BUFFER_BYTES {
        return format!("{bytes} bytes; senders get {granted}, enough");
    }
    format!(
        "{bytes} bytes; senders get {granted}: hosts that are gone may keep answers from others; \
         4194304 is enough, or CAP_NET_ADMIN"
    )
}

/// The send buffer that a sender gets.
fn socket_bytes() -> u64 {
    let open = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        if setsockopt(&socket, sockopt::SndBufForce, &(SEND_BUFFER_BYTES as usize)).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &(SEND_BUFFER_BYTES as usize))?;
        }
        Ok::<_, std::io::Error>(getsockopt(&socket, sockopt::SndBuf)?)
    };
    open().map_or(0, |bytes| bytes as u64)
}

fn open_files_limit() -> String {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) => format!("{limit}; a NIC takes about six a port"),
        Err(_) => "unknown".to_owned(),
    }
}

fn memlock_limit(limits: &str) -> String {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft {
        None => "unknown".to_owned(),
        Some("unlimited") => "unlimited".to_owned(),
        Some(bytes) => format!("{bytes} bytes"),
    }
}

/// Whether somebody holds a UDP port; `None` if the kernel does not say.
pub fn is_held(port: u16) -> Option<bool> {
    Some(port != 0 && !sockets_at(port)?.is_empty())
}

/// The sockets at a UDP port; `None` if the kernel does not list them.
fn sockets_at(port: u16) -> Option<Vec<Socket>> {
    let mut sockets = Vec::new();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        match fs::read_to_string(table) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(parse_socket)),
            Err(_) if table.ends_with('6') => {} // a kernel without IPv6
            Err(_) => return None,
        }
    }
    sockets.retain(|socket| socket.port == port);
    Some(sockets)
}

/// The sockets bound to a UDP port in this network namespace, with the processes that hold them, as
/// far as this process may see.
pub fn port_holders(port: u16) -> Vec<Holder> {
    let sockets = sockets_at(port).unwrap_or_default();
    let mut holders = Vec::new();
    let inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let owners = if inodes.is_empty() { Vec::new() } else { owners(&inodes) };
    for socket in &sockets {
        let owned = owners.iter().filter(|owner| owner.inode == socket.inode);
        let before = holders.len();
        holders.extend(owned.map(|owner| Holder {
            process: Some((owner.pid, owner.program.clone())),
            address: socket.address,
        }));
        if holders.len() == before {
            holders.push(Holder { process: None, address: socket.address });
        }
    }
    holders.sort();
    holders.dedup();
    holders
}

struct Socket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// A line of /proc/net/udp or udp6: `0: 0100007F:13C8 00000000:0000 07 ... inode ...`.
fn parse_socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    Some(Socket {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.nth(7)?.parse().ok()?,
    })
}

/// Parses an address: 32-bit words in hexadecimal, each in the machine's own byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut bytes = [0; 16];
    for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&word(at)?);
    }
    Some(Ipv6Addr::from(bytes).to_canonical())
}

struct Owner {
    pid: u32,
    program: String,
    inode: u64,
}

/// The processes that have one of these sockets open.
fn owners(inodes: &HashSet<u64>) -> Vec<Owner> {
    let mut owners = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
        for inode in sockets_of(&process.path()) {
            if inodes.contains(&inode) {
                let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                owners.push(Owner { pid, program: printable(program.trim()), inode });
            }
        }
    }
    owners
}

fn sockets_of(process: &Path) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_holder_of_a_port_is_found_by_name_and_address() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let holders = port_holders(socket.local_addr().unwrap().port());
        let this = holders.iter().find(|holder| {
            holder.process.as_ref().is_some_and(|(pid, _)| *pid == std::process::id())
        });
        let this = this.expect("this process is seen");
        assert_eq!(this.address, IpAddr::from(Ipv4Addr::LOCALHOST));
        assert!(!this.process.as_ref().unwrap().1.is_empty());
    }

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        let hex = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert_eq!(parse_address(&hex([127, 0, 0, 1])), Some(Ipv4Addr::LOCALHOST.into()));
        let any = "00000000000000000000000000000000";
        assert_eq!(parse_address(any), Some(Ipv6Addr::UNSPECIFIED.into()));
        assert_eq!(parse_address("7F"), None);
    }

    #[test]
    fn cpu_time_of_a_thread_grows() {
        let before = thread_cpu().unwrap();
        let work: u64 = (0..20_000_000u64).map(std::hint::black_box).sum();
        assert!(thread_cpu().unwrap() > before, "{work}");
    }
}
