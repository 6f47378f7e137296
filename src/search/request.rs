//! SEARCH of either protocol, for programs that ask: test tools, monitors, load generators.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Protocol, Reject, ca, pva};

/// What stands before the names in a [`Request`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The number that replies repeat.
    pub sequence: u32,
    /// Whether it goes to one host, not to all: PVA says so in the request.
    pub is_unicast: bool,
    /// The port that PVA replies go to. CA replies go to the port that sent the request.
    pub reply_port: u16,
}

/// Writes SEARCH requests of one of the protocols, as many names in a datagram as fit.
///
/// ```
/// use nicring::search::{Protocol, Request, RequestHead};
///
/// for protocol in Protocol::ALL {
///     let mut request = Request::new(protocol);
///     request.begin(RequestHead { sequence: 7, is_unicast: false, reply_port: 40_000 });
///     assert!(request.push(42, b"ioc1:temp"));
///     assert_eq!(request.name_count(), 1);
/// }
/// ```
#[derive(Clone, Debug)]
pub enum Request {
    /// Of Channel Access.
    Ca(ca::RequestWriter),
    /// Of PVAccess.
    Pva(pva::RequestWriter),
}

impl Request {
    /// A writer with room for a datagram. [`begin`](Self::begin) must begin the datagram.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Ca => Self::Ca(ca::RequestWriter::new()),
            Protocol::Pva => Self::Pva(pva::RequestWriter::new()),
        }
    }

    /// The protocol it writes.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Ca(_) => Protocol::Ca,
            Self::Pva(_) => Protocol::Pva,
        }
    }

    /// Begins the next datagram.
    pub fn begin(&mut self, head: RequestHead) {
        match self {
            Self::Ca(request) => request.begin(Some(head.sequence)),
            Self::Pva(request) => request.begin(pva::SearchHead {
                byte_order: pva::ByteOrder::Little,
                sequence: head.sequence,
                flags: if head.is_unicast { pva::FLAG_UNICAST } else { 0 },
                reply_to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, head.reply_port),
            }),
        }
    }

    /// Adds a name. Returns false if it does not fit.
    pub fn push(&mut self, id: u32, name: &[u8]) -> bool {
        match self {
            Self::Ca(request) => request.push(id, name),
            Self::Pva(request) => request.push(id, name),
        }
    }

    /// The datagram so far.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        match self {
            Self::Ca(request) => request.datagram(),
            Self::Pva(request) => request.datagram(),
        }
    }

    /// How many names it asks for.
    #[must_use]
    pub fn name_count(&self) -> usize {
        match self {
            Self::Ca(request) => request.name_count(),
            Self::Pva(request) => request.name_count(),
        }
    }
}

/// Calls `with` for the id of each name that the server has, according to its datagram.
///
/// ```
/// use nicring::search::{Protocol, answered_ids, ca};
///
/// let mut reply = ca::ReplyWriter::new();
/// reply.begin(Some(7));
/// reply.push(42, "192.0.2.7:5064".parse()?);
/// let mut ids = Vec::new();
/// answered_ids(Protocol::Ca, reply.datagram(), |id| ids.push(id))?;
/// assert_eq!(ids, [42]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If the datagram cannot be read to its end. `with` was called for the ids before that place.
pub fn answered_ids(
    protocol: Protocol,
    datagram: &[u8],
    mut with: impl FnMut(u32),
) -> Result<(), Reject> {
    match protocol {
        Protocol::Ca => {
            for message in ca::messages(datagram) {
                let message = message?;
                if message.command == ca::SEARCH {
                    with(message.search_reply()?.id);
                }
            }
        }
        Protocol::Pva => {
            for message in pva::messages(datagram) {
                let message = message?;
                if message.command != pva::SEARCH_RESPONSE {
                    continue;
                }
                let response = message.search_response()?;
                if response.found {
                    response.ids().for_each(&mut with);
                }
            }
        }
    }
    Ok(())
}
