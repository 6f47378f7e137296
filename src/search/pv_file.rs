//! The PV file: names and servers as text.

use std::{
    fmt,
    io::{self, BufRead, Read},
    net::SocketAddrV4,
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
/// white space between the fields. The protocol is `ca` or `pva`. The server is the IPv4 address
/// and TCP port that clients connect to. A `#` at the start of a line or after white space begins a
/// comment. Empty lines are skipped. A name may occur twice with the same server, but not with two
/// servers. `file` is what errors call the text.
///
/// # Errors
///
/// [`PvFileError`] names the place of the first mistake, what was expected and what was found.
///
/// ```
/// use nicring::search::{Protocol, read_pv_file};
///
/// let text = "# magnets\nca  ioc1:temp 192.0.2.7:5064\npva ioc1:temp 192.0.2.7:5075 # new\n";
/// let names = read_pv_file(text.as_bytes(), "pvs.txt")?;
/// assert_eq!(names.len(Protocol::Ca), 1);
///
/// let error = read_pv_file(&b"pva ioc1:temp 192.0.2.7"[..], "pvs.txt").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "pvs.txt:1:15: expected a server as ADDRESS:PORT, found `192.0.2.7`"
/// );
/// # Ok::<(), nicring::search::PvFileError>(())
/// ```
pub fn read_pv_file(mut reader: impl BufRead, file: &str) -> Result<NameTable, PvFileError> {
    let mut builder = NameTable::builder();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let mut limited = reader.by_ref().take(LINE_LEN_MAX as u64 + 1);
        let outcome = match limited.read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            Ok(_) => {
                if line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                    bytes.drain(..BYTE_ORDER_MARK.len());
                }
                read_line(&bytes, &mut builder)
            }
            Err(error) => Err(Mistake {
                at: 0,
                expected: "text that can be read".into(),
                found: format!("the error {error}"),
                source: Some(error),
            }),
        };
        outcome.map_err(|mistake| mistake.in_file(file, line, &bytes))?;
    }
    Ok(builder.build())
}

fn read_line(bytes: &[u8], builder: &mut NameTableBuilder) -> Result<(), Mistake> {
    let text = checked_text(bytes)?;
    let mut fields = Fields { text, at: 0 };
    let Some((protocol_at, protocol)) = fields.next() else { return Ok(()) };
    let protocol: Protocol = protocol
        .parse()
        .map_err(|_| Mistake::new(protocol_at, "`ca` or `pva`", quoted(protocol)))?;
    let (name_at, name) = fields.required("a name")?;
    let (server_at, server) = fields.required("a server as ADDRESS:PORT")?;
    let server = server_of(server_at, server)?;
    if let Some((extra_at, extra)) = fields.next() {
        return Err(Mistake::new(extra_at, "the end of the line or a comment", quoted(extra)));
    }
    builder.insert(protocol, name, server).map_err(|error| match error {
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

fn server_of(at: usize, text: &str) -> Result<SocketAddrV4, Mistake> {
    let server: SocketAddrV4 =
        text.parse().map_err(|_| Mistake::new(at, "a server as ADDRESS:PORT", quoted(text)))?;
    if server.port() == 0 {
        return Err(Mistake::new(at, "a port of 1 to 65535", quoted(text)));
    }
    if !is_host(*server.ip()) {
        return Err(Mistake::new(at, "the address of one host", quoted(text)));
    }
    Ok(server)
}

/// The fields of a line up to its comment, each with its place.
struct Fields<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.text[self.at..];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let field = self.text[start..].split(char::is_whitespace).next()?;
        if field.is_empty() || field.starts_with('#') {
            self.at = start;
            return None;
        }
        self.at = start + field.len();
        Some((start, field))
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
