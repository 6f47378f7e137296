//! Runs the program `nicring` as its users do.

#[cfg(unix)]
mod ask;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod hosts;
#[cfg(unix)]
mod unix;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use common::cases;

fn main() -> ExitCode {
    common::main_with_namespaces()
}

cases!(
    help_teaches_the_environment_and_has_examples,
    the_demo_answers_on_the_chosen_backend_and_on_the_portable_one,
    the_demo_ends_with_a_table_and_shows_live_counters,
    a_bad_line_is_told_with_file_line_and_column,
    what_cannot_be_is_refused_with_its_cause,
    storm_gets_answers_of_both_protocols_and_tells_hits_from_misses,
    storm_fails_where_nothing_answers,
    the_doctor_tells_what_is_there,
);

/// How long anything may take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(30);

const TABLE: &str = "\
# What the tests ask for
ca   test:ca   127.0.0.1:5064
pva  test:pva  127.0.0.1:5075
ca   test:both 127.0.0.1:5064
pva  test:both 127.0.0.1:5075
";

fn help_teaches_the_environment_and_has_examples() {
    let help = stdout_of(nicring(&["serve", "--help"]));
    for variable in [
        "EPICS_CA_SERVER_PORT",
        "EPICS_CAS_SERVER_PORT",
        "EPICS_CAS_INTF_ADDR_LIST",
        "EPICS_CAS_IGNORE_ADDR_LIST",
        "EPICS_PVA_BROADCAST_PORT",
        "EPICS_PVAS_BROADCAST_PORT",
        "EPICS_PVAS_INTF_ADDR_LIST",
        "EPICS_PVAS_IGNORE_ADDR_LIST",
        "NICRING_BACKEND",
        "NICRING_LOG",
    ] {
        assert!(help.contains(variable), "{variable} is not in:\n{help}");
    }
    for command in [&["--help"][..], &["-h"], &["storm", "--help"], &["serve", "-h"]] {
        let help = stdout_of(nicring(command));
        assert!(help.contains("Examples:"), "{command:?}:\n{help}");
    }
}

