//! The feature `metrics`: what the parser of prometheus_client for Python makes of an engine's
//! counts. It refuses text that is not OpenMetrics: a metric that stands twice, a wrong unit, a
//! label that is not escaped, a missing end.
//!
//! Needs the packages of tests/requirements.txt for the Python that `NICRING_PYTHON` names (default
//! `.cache/venv/bin/python`). Without them the tests are ignored;
//! `NICRING_REQUIRE=epics,io_uring` turns each of these skips into a failure.

#[path = "../common/mod.rs"]
mod common;

use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use nicring::{Backend, Stats};
use prometheus_client::{encoding::text, metrics::counter::Counter, registry::Registry};
use serde_json::{Value, json};

use common::{Client, Server, for_each_backend, on_loopback, skip};

fn main() -> std::process::ExitCode {
    common::main()
}

for_each_backend!(crate::common::on:
    what_an_engine_counts_stands_among_a_programs_own_metrics,
    a_nic_may_have_any_name,
);

fn what_an_engine_counts_stands_among_a_programs_own_metrics(backend: Backend) {
    let servers = [Server::echo(on_loopback(backend)), Server::echo(on_loopback(backend))];
    let client = Client::on_loopback();
    for (server, count) in servers.iter().zip([3, 5]) {
        for _ in 0..count {
            client.send("four", server.address());
            client.expect("four", server.address());
        }
        common::wait_until("the last reply is counted", || {
            server.handle.stats().total().sent_count == count
        });
    }
    let (mut registry, own) = (Registry::default(), Counter::<u64>::default());
    own.inc();
    registry.register("own", "A count of the program", own);
    registry.register_collector(Box::new(servers[0].handle.clone()));
    let second = registry.sub_registry_with_prefix("second");
    second.register_collector(Box::new(servers[1].handle.clone()));
    let mut text = String::new();
    text::encode_registry(&mut text, &registry).expect("a string takes all");
    text += "# TYPE written_by_hand gauge\nwritten_by_hand 7\n";
    text::encode_eof(&mut text).expect("a string takes all");
    let metrics = parse(&text);

    assert_eq!(metrics["own"]["samples"], json!([["own_total", {}, 1]]));
    assert_eq!(metrics["written_by_hand"]["samples"], json!([["written_by_hand", {}, 7]]));
    for (server, prefix, count) in [(&servers[0], "", 3), (&servers[1], "second_", 5)] {
        let metric = |name: &str| &metrics[format!("{prefix}nicring_{name}")];
        let nics = server.handle.stats().nics;
        let [nic] = nics.as_slice() else { panic!("one NIC and not {nics:?}") };
        let labels = json!({"nic": nic.name, "index": nic.index.to_string()});
        let sample = |name: &str, labels: &Value, value: u64| {
            json!([format!("{prefix}nicring_{name}"), labels, value])
        };
        let expected = ["unicast", "subnet", "limited", "group"].map(|class| {
            let mut labels = labels.clone();
            labels["class"] = json!(class);
            sample("received_total", &labels, if class == "unicast" { count } else { 0 })
        });
        assert_eq!(metric("received")["samples"], json!(expected));
        let bytes = sample("received_bytes_total", &labels, 4 * count);
        let expected = json!({"type": "counter", "unit": "bytes", "samples": [bytes]});
        assert_eq!(*metric("received_bytes"), expected);
        let sent = sample("sent_total", &labels, count);
        assert_eq!(*metric("sent"), json!({"type": "counter", "unit": "", "samples": [sent]}));
        let posted = sample("posted", &json!({}), 0);
        assert_eq!(*metric("posted"), json!({"type": "gauge", "unit": "", "samples": [posted]}));
    }
}

fn a_nic_may_have_any_name(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let name = "a\"} 1\\n\\ \u{1b}é";
    let mut stats: Stats = server.handle.stats();
    name.clone_into(&mut stats.nics[0].name);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(stats));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes all");
    let metrics = parse(&text);
    assert_eq!(metrics["nicring_sent"]["samples"][0][1]["nic"], name);
}

/// What the parser says. Skips the case if there is none.
fn parse(text: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = env::var_os("NICRING_PYTHON").unwrap_or(".cache/venv/bin/python".into());
    let python = root.join(python);
    let has_parser = Command::new(&python).args(["-c", "import prometheus_client"]).output();
    if !has_parser.is_ok_and(|output| output.status.success()) {
        skip("epics", "no Python with the packages of tests/requirements.txt");
    }
    let mut parser = common::spawn(
        Command::new(python)
            .arg(root.join("tests/metrics/parse.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    )
    .expect("it has just run");
    let mut stdin = parser.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("the parser reads");
    drop(stdin);
    let output = parser.wait_with_output().expect("a process that was started");
    assert!(output.status.success(), "the parser refuses:\n{text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
