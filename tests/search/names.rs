//! The name table, and its form as a text file.

use std::{collections::HashMap, error::Error as _, io, net::SocketAddrV4};

use nicring::{
    Subnet,
    search::{InsertError, Lookup, NAME_LEN_MAX, NameTable, Protocol, PvFile, read_pv_file},
};
use proptest::prelude::*;

fn server(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new((0x0a00_0000 | number).into(), 5064)
}

#[test]
fn a_million_names_are_found_and_cost_little() {
    let mut builder = NameTable::builder();
    let mut name_bytes = 0;
    for number in 0..1_000_000u32 {
        let name = format!("area{}:device{number}:current", number % 40);
        name_bytes += name.len();
        builder.insert(Protocol::Pva, &name, server(number % 300)).unwrap();
    }
    let names = builder.build();
    assert_eq!(names.len(Protocol::Pva), 1_000_000);
    let overhead = (names.heap_bytes() - name_bytes) as f64 / 1e6;
    assert!(overhead <= 28.0, "{overhead} bytes beside those of a name");
    // Among a million names some hundred pairs have one hash.
    let texts: Vec<String> = (0..1_000_000u32)
        .map(|number| format!("area{}:device{number}:current", number % 40))
        .collect();
    let asked: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let mut servers = vec![None; asked.len()];
    Lookup::lookup_all(&names, Protocol::Pva, &asked, &mut servers);
    assert!(servers.into_iter().eq((0..1_000_000).map(|number| Some(server(number % 300)))));
    for number in (0..1_000_000u32).step_by(997) {
        let name = format!("area{}:device{number}:current", number % 40);
        assert_eq!(names.lookup(Protocol::Pva, name.as_bytes()), Some(server(number % 300)));
        assert_eq!(names.lookup(Protocol::Ca, name.as_bytes()), None);
    }
}

#[test]
fn an_empty_table_has_nothing() {
    let names = NameTable::default();
    assert!(names.is_empty() && names.iter().next().is_none());
    for name in [&b""[..], b".", b"a", b"a.b"] {
        assert_eq!(names.lookup(Protocol::Ca, name), None);
    }
    assert!(NameTable::builder().build().is_empty());
}

#[test]
fn a_name_is_itself_before_it_is_a_field() {
    let mut builder = NameTable::builder();
    builder.insert(Protocol::Pva, "group", server(1)).unwrap();
    builder.insert(Protocol::Pva, "group.part", server(2)).unwrap();
    let names = builder.build();
    for (name, expected) in [
        ("group", Some(1)),
        ("group.part", Some(2)),
        ("group.other", Some(1)),
        // What stands before the first dot comes first, as on an IOC.
        ("group.part.VAL", Some(1)),
        ("group.other.VAL", Some(1)),
        ("group.", Some(1)),
        ("group.part{\"x\":1.5}", Some(1)),
        (".group", None),
    ] {
        let found = names.lookup(Protocol::Pva, name.as_bytes());
        assert_eq!(found, expected.map(server), "{name}");
    }
}

#[test]
fn every_refusal_to_insert_leaves_the_builder_as_it_was() {
    let mut builder = NameTable::builder();
    builder.insert(Protocol::Ca, "a", server(1)).unwrap();
    let long = "x".repeat(NAME_LEN_MAX + 1);
    for (name, address, error) in [
        ("a", "10.0.0.2:5064", InsertError::Duplicate { server: server(1) }),
        ("", "10.0.0.2:5064", InsertError::Empty),
        (&long, "10.0.0.2:5064", InsertError::TooLong { name_len: 991 }),
        ("b\0", "10.0.0.2:5064", InsertError::ControlCharacter),
        ("b", "10.0.0.2:0", InsertError::Server),
        ("b", "255.255.255.255:5064", InsertError::Server),
        ("b", "239.1.1.1:5064", InsertError::Server),
    ] {
        assert_eq!(builder.insert(Protocol::Ca, name, address.parse().unwrap()), Err(error));
        assert!(!error.to_string().is_empty());
    }
    builder.insert(Protocol::Ca, "a", server(1)).unwrap();
    builder.insert(Protocol::Pva, "a", server(2)).unwrap();
    builder.insert(Protocol::Ca, &long[1..], server(3)).unwrap();
    let names = builder.build();
    assert_eq!((names.len(Protocol::Ca), names.len(Protocol::Pva)), (2, 1));
    let all: Vec<_> = names.iter().map(|(protocol, _, server)| (protocol, server)).collect();
    let ca = Protocol::Ca;
    assert_eq!(all, [(ca, server(1)), (Protocol::Pva, server(2)), (ca, server(3))]);
}

