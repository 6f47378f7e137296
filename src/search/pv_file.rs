//! The PV file: names and servers as text.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    io::{self, BufRead, Read},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::names::is_host;
use super::{InsertError, NAME_LEN_MAX, NameTable, NameTableBuilder, Protocol};

/// The longest line, in bytes. A file without line ends is no PV file, and must not be read into
/// memory as one line.
const LINE_LEN_MAX: usize = 4096;
/// How much of a wrong text an error shows.
const SHOWN_CHARS_MAX: usize = 40;
/// Some editors begin a file with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a name table from text.
///
/// Each line is `PROTOCOL NAME SERVER`, `pva ioc1:temp 192.0.2.7:5075` for example, with any
/// white space between the fields.
///
/// - The protocol is `ca` or `pva`.
/// - The name may stand in double quotes, in which `\"` and `\\` stand for `"` and `\`; then it may
///   have blanks, begin with `#` or end with `*`. Without quotes a name that ends with `*` is a
///   pattern: it stands for all names that begin so and that no line names. The longest pattern
///   decides.
/// - The server is the IPv4 address that clients connect to, and the TCP port behind a `:`, 5064
///   for CA and 5075 for PVA unless given. The address `*` is this host, at the address that was
///   asked.
///
/// A `#` at the start of a line or after white space begins a comment. Empty lines are skipped. A
/// name may occur twice with the same server, but not with two servers. `file` is what errors call
/// the text.
///
/// # Errors
///
/// [`PvFileError`] names the place of the first mistake, what was expected and what was found.
/// [`PvFile::read`] goes on behind mistakes, and takes host names.
///
/// ```
/// use nicring::search::{Protocol, read_pv_file};
///
/// let text = "# magnets\nca  ioc1:temp 192.0.2.7\npva ioc1:temp 192.0.2.7:5075 # new\n";
/// let names = read_pv_file(text.as_bytes(), "pvs.txt")?;
/// assert_eq!(names.len(Protocol::Ca), 1);
///
/// let error = read_pv_file(&b"pva ioc1:temp 192.0.2"[..], "pvs.txt").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "pvs.txt:1:15: expected a server as ADDRESS or ADDRESS:PORT, found `192.0.2`"
/// );
/// # Ok::<(), nicring::search::PvFileError>(())
/// ```
pub fn read_pv_file(reader: impl BufRead, file: &str) -> Result<NameTable, PvFileError> {
    let read = PvFile::read_until(reader, file, None, 1);
    match read.mistakes.into_iter().next() {
        Some(mistake) => Err(mistake),
        None => Ok(read.table),
    }
}

/// A PV file that was read to its end, whatever mistakes it has.
///
/// ```
/// use nicring::search::{PvFile, Protocol};
///
/// let text = "ca a 192.0.2.7\nca b\nca c ioc7.example\nca d nowhere.example\n";
/// let file = PvFile::read(text.as_bytes(), "pvs.txt", &mut |host| {
///     (host == "ioc7.example").then(|| [192, 0, 2, 9].into())
/// });
/// assert_eq!(file.mistake_count, 1);
/// assert_eq!(file.mistakes[0].line(), 2);
/// assert_eq!(file.unknown_hosts, ["nowhere.example"]);
/// assert_eq!(file.table.len(Protocol::Ca), 2);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct PvFile {
    /// What is right in it.
    pub table: NameTable,
    /// The first 20 mistakes.
    pub mistakes: Vec<PvFileError>,
    /// How many mistakes there are. Their lines are left out of the table.
    pub mistake_count: usize,
    /// The hosts that nobody knows, each once. The lines that name them are left out of the table.
    pub unknown_hosts: Vec<String>,
    /// Whether the last line has no end: perhaps the file was not written to its end.
    pub is_cut: bool,
    /// Whether reading ended with an error: the last mistake tells it.
    pub is_incomplete: bool,
}

/// How many mistakes are kept.
const MISTAKE_COUNT_MAX: usize = 20;

/// Tells the address of a host; `None` if nobody knows it.
type Resolve<'a> = &'a mut dyn FnMut(&str) -> Option<Ipv4Addr>;

impl PvFile {
    /// Reads a text as [`read_pv_file`] does, and goes on behind mistakes. A server may be named by
    /// its host: `resolve` tells the address, and is called once for each host.
    pub fn read(
        reader: impl BufRead,
        file: &str,
        resolve: &mut dyn FnMut(&str) -> Option<Ipv4Addr>,
    ) -> Self {
        Self::read_until(reader, file, Some(resolve), usize::MAX)
    }

