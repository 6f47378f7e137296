//! `nicring ask` and `nicring check`.

use std::fs;

use super::{Served, common::cases, nicring, text};

cases!(
    who_answers_is_told_with_protocol_server_and_delay,
    files_are_checked_by_themselves_against_others_and_against_a_server,
);

/// Runs a command with the ports of a server in its environment. Returns its exit code and what it
/// printed.
fn told(served: &Served, arguments: &[&str]) -> (i32, String) {
    let mut command = nicring(arguments);
    command.env("EPICS_CA_SERVER_PORT", served.ca_port.to_string());
    command.env("EPICS_PVA_BROADCAST_PORT", served.pva_port.to_string());
    let output = command.output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

fn who_answers_is_told_with_protocol_server_and_delay() {
    let served = Served::start(&[], &[]);
    let ask = |names: &[&str]| {
        told(&served, &[&["ask", "--to", "127.0.0.1", "--wait-s", "0.3"], names].concat())
    };
    let (code, said) = ask(&["test:both", "test:ca.EGU"]);
    assert_eq!(code, 0, "{said}");
    for part in ["test:both", "ca", "127.0.0.1:5064", "pva", "127.0.0.1:5075", "test:ca.EGU"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let (code, said) = ask(&["test:ca", "test:nobody"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("test:nobody: nobody answers"), "{said}");
}

fn files_are_checked_by_themselves_against_others_and_against_a_server() {
    let served = Served::start(&[], &[]);
    let path = served.file.path().with_extension("new");
    let file = path.to_str().unwrap();
    fs::write(&path, "ca test:ca 127.0.0.1\nca test:new 127.0.0.1\nca test:both 127.0.0.2\n")
        .unwrap();
    assert_eq!(told(&served, &["check", file]).0, 0);
    let (code, said) = told(&served, &["check", file, "--against", served.file.as_str()]);
    assert_eq!(code, 1, "{said}");
    for line in [
        "+ ca test:new 127.0.0.1:5064",
        "- pva test:pva 127.0.0.1:5075",
        "~ ca test:both 127.0.0.2:5064, was 127.0.0.1:5064",
    ] {
        assert!(said.lines().any(|said| said == line), "no {line:?} in {said}");
    }
    let (code, said) = told(&served, &["check", served.file.as_str(), "--server", "127.0.0.1"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = told(&served, &["check", file, "--server", "127.0.0.1"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("- ca test:new 127.0.0.1:5064"), "{said}");
    assert!(said.contains("~ ca test:both 127.0.0.1:5064, not 127.0.0.2:5064"), "{said}");
    fs::write(&path, "ca\nca x 1.2\n").unwrap();
    let (code, said) = told(&served, &["check", file]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(":1:3: expected a name") && said.contains(":2:6: "), "{said}");
    fs::remove_file(&path).unwrap();
}