#[test]
fn a_pv_file_may_be_laid_out_freely() {
    let text = "\u{feff}# a comment\r\n\r\n  pva\tioc1:temp   192.0.2.7:5075\r\n\
        ca ioc1:temp 192.0.2.7:5064 # and why\n   # indented\n\
        ca ioc1:temp 192.0.2.7:5064\nca odd#name 192.0.2.7:5064 #\nca größe 192.0.2.7:5064";
    let names = read_pv_file(text.as_bytes(), "pvs.txt").unwrap();
    assert_eq!((names.len(Protocol::Ca), names.len(Protocol::Pva)), (3, 1));
    assert!(names.lookup(Protocol::Ca, b"odd#name").is_some());
    assert!(names.lookup(Protocol::Ca, "größe".as_bytes()).is_some());
}

#[test]
fn every_mistake_in_a_pv_file_is_shown_with_its_place() {
    let long_name = format!("ca {} 192.0.2.7:5064", "x".repeat(991));
    let long_line = format!("# {}\n", "x".repeat(5000));
    let long_word = format!("ca a 192.0.2.7:5064 {}", "y".repeat(50));
    let shown = format!("`{}...`", "y".repeat(40));
    let extra = format!("1:21: expected the end of the line or a comment, found {shown}");
    for (line, error) in [
        ("\nudp a 192.0.2.7:1", "2:1: expected `ca` or `pva`, found `udp`"),
        ("pva", "1:4: expected a name, found the end of the line"),
        ("pva  # x", "1:4: expected a name, found the end of the line"),
        (
            "ca größe",
            "1:9: expected a server as ADDRESS or ADDRESS:PORT, found the end of the line",
        ),
        ("ca größe x", "1:10: expected a server as ADDRESS or ADDRESS:PORT, found `x`"),
        ("ca a host:5064", "1:6: expected a server as ADDRESS or ADDRESS:PORT, found `host:5064`"),
        (
            "ca a [::1]:5064",
            "1:6: expected a server as ADDRESS or ADDRESS:PORT, found `[::1]:5064`",
        ),
        (
            "ca a 1.2.3.4:65536",
            "1:6: expected a server as ADDRESS or ADDRESS:PORT, found `1.2.3.4:65536`",
        ),
        ("ca \"a", "1:6: expected a `\"` behind the name, found the end of the line"),
        ("ca \"a\"b 1.2.3.4", "1:7: expected a blank behind the name, found none"),
        (
            r#"ca "a\b" 1.2.3.4"#,
            r#"1:6: expected `\"` or `\\` behind a backslash in quotes, found something else"#,
        ),
        ("ca a 192.0.2.7:0", "1:6: expected a port of 1 to 65535, found `192.0.2.7:0`"),
        ("ca a 0.0.0.0:1", "1:6: expected the address of one host, found `0.0.0.0:1`"),
        ("ca a 239.0.0.1:1", "1:6: expected the address of one host, found `239.0.0.1:1`"),
        (
            "ca a 255.255.255.255:1",
            "1:6: expected the address of one host, found `255.255.255.255:1`",
        ),
        (&long_name, "1:4: expected a name of at most 990 bytes, found one of 991"),
        (&long_word, &extra),
        ("ca a\u{7}b 192.0.2.7:1", "1:5: expected no control character, found U+0007"),
        (
            "ca a 192.0.2.7:1\n\nca  a 192.0.2.8:1",
            "3:7: expected 192.0.2.7:1, the server `a` has in a line above, found 192.0.2.8:1",
        ),
        (&long_line, "1:1: expected a line of at most 4096 bytes, found a longer one"),
    ] {
        let found = read_pv_file(line.as_bytes(), "f").unwrap_err();
        assert_eq!(found.to_string(), format!("f:{error}"));
        assert!(found.source().is_none());
        let start = format!("{}:{}:", found.line(), found.column());
        assert!(error.starts_with(&start));
    }
    let found = read_pv_file(&b"# \xc3\xa4\xff"[..], "f").unwrap_err();
    assert_eq!(found.to_string(), "f:1:4: expected text in UTF-8, found the byte 0xff");
}