    /// Reads until there were so many mistakes.
    fn read_until(
        mut reader: impl BufRead,
        file: &str,
        resolve: Option<Resolve<'_>>,
        mistake_max: usize,
    ) -> Self {
        let (mut builder, mut bytes) = (NameTable::builder(), Vec::new());
        let mut hosts = Hosts { resolve, known: HashMap::new() };
        let (mut mistakes, mut mistake_count, mut is_cut) = (Vec::new(), 0, false);
        let mut is_incomplete = false;
        for line in 1.. {
            bytes.clear();
            let outcome = match next_line(&mut reader, &mut bytes) {
                Ok(false) => break,
                Ok(true) => {
                    is_cut = bytes.last() != Some(&b'\n');
                    if line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                        bytes.drain(..BYTE_ORDER_MARK.len());
                    }
                    read_line(&bytes, &mut builder, &mut hosts)
                }
                Err(error) => Err(Mistake {
                    at: 0,
                    expected: "text that can be read".into(),
                    found: format!("the error {error}"),
                    source: Some(error),
                }),
            };
            let Err(mistake) = outcome else { continue };
            is_incomplete = mistake.source.is_some();
            mistake_count += 1;
            if mistakes.len() < MISTAKE_COUNT_MAX || is_incomplete {
                mistakes.push(mistake.in_file(file, line, &bytes));
            }
            if mistake_count == mistake_max || is_incomplete {
                break;
            }
        }
        let unknown = hosts.known.into_iter().filter(|(_, address)| address.is_none());
        let mut unknown_hosts: Vec<_> = unknown.map(|(host, _)| host).collect();
        unknown_hosts.sort();
        let table = builder.build();
        Self { table, mistakes, mistake_count, unknown_hosts, is_cut, is_incomplete }
    }
}

/// Reads a line, of which no more than [`LINE_LEN_MAX`] bytes and one are kept. Returns false at
/// the end.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut limited = reader.by_ref().take(LINE_LEN_MAX as u64 + 1);
    if limited.read_until(b'\n', bytes)? == 0 {
        return Ok(false);
    }
    if bytes.len() > LINE_LEN_MAX && bytes.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
    }
    Ok(true)
}

/// The hosts that servers are named by, each looked up once.
struct Hosts<'a> {
    resolve: Option<Resolve<'a>>,
    known: HashMap<String, Option<Ipv4Addr>>,
}

fn read_line(
    bytes: &[u8],
    builder: &mut NameTableBuilder,
    hosts: &mut Hosts<'_>,
) -> Result<(), Mistake> {
    let text = checked_text(bytes)?;
    let mut fields = Fields { text, at: 0 };
    let Some((protocol_at, protocol)) = fields.next() else { return Ok(()) };
    let protocol: Protocol = protocol
        .to_ascii_lowercase()
        .parse()
        .map_err(|_| Mistake::new(protocol_at, "`ca` or `pva`", quoted(protocol)))?;
    let (name_at, name) = fields.name()?;
    let (server_at, server) = fields.required(A_SERVER)?;
    let server = server_of(server_at, server, protocol, hosts)?;
    if let Some((extra_at, extra)) = fields.next() {
        return Err(Mistake::new(extra_at, "the end of the line or a comment", quoted(extra)));
    }
    let Some(server) = server else { return Ok(()) };
    let (name, inserted) = match &name {
        Name::Whole(name) => (&**name, builder.insert(protocol, name, server)),
        Name::Beginning(name) => (*name, builder.insert_pattern(protocol, name, server)),
    };
    inserted.map_err(|error| match error {
        InsertError::Duplicate { server: known } => Mistake::new(
            server_at,
            format!("{known}, the server {} has in a line above", quoted(name)),
            server.to_string(),
        ),
        InsertError::TooLong { name_len } => Mistake::new(
            name_at,
            format!("a name of at most {NAME_LEN_MAX} bytes"),
            format!("one of {name_len}"),
        ),
        other => Mistake::new(name_at, "a name that fits the table", format!("that {other}")),
    })
}

/// The line as text without control characters.
fn checked_text(bytes: &[u8]) -> Result<&str, Mistake> {
    if bytes.len() > LINE_LEN_MAX {
        let expected = format!("a line of at most {LINE_LEN_MAX} bytes");
        return Err(Mistake::new(0, expected, "a longer one"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Mistake::new(at, "text in UTF-8", format!("the byte 0x{:02x}", bytes[at]))
    })?;
    let is_bad = |c: char| c.is_control() && !c.is_whitespace();
    if let Some((at, found)) = text.char_indices().find(|&(_, c)| is_bad(c)) {
        let found = format!("U+{:04X}", u32::from(found));
        return Err(Mistake::new(at, "no control character", found));
    }
    Ok(text)
}

const A_SERVER: &str = "a server as ADDRESS or ADDRESS:PORT";

/// The TCP port of servers, unless they have another one.
fn default_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Ca => 5064,
        Protocol::Pva => 5075,
    }
}

