//! Tests that need signals, or sockets that share a port.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{Served, WAIT_MAX, common::cases, count};

cases!(
    sigterm_and_sigint_print_totals_and_end_well,
    sighup_reads_the_file_again_and_a_bad_file_changes_nothing,
    a_file_is_judged_by_what_it_was,
    a_pipe_wedges_no_reload_and_a_refused_reload_stands_in_the_totals,
    the_first_signal_ends_it_though_nobody_writes_the_pipe_that_it_reads,
    files_and_directories_are_read_and_followed,
    garbage_is_counted_and_does_no_harm,
    a_port_of_another_server_is_told_and_its_unicasts_are_left_to_it,
    the_environment_is_followed,
    no_child_outlives_its_duration,
);

impl Served {
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends the program by SIGTERM.
    fn end(&mut self) -> ExitStatus {
        self.signal("-TERM");
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.stderr.all());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the program and returns its totals. It must have been started with `--json`.
    fn totals(&mut self) -> Value {
        let status = self.end();
        assert!(status.success(), "{}", self.stderr.all());
        let line = self.stdout.wait_for("{").expect("totals");
        serde_json::from_str(&line).expect("one JSON object on one line")
    }

    fn answers(&self, name: &str, protocol: &str) -> bool {
        let brief = ["--protocol", protocol, "--duration-s", "0.05", "--timeout-ms", "300"];
        let arguments = [&["--name", name][..], &brief].concat();
        self.try_storm(&arguments).status.success()
    }
}

fn sigterm_and_sigint_print_totals_and_end_well() {
    for signal in ["-TERM", "-INT"] {
        let mut served = Served::start(&[], &[]);
        assert!(served.answers("test:ca", "ca"));
        served.signal(signal);
        let totals = served.stdout.wait_for("CPU of the server: ");
        assert!(totals.is_some(), "{}", served.stdout.all());
        let status = served.child.wait().unwrap();
        assert!(status.success(), "{signal}: {status}: {}", served.stderr.all());
        assert!(served.stderr.all().is_empty(), "no live counters: {}", served.stderr.all());
    }
}

fn sighup_reads_the_file_again_and_a_bad_file_changes_nothing() {
    let mut served = Served::start(&["--json", "--allow-shrink"], &[]);
    assert!(!served.answers("test:new", "ca"));

    fs::write(served.file.path(), "ca test:new 127.0.0.1:5064\n").unwrap();
    served.signal("-HUP");
    let said = served.stderr.wait_for("nicring: reloaded ").expect("a word on the reload");
    assert!(said.contains("1 names (1 ca, 0 pva)"), "{said}");
    // The engine takes over the new table at its next batch or tick.
    assert!(served.answers("test:new", "ca"));
    assert!(!served.answers("test:ca", "ca"));

    fs::write(served.file.path(), "ca test:newer 127.0.0.1:5064\nca test:bad 1.2.3\n").unwrap();
    served.signal("-HUP");
    let said = served.stderr.wait_for("nicring: not reloaded").expect("a word on the bad file");
    let place = format!("{}:2:13: ", served.file.as_str());
    assert!(said.contains(&place), "{place:?} is not in {said:?}");
    assert!(served.answers("test:new", "ca"));
    assert!(!served.answers("test:newer", "ca"));
    assert_eq!(count(&served.totals()["reload_count"]), 1);
}

/// Each row: what is written, whether it is taken, and a part of the line that tells.
fn a_file_is_judged_by_what_it_was() {
    let mut served = Served::start(&["--json"], &[]);
    let many: String = (0..10).map(|at| format!("ca test:m{at} 127.0.0.1\n")).collect();
    for (text, is_taken, told) in [
        (many.as_str(), true, "reloaded 10 names"),
        ("", false, "it has 0 names and had 10"),
        ("ca test:m0 127.0.0.1\n", false, "it has 1 names and had 10"),
        (&format!("{many}ca test:m10 127.0.0.1:50"), false, "its last line has no end"),
        (&format!("{many}ca test:m10\n"), false, "expected a server"),
        (&many[..7 * 21], true, "reloaded 7 names"),
    ] {
        fs::write(served.file.path(), text).unwrap();
        served.signal("-HUP");
        let said = served.stderr.wait_for(told).expect("a word on the reload");
        assert!(served.answers("test:m0", "ca"), "{told}");
        assert_eq!(said.contains("not reloaded"), !is_taken, "{said}");
    }
    assert_eq!(served.totals()["refused_files"].as_array().unwrap().len(), 0, "it was mended");
}

fn a_pipe_wedges_no_reload_and_a_refused_reload_stands_in_the_totals() {
    let mut served = Served::start(&["--json"], &[]);
    let path = served.file.path().to_owned();
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    for _ in 0..2 {
        served.signal("-HUP");
        let said = served.stderr.wait_for("nicring: not reloaded").expect("a word on the pipe");
        assert!(said.contains("it is no regular file any more"), "{said}");
    }
    assert!(served.answers("test:ca", "ca"));
    let totals = served.totals();
    assert!(totals["refused_files"][0].as_str().unwrap().contains("regular"), "{totals}");
}