#[test]
fn names_in_quotes_patterns_and_default_ports_are_read() {
    let text = r##"CA "#C3" 192.0.2.7
        Pva "two words" 192.0.2.7
        ca "say \"x\"" 192.0.2.7:1
        ca ioc7:* 192.0.2.8
        ca ioc7:vac:* 192.0.2.9
        ca "ends*" 192.0.2.7
        pva * *
        ca here *:99"##;
    let names = read_pv_file(text.as_bytes(), "f").unwrap();
    let found = |protocol, name: &str| {
        names.lookup(protocol, name.as_bytes()).map(|server| server.to_string())
    };
    let (ca, pva) = (Protocol::Ca, Protocol::Pva);
    for (protocol, name, server) in [
        (ca, "#C3", Some("192.0.2.7:5064")),
        (pva, "two words", Some("192.0.2.7:5075")),
        (ca, "say \"x\"", Some("192.0.2.7:1")),
        (ca, "ioc7:temp.EGU", Some("192.0.2.8:5064")),
        (ca, "ioc7:vac:p1", Some("192.0.2.9:5064")),
        (ca, "ioc7", None),
        (ca, "ends*", Some("192.0.2.7:5064")),
        (ca, "endsX", None),
        // Whoever asks for anything else is sent to this host, at the address that was asked.
        (pva, "whatever", Some("0.0.0.0:5075")),
        (ca, "here", Some("0.0.0.0:99")),
    ] {
        assert_eq!(found(protocol, name).as_deref(), server, "{name}");
    }
    assert_eq!((names.pattern_count(ca), names.pattern_count(pva)), (2, 1));
}

#[test]
fn a_file_is_read_behind_its_mistakes_and_hosts_are_looked_up_once() {
    let mut text = String::new();
    for number in 0..30 {
        text +=
            &format!("ca good{number} ioc{}.example:5{number:03}\nca bad{number}\n", number % 3);
    }
    text += "ca last 192.0.2.7";
    let mut asked = Vec::new();
    let file = PvFile::read(text.as_bytes(), "f", &mut |host| {
        asked.push(host.to_owned());
        (host != "ioc2.example").then(|| [192, 0, 2, 1].into())
    });
    assert_eq!(asked, ["ioc0.example", "ioc1.example", "ioc2.example"]);
    assert_eq!((file.mistake_count, file.mistakes.len()), (30, 20));
    assert_eq!(file.mistakes[19].line(), 40);
    assert_eq!(file.unknown_hosts, ["ioc2.example"]);
    assert_eq!(file.table.len(Protocol::Ca), 21);
    assert!(file.is_cut);
}

/// A reader that fails at the second read.
struct Failing(bool);

impl io::Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(io::Error::other("the disk is gone"));
        }
        buffer[..2].copy_from_slice(b"#\n");
        Ok(2)
    }
}

