//! The errors. Their texts name the cause and the remedy.

use std::{convert::Infallible, error, fmt, io, net::SocketAddrV4};

use crate::platform::{self, HOLDERS_COMMAND};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an engine could not be opened, or why it ended.
///
/// The text of an error names the operation, the cause and the remedy. [`Error::kind`] is stable,
/// so callers may branch on it. Trouble with a single datagram is never an error: a counter in
/// [`Stats`](crate::Stats) counts it.
///
/// ```
/// let error = nicring::Engine::builder().open().unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
/// assert_eq!(error.to_string(), "port: none given: name at least one with Builder::port");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting that no engine can be opened with; kind `InvalidInput`.
    Setting {
        /// The setting: the name of the builder's method, or of the environment variable.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The interfaces could not be listed.
    Enumerate {
        /// What the system said.
        source: io::Error,
    },
    /// A socket that listens for a NIC could not be opened.
    Socket {
        /// The system call or option that failed.
        operation: &'static str,
        /// The NIC's name.
        nic: String,
        /// Where the socket was to be bound.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// io_uring was asked for and cannot be used here; the kind is `Unsupported` or that of the
    /// cause.
    Unavailable(Unavailable),
    /// A backend that had worked failed for good; the sockets are closed.
    Backend {
        /// The operation that failed.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The engine has ended; kind `NotConnected`.
    Stopped,
    /// The engine belongs to the process that this one was forked from; kind `NotConnected`.
    Forked,
}

impl Error {
    /// The kind that callers may branch on.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Setting { .. } => io::ErrorKind::InvalidInput,
            Self::Stopped | Self::Forked => io::ErrorKind::NotConnected,
            _ => self.io_error().map_or(io::ErrorKind::Other, io::Error::kind),
        }
    }

    /// What the system said.
    pub(crate) fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Enumerate { source }
            | Self::Socket { source, .. }
            | Self::Backend { source, .. } => Some(source),
            Self::Unavailable(unavailable) => Some(&unavailable.source),
            Self::Setting { .. } | Self::Stopped | Self::Forked => None,
        }
    }

    pub(crate) fn setting(setting: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { setting, reason: reason.into() }
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { setting, reason } => write!(f, "{setting}: {reason}"),
            Self::Enumerate { source } => {
                write!(f, "listing the interfaces: {source}")?;
                if !platform::is_forbidden_by_sandboxes(source) {
                    return Ok(());
                }
                f.write_str(
                    ": on Linux it takes a netlink socket: allow it in the sandbox \
                     (RestrictAddressFamilies=AF_NETLINK in a unit of systemd)",
                )
            }
            Self::Socket { operation, nic, address, source } => {
                write!(f, "{nic}: {operation} {address}: {source}")?;
                write_socket_remedy(f, source)
            }
            Self::Unavailable(unavailable) => unavailable.fmt(f),
            Self::Backend { operation, source } => {
                write!(f, "{operation}: {source}")?;
                write_backend_remedy(f, source)
            }
            Self::Stopped => f.write_str("the engine has ended"),
            Self::Forked => f.write_str(
                "the engine belongs to the process that this one was forked from: open it after \
                 the fork",
            ),
        }
    }
}

fn write_backend_remedy(f: &mut fmt::Formatter<'_>, source: &io::Error) -> fmt::Result {
    f.write_str(match source.kind() {
        // EAGAIN of pthread_create(3).
        io::ErrorKind::WouldBlock => {
            ": no more threads may be started: raise RLIMIT_NPROC (`ulimit -u`), or TasksMax= in a \
             unit of systemd"
        }
        _ if platform::is_out_of_descriptors(source) => {
            ": raise the limit of open files (RLIMIT_NOFILE: `ulimit -n`, or LimitNOFILE= in a \
             unit of systemd)"
        }
        _ => {
            ": the engine has ended and its ports are free; open it again, on the portable backend \
             if a sandbox was applied since"
        }
    })
}

fn write_socket_remedy(f: &mut fmt::Formatter<'_>, source: &io::Error) -> fmt::Result {
    match source.kind() {
        io::ErrorKind::AddrInUse => write!(
            f,
            ": another program holds the port without sharing it, or Builder::exclusive was asked \
             for; `{HOLDERS_COMMAND}` names the holder",
        ),
        io::ErrorKind::AddrNotAvailable => f.write_str(
            ": the address has left the interface, or it is not in the kernel's table `local` \
             (`ip route show table local`), as an address of a VRF is not: only sockets in the VRF \
             hear it",
        ),
        io::ErrorKind::PermissionDenied => f.write_str(
            ": a port below 1024 needs CAP_NET_BIND_SERVICE; binding to a device needs CAP_NET_RAW \
             before Linux 5.7 (Listen::Wildcard needs neither)",
        ),
        _ if platform::is_out_of_descriptors(source) => f.write_str(
            ": each NIC takes several sockets: raise the limit of open files (RLIMIT_NOFILE: \
             `ulimit -n`, or LimitNOFILE= in a unit of systemd), or choose fewer NICs",
        ),
        _ if platform::is_out_of_memberships(source) => f.write_str(
            ": no more groups may be joined: raise net.ipv4.igmp_max_memberships, or join fewer \
             groups",
        ),
        _ => Ok(()),
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(self.io_error()?)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// Why io_uring cannot be used on this machine by this process.
///
/// Displayed as operation, error and remedy:
/// `io_uring_setup: EPERM: blocked by seccomp or by kernel.io_uring_disabled`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unavailable {
    /// The step that failed: a system call, or the name of a check.
    pub operation: &'static str,
    /// What the system said.
    pub source: io::Error,
    /// The name of the error, such as `EPERM`; empty where it has none.
    pub errno: &'static str,
    /// What is likely to be the cause, and what to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        if self.errno.is_empty() {
            write!(f, "{}", self.source)?;
        } else {
            f.write_str(self.errno)?;
        }
        write!(f, ": {}", self.remedy)
    }
}