/// A server; `None` if its host is not known.
fn server_of(
    at: usize,
    text: &str,
    protocol: Protocol,
    hosts: &mut Hosts<'_>,
) -> Result<Option<SocketAddrV4>, Mistake> {
    let (host, port) = match text.split_once(':') {
        None => (text, default_port(protocol)),
        Some((host, port)) => match port.parse() {
            Ok(0) => return Err(Mistake::new(at, "a port of 1 to 65535", quoted(text))),
            Ok(port) => (host, port),
            Err(_) => return Err(Mistake::new(at, A_SERVER, quoted(text))),
        },
    };
    if host == "*" {
        return Ok(Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)));
    }
    let address = match (host.parse(), &mut hosts.resolve) {
        (Ok(address), _) => address,
        (Err(_), Some(resolve)) if is_host_name(host) => {
            let known = match hosts.known.get(host) {
                Some(known) => *known,
                None => {
                    let found = resolve(host);
                    hosts.known.insert(host.to_owned(), found);
                    found
                }
            };
            let Some(address) = known else { return Ok(None) };
            address
        }
        (Err(_), _) => return Err(Mistake::new(at, A_SERVER, quoted(text))),
    };
    if !is_host(address) {
        return Err(Mistake::new(at, "the address of one host", quoted(text)));
    }
    Ok(Some(SocketAddrV4::new(address, port)))
}

/// Whether this can be the name of a host (RFC 1123, section 2.1). The last part of such a name is
/// no number.
fn is_host_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !part.is_empty() && part.len() <= 63 && part.chars().all(is_allowed)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.split('.').all(is_part) && last.chars().any(|c| c.is_ascii_alphabetic())
}

/// What stands where a name has to stand.
enum Name<'a> {
    Whole(Cow<'a, str>),
    /// What all names begin with that it stands for.
    Beginning(&'a str),
}

/// The fields of a line up to its comment, each with its place.
struct Fields<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Fields<'a> {
    /// Where the next field begins.
    fn start(&self) -> usize {
        self.text.len() - self.text[self.at..].trim_start().len()
    }

    fn next(&mut self) -> Option<(usize, &'a str)> {
        let start = self.start();
        let field = self.text[start..].split(char::is_whitespace).next()?;
        if field.is_empty() || field.starts_with('#') {
            self.at = start;
            return None;
        }
        self.at = start + field.len();
        Some((start, field))
    }

    fn name(&mut self) -> Result<(usize, Name<'a>), Mistake> {
        let start = self.start();
        if !self.text[start..].starts_with('"') {
            let (at, name) = self.required("a name")?;
            let beginning = name.strip_suffix('*').map(Name::Beginning);
            return Ok((at, beginning.unwrap_or(Name::Whole(name.into()))));
        }
        let mut name = String::new();
        let mut rest = self.text[start..].char_indices().skip(1);
        loop {
            match rest.next() {
                Some((at, '"')) => {
                    self.at = start + at + 1;
                    let follows = self.text[self.at..].chars().next();
                    if follows.is_some_and(|c| !c.is_whitespace()) {
                        return Err(Mistake::new(self.at, "a blank behind the name", "none"));
                    }
                    return Ok((start, Name::Whole(name.into())));
                }
                Some((at, '\\')) => match rest.next() {
                    Some((_, c @ ('"' | '\\'))) => name.push(c),
                    _ => {
                        let expected = "`\\\"` or `\\\\` behind a backslash in quotes";
                        return Err(Mistake::new(start + at, expected, "something else"));
                    }
                },
                Some((_, c)) => name.push(c),
                None => {
                    let at = self.text.trim_end().len();
                    return Err(Mistake::new(at, "a `\"` behind the name", "the end of the line"));
                }
            }
        }
    }

    fn required(&mut self, what: &str) -> Result<(usize, &'a str), Mistake> {
        let field = self.next();
        field.ok_or_else(|| {
            let at = self.text[..self.at].trim_end().len();
            Mistake::new(at, what, "the end of the line")
        })
    }
}

fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// What is wrong in a line.
struct Mistake {
    /// Where, in bytes from the start of the line.
    at: usize,
    expected: String,
    found: String,
    source: Option<io::Error>,
}

impl Mistake {
    fn new(at: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { at, expected: expected.into(), found: found.into(), source: None }
    }

    fn in_file(self, file: &str, line: u64, bytes: &[u8]) -> PvFileError {
        let before = &bytes[..self.at.min(bytes.len())];
        PvFileError {
            file: file.into(),
            line,
            column: String::from_utf8_lossy(before).chars().count() + 1,
            expected: self.expected,
            found: self.found,
            source: self.source,
        }
    }
}

/// Why a PV file was refused; displays as `FILE:LINE:COLUMN: expected ..., found ...`.
///
/// See [`read_pv_file`] for an example.
#[derive(Debug)]
pub struct PvFileError {
    file: String,
    line: u64,
    column: usize,
    expected: String,
    found: String,
    source: Option<io::Error>,
}

impl PvFileError {
    /// The line of the mistake; the first is 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The column of the mistake, in characters; the first is 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for PvFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, expected, found, .. } = self;
        write!(f, "{file}:{line}:{column}: expected {expected}, found {found}")
    }
}

impl std::error::Error for PvFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