#[test]
fn an_error_of_the_reader_is_kept_as_the_source() {
    let error = read_pv_file(io::BufReader::new(Failing(false)), "f").unwrap_err();
    assert_eq!(
        error.to_string(),
        "f:2:1: expected text that can be read, found the error the disk is gone"
    );
    assert!(error.source().is_some());
}

#[test]
fn a_subnet_is_read_as_it_is_written() {
    for (text, shown) in [
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("10.1.2.3/0", "0.0.0.0/0"),
        ("10.1.2.3/31", "10.1.2.2/31"),
        ("10.1.2.3/32", "10.1.2.3/32"),
    ] {
        assert_eq!(text.parse::<Subnet>().unwrap().to_string(), shown);
    }
    for text in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/-1", "x/8", "10.0.0.0/8/8", "::/0"] {
        assert!(text.parse::<Subnet>().is_err(), "{text}");
    }
    let pair: Subnet = "10.1.2.2/31".parse().unwrap();
    assert!(pair.contains_host([10, 1, 2, 2].into()) && pair.contains_host([10, 1, 2, 3].into()));
}

/// By which names a name may be found, in order: by a grammar of its own, a state for each byte.
fn record_candidates(name: &str) -> Vec<String> {
    let mut candidates = vec![name.to_owned()];
    let (mut before, mut first, mut last) = (String::new(), None, None);
    let mut is_in_filter = false;
    for c in name.chars() {
        match c {
            '.' if !is_in_filter => {
                first.get_or_insert_with(|| before.clone());
                last = Some(before.clone());
            }
            // Before the first dot a brace is a letter like others.
            '{' if first.is_some() => is_in_filter = true,
            _ => {}
        }
        before.push(c);
    }
    candidates.extend(first);
    candidates.extend(last);
    candidates
}

proptest! {
    #[test]
    fn a_table_answers_as_a_map_would(
        entries in prop::collection::vec(("[ab.:{]{1,4}", any::<bool>(), 1..5u32), 0..200),
        asked in prop::collection::vec("[ab.:{]{0,5}", 50),
    ) {
        let mut builder = NameTable::builder();
        let mut map = HashMap::new();
        for (name, pva, number) in entries {
            let protocol = if pva { Protocol::Pva } else { Protocol::Ca };
            let known = *map.entry((protocol, name.clone())).or_insert(server(number));
            let expected = if known == server(number) {
                Ok(())
            } else {
                Err(InsertError::Duplicate { server: known })
            };
            prop_assert_eq!(builder.insert(protocol, &name, server(number)), expected);
        }
        let names = builder.build();
        let listed: HashMap<_, _> =
            names.iter().map(|(protocol, name, at)| ((protocol, name.to_string()), at)).collect();
        prop_assert_eq!(&listed, &map);
        let find = |protocol, name: &str| map.get(&(protocol, name.to_string())).copied();
        for name in asked {
            for protocol in Protocol::ALL {
                let expected = record_candidates(&name).iter().find_map(|own| find(protocol, own));
                prop_assert_eq!(names.lookup(protocol, name.as_bytes()), expected);
            }
        }
    }

    #[test]
    fn a_written_table_is_read_back(
        names in prop::collection::hash_set("[ -~]{1,40}", 0..50),
        number in 1..1000u32,
    ) {
        let mut text = String::new();
        for name in &names {
            let name = name.replace('\\', r"\\").replace('"', "\\\"");
            text += &format!("ca \"{name}\" {}\n", server(number));
        }
        let table = read_pv_file(text.as_bytes(), "f").unwrap();
        prop_assert_eq!(table.len(Protocol::Ca), names.len());
        let all_right =
            table.iter().all(|(_, name, at)| names.contains(name) && at == server(number));
        prop_assert!(all_right);
    }

    #[test]
    fn any_bytes_are_a_table_or_an_error_with_a_place(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Err(error) = read_pv_file(&bytes[..], "f") {
            prop_assert!(error.line() > 0 && error.column() > 0);
        }
    }
}