fn the_first_signal_ends_it_though_nobody_writes_the_pipe_that_it_reads() {
    let pipe = std::env::temp_dir().join(format!("nicring-pipe-{}", std::process::id()));
    let _ = fs::remove_file(&pipe);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nicring"));
    let mut child = command.args(["serve", "--pvs"]).arg(&pipe).spawn().unwrap();
    thread::sleep(Duration::from_millis(200)); // until it catches signals
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let deadline = Instant::now() + WAIT_MAX;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
    fs::remove_file(&pipe).unwrap();
}

fn files_and_directories_are_read_and_followed() {
    let directory = std::env::temp_dir().join(format!("nicring-names-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    write("a", "ca test:a 127.0.0.1\n");
    write(".hidden", "nonsense\n");
    let mut served =
        Served::start(&["--json", "--watch", "--pvs", directory.to_str().unwrap()], &[]);
    assert!(served.answers("test:a", "ca") && served.answers("test:ca", "ca"));
    write("b", "ca test:b * # this host\n");
    assert!(served.stderr.wait_for("nicring: reloaded 6 names").is_some());
    assert!(served.answers("test:b.DESC", "ca"));
    // One bad file keeps its names, the other is taken.
    write("a", "ca test:a\n");
    write("b", "ca test:b 127.0.0.1\nca test:c 127.0.0.1\n");
    assert!(served.stderr.wait_for("nicring: not reloaded").is_some());
    for name in ["test:a", "test:b", "test:c"] {
        assert!(served.answers(name, "ca"), "{name}");
    }
    fs::remove_file(directory.join("a")).unwrap();
    assert!(served.stderr.wait_for("a is gone, and its names").is_some());
    let deadline = Instant::now() + WAIT_MAX;
    while served.answers("test:a", "ca") {
        assert!(Instant::now() < deadline, "its names are still there");
    }
    assert!(served.end().success());
    fs::remove_dir_all(&directory).unwrap();
}

fn garbage_is_counted_and_does_no_harm() {
    let mut served = Served::start(&["--json"], &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let garbage: [&[u8]; 5] = [b"", b"\xca", &[0xff; 1500], b"GET / HTTP/1.0\r\n\r\n", &[0; 7]];
    for port in [served.ca_port, served.pva_port] {
        for bytes in garbage {
            socket.send_to(bytes, (Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
    assert!(served.answers("test:ca", "ca") && served.answers("test:pva", "pva"));
    let totals = served.totals();
    for protocol in ["ca", "pva"] {
        let counts = totals[protocol].as_object().unwrap();
        let handed = count(&counts["datagram_count"]);
        assert!(handed >= 5, "{totals}");
    }
    assert!(count(&totals["rejected_count"]) >= 6, "{totals}");
}

fn a_port_of_another_server_is_told_and_its_unicasts_are_left_to_it() {
    let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    other.set_reuse_port(true).unwrap();
    other.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let other = UdpSocket::from(other);
    other.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let port = other.local_addr().unwrap().port().to_string();

    let mut served = Served::start(&["--ca-port", &port], &[]);
    let told = served.stdout.all();
    assert!(told.contains(&format!("UDP port {port} is also held by ")), "{told}");
    assert!(told.contains("leaving the unicasts"), "{told}");
    let named = format!("(pid {})", std::process::id());
    assert!(told.contains(&named) || told.contains("by another program"), "{told}");
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.send_to(b"for the other", (Ipv4Addr::LOCALHOST, served.ca_port)).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(other.recv(&mut buffer).unwrap(), 13, "the other server still hears unicasts");
    assert!(served.answers("test:pva", "pva"), "at the other port unicasts are taken");
    assert!(served.end().success());

    let taking = Served::start(&["--ca-port", &port, "--unicast", "take"], &[]);
    assert!(taking.stdout.all().contains("taking the unicasts"), "{}", taking.stdout.all());
    assert!(taking.answers("test:ca", "ca"));
}

fn the_environment_is_followed() {
    let unused = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (ca_port, pva_port) = (unused(), unused());
    let (ca, pva) = (ca_port.to_string(), pva_port.to_string());
    let mut served = Served::start(
        &["--json"],
        &[
            ("EPICS_CAS_SERVER_PORT", &ca),
            ("EPICS_CA_SERVER_PORT", "5999"),
            ("EPICS_PVA_BROADCAST_PORT", &pva),
            ("EPICS_CAS_INTF_ADDR_LIST", "127.0.0.1"),
            ("EPICS_PVAS_INTF_ADDR_LIST", "0.0.0.0"),
            ("EPICS_CAS_IGNORE_ADDR_LIST", "192.0.2.1 127.0.0.1"),
            ("EPICS_PVAS_IGNORE_ADDR_LIST", "127.0.0.1:1"),
        ],
    );
    assert_eq!((served.ca_port, served.pva_port), (ca_port, pva_port));
    let engines = served.stderr.all().lines().filter(|line| line.contains("; backend: ")).count();
    assert_eq!(engines, 2, "CA and PVA listen on different NICs: {}", served.stderr.all());
    assert!(!served.answers("test:ca", "ca"), "its address is to be ignored");
    assert!(served.answers("test:pva", "pva"), "only its port 1 is to be ignored");
    let totals = served.totals();
    assert!(count(&totals["ca"]["ignored_count"]) > 0, "{totals}");
    assert_eq!(count(&totals["pva"]["ignored_count"]), 0, "{totals}");
}

fn no_child_outlives_its_duration() {
    let mut served = Served::start(&["--duration-s", "0.3"], &[]);
    let deadline = Instant::now() + WAIT_MAX;
    while served.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(served.child.wait().unwrap().success());
}