fn the_demo_answers_on_the_chosen_backend_and_on_the_portable_one() {
    for (backend, shards, more) in
        [("auto", "1", None), ("portable", "1", None), ("auto", "2", Some("--filter"))]
    {
        let demo = ["serve", "--demo", "--duration-s", "1", "--demo-names", "1000", "--json"];
        let how = ["--backend", backend, "--shards", shards];
        let output = nicring(&[&demo[..], &how, more.as_slice()].concat()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let totals: Value = serde_json::from_slice(&output.stdout).expect("nothing but JSON");
        assert!(backend == "auto" || totals["backend"] == backend, "{totals}");
        for protocol in ["ca", "pva"] {
            assert!(count(&totals[protocol]["hit_count"]) > 0, "{totals}");
            assert!(count(&totals[protocol]["miss_count"]) > 0, "{totals}");
            let of_nic = |nic: &Value| count(&nic[protocol]["hit_count"]);
            let of_nics: u64 = totals["nics"].as_array().unwrap().iter().map(of_nic).sum();
            assert_eq!(of_nics, count(&totals[protocol]["hit_count"]), "{totals}");
            let load = &totals["load"][protocol];
            assert_eq!(
                count(&load["expected_count"]),
                count(&load["answered_count"]) + count(&load["lost_count"])
            );
            assert_eq!(count(&load["unexpected_count"]) + count(&load["malformed_count"]), 0);
        }
        assert!(text(&output.stderr).contains("ready: CA port "));
    }
}

fn the_demo_ends_with_a_table_and_shows_live_counters() {
    let output = nicring(&["serve", "--demo", "--duration-s", "1.5"]).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    for heading in ["The server\n", "Its clients\n", "lost in full receive buffers: "] {
        assert!(stdout.contains(heading), "{heading:?} is not in:\n{stdout}");
    }
    assert!(stderr.contains(" per search  datagrams: lo"), "{stderr}");
}

fn a_bad_line_is_told_with_file_line_and_column() {
    let file = TemporaryFile::new("ca good 127.0.0.1:5064\n  tango bad 127.0.0.1:1\n");
    let failure = failure_of(nicring(&["serve", "--pvs", file.as_str()]), 2);
    let place = format!("nicring: {}:2:3: expected ", file.as_str());
    assert!(failure.starts_with(&place), "{failure}");
}

fn what_cannot_be_is_refused_with_its_cause() {
    let file = TemporaryFile::new(TABLE);
    let serve = ["serve", "--pvs", file.as_str()];
    let refusal = |more: &[&str], variable: &[(&str, &str)]| {
        let mut command = nicring(&[&serve[..], more].concat());
        command.envs(variable.iter().copied());
        failure_of(command, 2)
    };
    for (variable, value) in [
        ("EPICS_CA_SERVER_PORT", "80"),
        ("EPICS_PVAS_BROADCAST_PORT", "x"),
        ("EPICS_CAS_INTF_ADDR_LIST", "300.0.0.1"),
        ("EPICS_CAS_INTF_ADDR_LIST", "192.0.2.222"),
        ("EPICS_PVAS_IGNORE_ADDR_LIST", "10.0.0.1:x"),
        ("NICRING_LOG", "nicring=loud"),
    ] {
        let failure = refusal(&[], &[(variable, value)]);
        assert!(failure.starts_with(&format!("nicring: {variable}: ")), "{failure}");
    }
    let failure = refusal(&["--interface", "no-such-nic"], &[]);
    assert!(failure.contains("--interface: no-such-nic: no NIC of this host"), "{failure}");
    let failure = refusal(&["--ca-port", "6123", "--pva-port", "6123"], &[]);
    assert!(failure.contains("port 6123 for both"), "{failure}");
    let failure = refusal(&["--delay-max", "soon"], &[]);
    assert!(failure.contains("'--delay-max <DURATION>': expected a time with"), "{failure}");
    let failure = refusal(&["--delay-max", "2s"], &[]);
    assert!(failure.contains("delay_max: 2s is longer than 100ms: clients would"), "{failure}");
    let failure = failure_of(nicring(&["serve", "--pvs", "no/such/file"]), 2);
    assert!(failure.starts_with("nicring: no/such/file: "), "{failure}");
    assert!(failure_of(nicring(&["serve"]), 2).contains("--pvs"));
}

fn storm_gets_answers_of_both_protocols_and_tells_hits_from_misses() {
    let served = Served::start(&["--duration-s", "60"], &[]);
    let result = served.storm(&["--name", "test:both", "--hits", "0.5", "--senders", "2"]);
    for protocol in ["ca", "pva"] {
        let seen = &result[protocol];
        assert!(count(&seen["answered_count"]) > 0, "{result}");
        assert_eq!(seen["expected_count"], seen["answered_count"], "{result}");
        for none in ["lost_count", "duplicate_count", "unexpected_count", "malformed_count"] {
            assert_eq!(count(&seen[none]), 0, "{none}: {result}");
        }
        assert!(count(&seen["asked_count"]) > count(&seen["expected_count"]), "{result}");
        assert!(count(&seen["latency_p50_ns"]) > 0, "{result}");
    }
    let paced =
        ["--names-file", served.file.as_str(), "--rate", "500", "--names-per-datagram", "3"];
    let result = served.storm(&paced);
    for protocol in ["ca", "pva"] {
        assert_eq!(result[protocol]["expected_count"], result[protocol]["answered_count"]);
        let sent_count = count(&result[protocol]["sent_datagram_count"]);
        assert!((50..=126).contains(&sent_count), "250 a second for half a second: {result}");
    }
}

fn storm_fails_where_nothing_answers() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let destination = silent.local_addr().unwrap().to_string();
    let storm = ["storm", &destination, "--name", "test:ca", "--protocol", "ca"];
    let brief = ["--duration-s", "0.2", "--timeout-ms", "100"];
    let failure = failure_of(nicring(&[&storm[..], &brief].concat()), 1);
    assert!(failure.contains("nicring: nothing was answered"), "{failure}");
    let failure = failure_of(nicring(&["storm", &destination, "--name", "x"]), 2);
    assert!(failure.contains("--protocol ca or pva"), "{failure}");
}

fn the_doctor_tells_what_is_there() {
    let ports = ["--ca-port", "0", "--pva-port", "0", "--interface", "127.0.0.1"];
    let told = stdout_of(nicring(&[&["doctor"], &ports[..]].concat()));
    for part in
        ["System\n", "io_uring", "portable", "NICs\n", "Ports\n", "Outside\n", "would work here."]
    {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}

/// A command without the EPICS and log settings of this process.
fn nicring(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nicring"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("EPICS_") || matches!(&*name_text, "NICRING_LOG" | "RUST_LOG") {
            command.env_remove(name);
        }
    }
    command
}

