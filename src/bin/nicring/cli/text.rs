//! Text for people: where it goes, and how numbers and tables look.

use std::{
    io::{self, Write},
    time::Duration,
};

/// Where lines for people go.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    is_stderr: bool,
}

impl Console {
    /// Standard output, or standard error if standard output is for a JSON object only.
    pub fn new(has_json: bool) -> Self {
        Self { is_stderr: has_json }
    }

    pub fn to_stderr() -> Self {
        Self { is_stderr: true }
    }

    /// Prints a line at once. Errors are ignored: a reader that has gone is no reason to stop
    /// serving.
    pub fn say(self, line: &str) {
        let _ = if self.is_stderr {
            writeln!(io::stderr().lock(), "{line}")
        } else {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{line}").and_then(|()| stdout.flush())
        };
    }
}

/// A name that others have chosen, as it may be written to a terminal or a log.
pub fn printable(name: &str) -> String {
    if name.chars().any(char::is_control) {
        name.escape_debug().to_string()
    } else {
        name.to_owned()
    }
}

/// The width of the terminals that lines for people have to fit.
const WIDTH: usize = 80;

/// A text behind a head. Further lines are indented like the first.
pub fn wrapped(head: &str, text: &str) -> Vec<String> {
    let indent = head.chars().count();
    let mut lines = Vec::new();
    let mut line = head.to_owned();
    let mut len = indent;
    for word in text.split_whitespace() {
        let word_len = word.chars().count();
        if len > indent && len + 1 + word_len > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            len = indent;
        }
        if len > indent {
            line.push(' ');
            len += 1;
        }
        line.push_str(word);
        len += word_len;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time to three digits in the unit that suits it.
pub fn short(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => (ns, "ns"),
        _ if ns < 1e6 => (ns / 1e3, "us"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// A share of a whole as a percentage.
pub fn percent(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0 %".to_owned(),
        _ => format!("{:.3} %", part as f64 * 100.0 / whole as f64),
    }
}

/// Formats rows of cells as text; the first row holds the heads. The first column is aligned left,
/// the others right.
pub fn table(rows: &[Vec<String>]) -> String {
    let column_count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..column_count).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_wrapped_behind_its_head() {
        assert_eq!(wrapped("  head  ", ""), ["  head"]);
        assert_eq!(wrapped("  head  ", "short"), ["  head  short"]);
        let lines = wrapped("  head  ", &"word ".repeat(30));
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:#?}");
        assert!(lines[1].starts_with("        word"), "{lines:#?}");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let texts = [812, 1_234, 56_789, 123_456_789, 2_000_000_000]
            .map(|ns| short(Duration::from_nanos(ns)));
        assert_eq!(texts, ["812 ns", "1.23 us", "56.8 us", "123 ms", "2.00 s"]);
    }

    #[test]
    fn a_table_aligns_its_columns() {
        let rows = [["NIC", "heard"], ["lo", "1,000"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "NIC  heard\nlo   1,000");
    }
}
