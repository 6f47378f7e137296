//! The fields of records: which name a name is looked up by when the table does not have it.

use std::{fmt, str::FromStr};

use super::bytes;

/// Whether a server of a record is found by the names of the record's fields too.
///
/// A client may ask for `ioc1:temp.EGU`. An IOC that has the record `ioc1:temp` has that field.
/// What a table cannot know is which fields a record has: an IOC answers for `.EGU`, and is silent
/// about `.NOSUCH`. Whoever asks for a field that does not exist, and is sent to the IOC, is
/// refused there and comes back, pvxs clients each second.
///
/// ```
/// use nicring::search::Fields;
///
/// assert_eq!("known".parse(), Ok(Fields::Known));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Fields {
    /// Any text behind the dot is a field. No client of a record misses an answer.
    #[default]
    Any,
    /// What looks like a field: a capital letter, and then capital letters and digits, or nothing
    /// at all. Behind it there may be `$`, a filter `{...}` or a range `[...]`.
    Known,
    /// A name is a name, whatever dots it has.
    None,
}

impl Fields {
    /// `any`, `known` or `none`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Known => "known",
            Self::None => "none",
        }
    }

    /// The names to look up in place of `name`, in order.
    ///
    /// The record of an IOC has no dot in its name: it is what stands before the first one (EPICS
    /// Base, `dbChannelCreate`). A braced part of a name belongs to the record, unless it follows
    /// its dot. PVA names of other servers may have dots: they end at the last dot before a filter.
    pub(super) fn records_of(self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let first_dot = match self {
            Self::None => None,
            _ => bytes::find(b'.', name),
        };
        let last_dot = first_dot.and_then(|first| {
            let is_filter = |&byte: &u8| byte == b'{';
            let end = name[first..].iter().position(is_filter).map_or(name.len(), |at| first + at);
            name[..end].iter().rposition(|&byte| byte == b'.')
        });
        let last_dot = last_dot.filter(|last| Some(*last) != first_dot);
        let is_field = move |dot: &usize| self == Self::Any || looks_like_a_field(&name[dot + 1..]);
        first_dot.into_iter().chain(last_dot).filter(is_field).map(|dot| &name[..dot])
    }
}

/// See [`Fields::Known`].
fn looks_like_a_field(text: &[u8]) -> bool {
    let is_of_name =
        |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let len = text.iter().take_while(|byte| is_of_name(byte)).count();
    let (field, rest) = text.split_at(len);
    let rest = rest.strip_prefix(b"$").unwrap_or(rest);
    let is_whole = rest.is_empty() || rest.starts_with(b"{") || rest.starts_with(b"[");
    is_whole && field.first().is_none_or(u8::is_ascii_uppercase)
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fields {
    type Err = FieldsError;

    fn from_str(text: &str) -> Result<Self, FieldsError> {
        let all = [Self::Any, Self::Known, Self::None];
        all.into_iter().find(|fields| fields.name() == text).ok_or(FieldsError)
    }
}

/// The error for a text that is none of `any`, `known` and `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldsError;

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected any, known or none")
    }
}

impl std::error::Error for FieldsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_records(fields: Fields, rows: &[(&str, &[&str])]) {
        for (name, expected) in rows {
            let records: Vec<_> = fields.records_of(name.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|record| record.as_bytes()).collect();
            assert_eq!(records, expected, "{name}");
        }
    }

    #[test]
    fn a_record_is_what_stands_before_the_first_dot_and_braces_may_be_part_of_it() {
        assert_records(
            Fields::Any,
            &[
                ("ioc1:temp", &[]),
                ("ioc1:temp.EGU", &["ioc1:temp"]),
                ("ioc1:temp.", &["ioc1:temp"]),
                ("XF:31IDA-OP{Tbl-Ax:X1}Mtr", &[]),
                ("XF:31IDA-OP{Tbl-Ax:X1}Mtr.VAL", &["XF:31IDA-OP{Tbl-Ax:X1}Mtr"]),
                (r#"XF{DET:1}.VAL{"dbnd":{"d":1.5}}"#, &["XF{DET:1}"]),
                (r#"XF{DET:1}.{"ts":{}}"#, &["XF{DET:1}"]),
                ("ioc1:temp.VAL.EGU", &["ioc1:temp", "ioc1:temp.VAL"]),
                ("ioc1:a.b.DESC$", &["ioc1:a", "ioc1:a.b"]),
                (r#"ioc1:a.b.VAL{"dbnd":{"d":1.5}}"#, &["ioc1:a", "ioc1:a.b"]),
                (r#"ioc1:temp{"d":1}"#, &[]),
                (".", &[""]),
            ],
        );
    }

    #[test]
    fn fields_may_have_to_look_like_some_or_be_none() {
        assert_records(
            Fields::Known,
            &[
                ("ioc1:temp.EGU", &["ioc1:temp"]),
                ("ioc1:temp.", &["ioc1:temp"]),
                ("ioc1:temp.DESC$", &["ioc1:temp"]),
                ("ioc1:temp.INP1", &["ioc1:temp"]),
                ("ioc1:wave.VAL[1:3]", &["ioc1:wave"]),
                (r#"ioc1:temp.VAL{"dbnd":{"d":1.5}}"#, &["ioc1:temp"]),
                (r#"ioc1:temp.{"ts":{}}"#, &["ioc1:temp"]),
                ("ioc1:temp.val", &[]),
                ("ioc1:temp.1A", &[]),
                ("ioc1:temp.VAL EGU", &[]),
                ("ioc1:a.b.EGU", &["ioc1:a.b"]),
            ],
        );
        assert_records(Fields::None, &[("ioc1:temp.EGU", &[]), ("ioc1:a.b.c", &[])]);
    }
}