fn stdout_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What the command prints on stderr. Fails unless it ends with this exit code.
fn failure_of(mut command: Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(code), "{command:?}: {}", text(&stderr));
    text(&stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no count: {value}"))
}

/// `nicring serve` with a file of names, on unused ports of the loopback interface unless told
/// otherwise.
struct Served {
    child: Child,
    file: TemporaryFile,
    stdout: Lines,
    stderr: Lines,
    ca_port: u16,
    pva_port: u16,
}

impl Served {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let set = |name: &str| environment.iter().any(|(other, _)| other.contains(name));
        let given = |name: &str| arguments.contains(&name);
        let mut all = vec!["serve"];
        if !given("--ca-port") && !set("SERVER_PORT") {
            all.extend(["--ca-port", "0"]);
        }
        if !given("--pva-port") && !set("BROADCAST_PORT") {
            all.extend(["--pva-port", "0"]);
        }
        if !given("--interface") && !set("INTF_ADDR_LIST") {
            all.extend(["--interface", "127.0.0.1"]);
        }
        all.extend(arguments);
        let command = |all: &[&str]| {
            let mut command = nicring(all);
            command.envs(environment.iter().copied());
            command
        };
        Self::start_by(command, &all[1..])
    }

    /// Starts it by a command that is made of all its arguments.
    fn start_by(command: impl FnOnce(&[&str]) -> Command, arguments: &[&str]) -> Self {
        let given = |name: &str| arguments.contains(&name);
        let file = TemporaryFile::new(TABLE);
        let all = [&["serve", "--pvs", file.as_str()], arguments].concat();
        let mut command = command(&all);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Lines::read(child.stdout.take().unwrap());
        let stderr = Lines::read(child.stderr.take().unwrap());
        let mut served = Self { child, file, stdout, stderr, ca_port: 0, pva_port: 0 };
        let lines = if given("--json") { &served.stderr } else { &served.stdout };
        let Some(ready) = lines.wait_for("ready: ") else {
            panic!("{command:?} is not ready:\n{}\n{}", served.stdout.all(), served.stderr.all());
        };
        let mut numbers = ready.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
        served.ca_port = numbers.next().unwrap().parse().unwrap();
        served.pva_port = numbers.next().unwrap().parse().unwrap();
        served
    }

    /// Runs a short storm and returns its result.
    fn storm(&self, arguments: &[&str]) -> Value {
        let for_machines = ["--duration-s", "0.5", "--json"];
        let output = self.try_storm(&[&for_machines[..], arguments].concat());
        assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("nothing but JSON")
    }

    fn try_storm(&self, arguments: &[&str]) -> Output {
        let (ca_port, pva_port) = (self.ca_port.to_string(), self.pva_port.to_string());
        let storm = ["storm", "127.0.0.1", "--ca-port", &ca_port, "--pva-port", &pva_port];
        nicring(&[&storm[..], arguments].concat()).output().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a program has printed so far.
struct Lines {
    all: Arc<Mutex<Vec<String>>>,
    news: Mutex<mpsc::Receiver<()>>,
}

impl Lines {
    fn read(from: impl Read + Send + 'static) -> Self {
        let all = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::channel();
        let lines = Arc::clone(&all);
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
                let _ = sender.send(());
            }
        });
        Self { all, news: Mutex::new(receiver) }
    }

    /// Waits for a line that contains `part`; `None` if the program ends without one.
    fn wait_for(&self, part: &str) -> Option<String> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let found = self.all.lock().unwrap().iter().find(|line| line.contains(part)).cloned();
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || self.news.lock().unwrap().recv_timeout(left).is_err() {
                let lines = self.all.lock().unwrap();
                return found.or_else(|| lines.iter().find(|line| line.contains(part)).cloned());
            }
        }
    }

    fn all(&self) -> String {
        self.all.lock().unwrap().join("\n")
    }
}

struct TemporaryFile {
    path: PathBuf,
}

impl TemporaryFile {
    fn new(content: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("nicring-cli-{}-{number}.txt", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, content).unwrap();
        Self { path }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn as_str(&self) -> &str {
        self.path().to_str().expect("a path in UTF-8")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
