//! Writers of SEARCH and SEARCH_RESPONSE.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    ByteOrder, DATAGRAM_LEN_MAX, FLAG_REPLY_TO_SOURCE_PORT, FLAG_UNICAST, HEADER_BIG_ENDIAN,
    HEADER_LEN, HEADER_SERVER, MAGIC, ORIGIN_TAG, SEARCH, SEARCH_RESPONSE, SIZE_LONG, TCP, VERSION,
    messages,
};

/// One message in a buffer. Its header and its count are kept up to date as it grows.
#[derive(Clone, Debug)]
struct Growing {
    bytes: Vec<u8>,
    order: ByteOrder,
    /// Where the count of entries stands.
    count_at: usize,
    count: u16,
}

impl Default for Growing {
    fn default() -> Self {
        let bytes = Vec::with_capacity(DATAGRAM_LEN_MAX);
        Self { bytes, order: ByteOrder::Big, count_at: 0, count: 0 }
    }
}

impl Growing {
    fn begin(&mut self, order: ByteOrder, flags: u8, command: u8) {
        let order_flag = if order == ByteOrder::Big { HEADER_BIG_ENDIAN } else { 0 };
        self.order = order;
        self.bytes.clear();
        self.bytes.extend_from_slice(&[MAGIC, VERSION, flags | order_flag, command, 0, 0, 0, 0]);
    }

    /// Ends the fields before the entries.
    fn begin_entries(&mut self) {
        self.count = 0;
        self.count_at = self.bytes.len();
        self.u16(0);
        self.update();
    }

    fn has_room(&self, entry_len: usize) -> bool {
        let len = self.bytes.len();
        len > 0 && entry_len <= DATAGRAM_LEN_MAX - len
    }

    fn end_entry(&mut self) {
        self.count += 1;
        self.update();
    }

    fn update(&mut self) {
        let payload_len = (self.bytes.len() - HEADER_LEN) as u32;
        let (len_bytes, count_bytes) = (self.u32_bytes(payload_len), self.u16_bytes(self.count));
        self.bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&len_bytes);
        self.bytes[self.count_at..self.count_at + 2].copy_from_slice(&count_bytes);
    }

    fn u16_bytes(&self, value: u16) -> [u8; 2] {
        match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        }
    }

    fn u32_bytes(&self, value: u32) -> [u8; 4] {
        match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        }
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&self.u16_bytes(value));
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&self.u32_bytes(value));
    }

    /// Address and port. The address is written as IPv4-mapped IPv6.
    fn socket_address(&mut self, address: SocketAddrV4) {
        self.bytes.extend_from_slice(&address.ip().to_ipv6_mapped().octets());
        self.u16(address.port());
    }

    fn string(&mut self, string: &[u8]) {
        if size_len(string.len()) == 1 {
            self.bytes.push(string.len() as u8);
        } else {
            self.bytes.push(SIZE_LONG);
            self.u32(string.len() as u32);
        }
        self.bytes.extend_from_slice(string);
    }
}

/// How many bytes a size takes.
fn size_len(size: usize) -> usize {
    if size < usize::from(SIZE_LONG) { 1 } else { 5 }
}

/// What stands before the names in a SEARCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchHead {
    /// The byte order to write.
    pub byte_order: ByteOrder,
    /// The number that a response repeats.
    pub sequence: u32,
    /// [`FLAG_MUST_REPLY`](super::FLAG_MUST_REPLY), [`FLAG_UNICAST`](super::FLAG_UNICAST).
    pub flags: u8,
    /// Where the response goes; the address 0.0.0.0 means the sender.
    pub reply_to: SocketAddrV4,
}

/// Writes SEARCH requests, as many names in a datagram as fit.
///
/// See [the module](super) for an example.
#[derive(Clone, Debug, Default)]
pub struct RequestWriter {
    message: Growing,
}

impl RequestWriter {
    /// A writer with room for a datagram. [`begin`](Self::begin) must begin the datagram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next datagram.
    pub fn begin(&mut self, head: SearchHead) {
        let message = &mut self.message;
        message.begin(head.byte_order, 0, SEARCH);
        message.u32(head.sequence);
        message.bytes.extend_from_slice(&[head.flags, 0, 0, 0]);
        if *head.reply_to.ip() == Ipv4Addr::UNSPECIFIED {
            // As clients write it: :: and not ::ffff:0.0.0.0.
            message.bytes.extend_from_slice(&[0; 16]);
            message.u16(head.reply_to.port());
        } else {
            message.socket_address(head.reply_to);
        }
        message.bytes.push(1);
        message.string(TCP);
        message.begin_entries();
    }

    /// Adds a name. Returns false if it does not fit. A name of up to
    /// [`NAME_LEN_MAX`](crate::search::NAME_LEN_MAX) bytes always fits a datagram of its own.
    pub fn push(&mut self, id: u32, name: &[u8]) -> bool {
        if !self.message.has_room(4 + size_len(name.len()) + name.len()) {
            return false;
        }
        self.message.u32(id);
        self.message.string(name);
        self.message.end_entry();
        true
    }

    /// The datagram so far.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        &self.message.bytes
    }

    /// How many names it asks for.
    #[must_use]
    pub fn name_count(&self) -> usize {
        usize::from(self.message.count)
    }
}

/// What stands before the ids in a SEARCH_RESPONSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The byte order to write.
    pub byte_order: ByteOrder,
    /// The identity of the server.
    pub guid: [u8; 12],
    /// The number of the request.
    pub sequence: u32,
    /// The address and port that clients connect to.
    pub server: SocketAddrV4,
}

/// Writes SEARCH_RESPONSE, as many ids in a datagram as fit.
///
/// ```
/// use nicring::search::pva;
///
/// let mut response = pva::ResponseWriter::new();
/// response.begin(pva::ResponseHead {
///     byte_order: pva::ByteOrder::Big,
///     guid: *b"twelve bytes",
///     sequence: 7,
///     server: "192.0.2.7:5075".parse()?,
/// });
/// assert!(response.push(42));
///
/// let message = pva::messages(response.datagram()).next().unwrap()?;
/// let response = message.search_response()?;
/// assert_eq!(response.server_ipv4(), Some("192.0.2.7".parse()?));
/// assert!(response.found && response.ids().eq([42]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ResponseWriter {
    message: Growing,
}

impl ResponseWriter {
    /// A writer with room for a datagram. [`begin`](Self::begin) must begin the datagram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next datagram.
    pub fn begin(&mut self, head: ResponseHead) {
        let message = &mut self.message;
        message.begin(head.byte_order, HEADER_SERVER, SEARCH_RESPONSE);
        message.bytes.extend_from_slice(&head.guid);
        message.u32(head.sequence);
        message.socket_address(head.server);
        message.string(TCP);
        message.bytes.push(1); // Found.
        message.begin_entries();
    }

    /// Adds the id of a name that the server has. Returns false if it does not fit.
    pub fn push(&mut self, id: u32) -> bool {
        if !self.message.has_room(4) {
            return false;
        }
        self.message.u32(id);
        self.message.end_entry();
        true
    }

    /// The datagram so far.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        &self.message.bytes
    }

    /// How many ids it holds.
    #[must_use]
    pub fn id_count(&self) -> usize {
        usize::from(self.message.count)
    }
}

/// Appends an ORIGIN_TAG. It goes before a SEARCH that was sent to `destination`, an address of
/// this host, and that is passed on to the host's other servers.
///
/// ```
/// use nicring::search::pva;
///
/// let mut datagram = Vec::new();
/// pva::append_origin_tag(&mut datagram, "192.0.2.7".parse()?);
/// let tag = pva::messages(&datagram).next().unwrap()?;
/// assert_eq!(tag.origin()?.to_ipv4_mapped(), Some("192.0.2.7".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn append_origin_tag(datagram: &mut Vec<u8>, destination: Ipv4Addr) {
    let header = [MAGIC, VERSION, HEADER_BIG_ENDIAN, ORIGIN_TAG, 0, 0, 0, 16];
    datagram.extend_from_slice(&header);
    datagram.extend_from_slice(&destination.to_ipv6_mapped().octets());
}

/// Appends a SEARCH that a server passes on to the host's other servers: an ORIGIN_TAG, and the
/// message with what only its sender could tell written into it. `search` is the whole message,
/// which `source` sent to `destination`, an address of this host.
///
/// Returns false, and appends nothing, if it is no SEARCH.
///
/// ```
/// use nicring::search::pva;
///
/// let mut request = pva::RequestWriter::new();
/// request.begin(pva::SearchHead {
///     byte_order: pva::ByteOrder::Little,
///     sequence: 7,
///     flags: pva::FLAG_UNICAST,
///     reply_to: "0.0.0.0:40000".parse()?, // the sender
/// });
/// request.push(42, b"ioc1:temp");
/// let mut datagram = Vec::new();
/// let source = "192.0.2.99:39999".parse()?;
/// assert!(pva::append_forwarded(&mut datagram, request.datagram(), "192.0.2.7".parse()?, source));
/// let search = pva::messages(&datagram).nth(1).unwrap()?.search()?;
/// assert_eq!(search.reply_ipv4(), Some("192.0.2.99".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn append_forwarded(
    datagram: &mut Vec<u8>,
    search: &[u8],
    destination: Ipv4Addr,
    source: SocketAddrV4,
) -> bool {
    let Some(Ok(message)) = messages(search).next() else { return false };
    let Ok(parsed) = message.search() else { return false };
    append_origin_tag(datagram, destination);
    let start = datagram.len();
    datagram.extend_from_slice(&search[..HEADER_LEN + message.payload.len()]);
    // The header, the sequence and the flags with three spare bytes; then address and port.
    let fields = &mut datagram[start + HEADER_LEN + 4..];
    // Whoever hears it is not to pass it on once more.
    fields[0] &= !FLAG_UNICAST;
    if parsed.wants_source_port() {
        fields[0] &= !FLAG_REPLY_TO_SOURCE_PORT;
        let port = match message.byte_order {
            ByteOrder::Little => source.port().to_le_bytes(),
            ByteOrder::Big => source.port().to_be_bytes(),
        };
        fields[20..22].copy_from_slice(&port);
    }
    if parsed.reply_ipv4() == Some(Ipv4Addr::UNSPECIFIED) {
        fields[4..20].copy_from_slice(&source.ip().to_ipv6_mapped().octets());
    }
    true
}
