//! Clients that find servers through nicring, and what all suites of this program share.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    cases, need_io_uring,
    netns::{self, Namespace, run},
    skip,
};

cases!(
    clients_find_servers_through_io_uring,
    clients_find_servers_through_portable,
    a_search_that_pvxs_passes_on_is_answered_by_io_uring,
    a_search_that_pvxs_passes_on_is_answered_by_portable,
    two_hundred_names_at_once_are_found_through_io_uring,
    two_hundred_names_at_once_are_found_through_portable,
);

fn clients_find_servers_through_io_uring() {
    need_io_uring();
    clients_find_servers_through("io_uring");
}

fn clients_find_servers_through_portable() {
    clients_find_servers_through("portable");
}

fn a_search_that_pvxs_passes_on_is_answered_by_io_uring() {
    need_io_uring();
    a_search_that_pvxs_passes_on_is_answered("io_uring");
}

fn a_search_that_pvxs_passes_on_is_answered_by_portable() {
    a_search_that_pvxs_passes_on_is_answered("portable");
}

fn two_hundred_names_at_once_are_found_through_io_uring() {
    need_io_uring();
    two_hundred_names_at_once_are_found("io_uring");
}

fn two_hundred_names_at_once_are_found_through_portable() {
    two_hundred_names_at_once_are_found("portable");
}

/// Skips the case if one of them is missing.
pub fn python_and_network() -> (PathBuf, Network) {
    let python = need_epics();
    netns::need();
    (python, Network::new().unwrap_or_else(|error| panic!("{error}")))
}

pub fn need_epics() -> PathBuf {
    python_with_epics().unwrap_or_else(|reason| skip("epics", &reason))
}

/// A pvxs server holds the port, so nicring leaves unicast to it. The pvxs server forwards each
/// search over lo to the other servers of its host.
fn a_search_that_pvxs_passes_on_is_answered(backend: &str) {
    let (python, network) = python_and_network();
    let files = TemporaryDirectory::new(&format!("forward-{backend}"));
    let owner = EpicsServer {
        script: "pva_server.py",
        pvs: ["nr:owner=1.25", "nr:owner-too=1.25"],
        address: "10.77.1.1",
        ports: &["--port", "5095", "--search-port", "5076"],
    };
    let _owner = owner.start(&network.server, &python, &files);
    let [pva, ..] = SERVERS;
    let _server = pva.start(&network.server, &python, &files);
    let nicring = start_nicring(&network.server, backend, TABLE, &[], &files);
    let [pva, ..] = CLIENTS;
    let asker = &network.clients[0];
    let read = pva.read(asker, &python, &["nr:pva", "nr:owner"], &["--addr-list", "10.77.1.1"]);
    let logs = files.logs();
    assert_eq!(read, Ok(()), "on {backend}:\n{logs}");
    assert!(nicring.ends_well_when_asked(), "nicring on {backend} did not end well:\n{logs}");
}

/// Clients ask for many names in several datagrams back to back. nicring packs its answers.
fn two_hundred_names_at_once_are_found(backend: &str) {
    let (python, network) = python_and_network();
    let files = TemporaryDirectory::new(&format!("many-{backend}"));
    let names: Vec<_> = (0..200).map(|number| format!("nr:many-{number:03}")).collect();
    let [_, softioc, _] = SERVERS;
    let pvs: Vec<_> = names.iter().map(|name| format!("{name}=1.25")).collect();
    let _server = softioc.start_with(&pvs, &network.server, &python, &files);
    let table: String = names.iter().map(|name| format!("ca {name} 10.77.1.1:5066\n")).collect();
    let take = ["--unicast", "take"];
    let nicring = start_nicring(&network.server, backend, &table, &take, &files);

    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let [_, libca, caproto, _, _, repics] = CLIENTS;
    let asked = [(libca, "10.77.1.1"), (caproto, "10.77.1.255"), (repics, "10.77.1.255")];
    for (client, address) in asked {
        let asker = &network.clients[0];
        let read = client.read(asker, &python, &names, &["--addr-list", address]);
        assert_eq!(read, Ok(()), "on {backend}:\n{}", files.logs());
    }
    let logs = files.logs();
    assert!(nicring.ends_well_when_asked(), "nicring on {backend} did not end well:\n{logs}");
}

fn clients_find_servers_through(backend: &str) {
    let (python, network) = python_and_network();
    let files = TemporaryDirectory::new(backend);
    let _servers = SERVERS.map(|server| server.start(&network.server, &python, &files));
    let take = ["--unicast", "take"];
    let nicring = start_nicring(&network.server, backend, TABLE, &take, &files);

    let failures = read_everything(&network, &python);

    let logs = files.logs();
    assert!(failures.is_empty(), "on {backend}:\n{}\n{logs}", failures.join("\n"));
    assert!(nicring.ends_well_when_asked(), "nicring on {backend} did not end well:\n{logs}");
}

/// Runs every client with every kind of destination on every NIC, in parallel. Returns a text for
/// each failure.
fn read_everything(network: &Network, python: &Path) -> Vec<String> {
    let mut reads = Vec::new();
    for (client, nic) in network.clients.iter().zip(["10.77.1", "10.77.2"]) {
        for host in ["1", "255"] {
            reads.push((client, format!("{nic}.{host}")));
        }
        reads.push((client, "255.255.255.255".to_owned()));
    }
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (namespace, address) in &reads {
            threads.push(scope.spawn(move || {
                let read = |client: &Client| {
                    let search = ["--addr-list", address];
                    let outcome = client.read(namespace, python, client.known, &search);
                    Some(format!("{}: {}", namespace.name, outcome.err()?))
                };
                CLIENTS.iter().filter_map(read).collect::<Vec<_>>()
            }));
        }
        threads.push(scope.spawn(|| expect_unknown_unfound(&network.clients[0], python)));
        threads.into_iter().flat_map(|thread| thread.join().expect("a client's thread")).collect()
    })
}

/// A name that nicring does not know is not found through it, although its server has it.
fn expect_unknown_unfound(namespace: &Namespace, python: &Path) -> Vec<String> {
    let mut failures = Vec::new();
    for client in CLIENTS {
        let (name, address, port) = client.unknown;
        let through_nicring = ["--addr-list", "255.255.255.255", "--timeout", "2"];
        if client.read(namespace, python, &[name], &through_nicring).is_ok() {
            failures.push(format!("{} found {name}, which nicring does not know", client.script));
        }
        let from_its_server = ["--addr-list", address, "--port", port];
        if let Err(reason) = client.read(namespace, python, &[name], &from_its_server) {
            failures.push(format!("asked at its own server: {reason}"));
        }
    }
    failures
}

/// The table that nicring serves.
pub const TABLE: &str = "\
pva  nr:pva      10.77.1.1:5085
ca   nr:softioc  10.77.1.1:5066
ca   nr:caproto  10.77.2.1:5068
";

pub const SERVERS: [EpicsServer; 3] = [
    EpicsServer {
        script: "pva_server.py",
        pvs: ["nr:pva=1.25", "nr:pva-unknown=1.25"],
        address: "10.77.1.1",
        ports: &["--port", "5085", "--search-port", "5086"],
    },
    EpicsServer {
        script: "ca_ioc_softioc.py",
        pvs: ["nr:softioc=1.25", "nr:softioc-unknown=1.25"],
        address: "10.77.1.1",
        ports: &["--port", "5066"],
    },
    EpicsServer {
        script: "ca_ioc_caproto.py",
        pvs: ["nr:caproto=1.25", "nr:caproto-unknown=1.25"],
        address: "10.77.2.1",
        ports: &["--port", "5068"],
    },
];

pub const CLIENTS: [Client; 6] = [
    Client {
        script: "pva_get.py",
        known: &["nr:pva"],
        unknown: ("nr:pva-unknown", "10.77.1.1", "5086"),
    },
    Client {
        script: "ca_get_pyepics.py",
        known: &["nr:softioc", "nr:caproto"],
        unknown: ("nr:softioc-unknown", "10.77.1.1", "5066"),
    },
    Client {
        script: "ca_get_caproto.py",
        known: &["nr:softioc", "nr:caproto"],
        unknown: ("nr:caproto-unknown", "10.77.2.1", "5068"),
    },
    Client {
        script: "pva_get_pvapy.py",
        known: &["nr:pva"],
        unknown: ("nr:pva-unknown", "10.77.1.1", "5086"),
    },
    Client {
        script: "pva_get_repics.py",
        known: &["nr:pva"],
        unknown: ("nr:pva-unknown", "10.77.1.1", "5086"),
    },
    Client {
        script: "ca_get_repics.py",
        known: &["nr:softioc", "nr:caproto"],
        unknown: ("nr:softioc-unknown", "10.77.1.1", "5066"),
    },
];

/// How long a server may take to report that it listens.
const START_MAX: Duration = Duration::from_secs(30);

pub struct EpicsServer {
    pub script: &'static str,
    pub pvs: [&'static str; 2],
    pub address: &'static str,
    pub ports: &'static [&'static str],
}

impl EpicsServer {
    pub fn start(
        &self,
        namespace: &Namespace,
        python: &Path,
        files: &TemporaryDirectory,
    ) -> Server {
        self.start_with(&self.pvs.map(str::to_owned), namespace, python, files)
    }

    pub fn start_with(
        &self,
        pvs: &[String],
        namespace: &Namespace,
        python: &Path,
        files: &TemporaryDirectory,
    ) -> Server {
        let mut command = inside(namespace, python);
        command.arg(script(self.script)).args(pvs);
        command.args(["--interface", self.address]).args(self.ports);
        let (server, line) = Server::start(command, files, self.script, "READY ");
        let port = self.ports[1];
        assert_eq!(line, format!("READY {port}"), "{} took another port", self.script);
        server
    }
}

pub struct Client {
    pub script: &'static str,
    pub known: &'static [&'static str],
    /// A name that nicring does not know, with the address and UDP port of the server that does.
    pub unknown: (&'static str, &'static str, &'static str),
}

impl Client {
    pub fn read(
        &self,
        namespace: &Namespace,
        python: &Path,
        names: &[&str],
        search: &[&str],
    ) -> Result<(), String> {
        let mut command = inside(namespace, Path::new("timeout"));
        command.args(["--signal=KILL", "60"]).arg(python).arg(script(self.script));
        command.args(names).args(["--timeout", "20"]).args(search).stdin(Stdio::null());
        let mut run = || command.output().map_err(|error| format!("{command:?}: {error}"));
        let mut output = run()?;
        // A race inside caproto: its search was answered, but the thread of its TCP connection
        // failed an assertion of caproto's own before the thread that opened the connection was
        // ready.
        let is_caprotos_own = |stderr: &[u8]| {
            let text = String::from_utf8_lossy(stderr);
            text.contains("assert self.connected") && text.contains("Circuit with server at")
        };
        for _ in 0..2 {
            if !output.status.success() && is_caprotos_own(&output.stderr) {
                eprintln!("{}: failed by its own connection, is run once more", self.script);
                output = run()?;
            }
        }
        let expected: String = names.iter().map(|name| format!("VALUE {name} 1.25\n")).collect();
        if output.status.success() && output.stdout == expected.as_bytes() {
            return Ok(());
        }
        Err(format!(
            "{} {names:?} {search:?}: {}\n{}{}",
            self.script,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        ))
    }
}

pub fn start_nicring(
    namespace: &Namespace,
    backend: &str,
    table: &str,
    options: &[&str],
    files: &TemporaryDirectory,
) -> Server {
    let path = files.path.join("table.txt");
    fs::write(&path, table).expect("the table can be written");
    let mut command = inside(namespace, Path::new(env!("CARGO_BIN_EXE_nicring")));
    command.arg("serve").args(options).args(["--backend", backend, "--pvs"]).arg(path);
    // A failing test must not leave the process behind.
    command.args(["--duration-s", "300"]);
    Server::start(command, files, "nicring", "ready").0
}

/// A program that runs until this is dropped. Its standard input is closed then, and also when this
/// process is killed. The Python servers end when it closes.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts the program and waits for the line that begins with `ready`.
    pub fn start(
        mut command: Command,
        files: &TemporaryDirectory,
        name: &str,
        ready: &'static str,
    ) -> (Self, String) {
        let log = fs::File::create(files.path.join(format!("{name}.log"))).expect("a log file");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("a pipe was asked for")).lines();
        let server = Self { child };
        let (sender, receiver) = mpsc::channel();
        // Keeps reading after that line: a full pipe would block the program.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.starts_with(ready)) {
                let _ = sender.send(line);
            }
        });
        match receiver.recv_timeout(START_MAX) {
            Ok(line) => (server, line),
            Err(_) => panic!("{name} did not say {ready:?}: {command:?}\n{}", files.logs()),
        }
    }

    /// Ends the program by SIGTERM. Returns whether it was still running and ended with 0 in time.
    pub fn ends_well_when_asked(mut self) -> bool {
        let pid = self.child.id().to_string();
        let asked = run(Command::new("kill").args(["-TERM", &pid]), "");
        let deadline = Instant::now() + Duration::from_secs(5);
        while asked.is_ok() && Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's namespace with two NICs, and behind each NIC the namespace of a client.
pub struct Network {
    pub server: Namespace,
    pub clients: [Namespace; 2],
}

impl Network {
    pub fn new() -> Result<Self, String> {
        let network = Self {
            server: Namespace::new("s")?,
            clients: [Namespace::new("c1")?, Namespace::new("c2")?],
        };
        for (number, client) in (1..).zip(&network.clients) {
            let (nic, subnet) = (format!("nic{number}"), format!("10.77.{number}"));
            let client_name = &client.name;
            network
                .server
                .ip(&format!("link add {nic} type veth peer name eth0 netns {client_name}"))?;
            network.server.ip(&format!("address add {subnet}.1/24 brd + dev {nic}"))?;
            network.server.ip(&format!("link set {nic} up"))?;
            client.ip(&format!("address add {subnet}.2/24 brd + dev eth0"))?;
            client.ip("link set eth0 up")?;
            // For the server's address on the other NIC, and for 255.255.255.255. All three clients
            // send that from an unbound socket, which the kernel refuses without a route.
            client.ip(&format!("route add default via {subnet}.1"))?;
        }
        Ok(network)
    }
}

/// A command that runs inside the namespace, without this process's EPICS settings.
pub fn inside(namespace: &Namespace, program: &Path) -> Command {
    let mut command = namespace.command(program);
    for (key, _) in env::vars_os() {
        if key.as_encoded_bytes().starts_with(b"EPICS_") {
            command.env_remove(key);
        }
    }
    command
}

pub struct TemporaryDirectory {
    pub path: PathBuf,
}

impl TemporaryDirectory {
    pub fn new(backend: &str) -> Self {
        let path = env::temp_dir().join(format!("nicring-epics-{}-{backend}", process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self { path }
    }

    /// What the programs wrote to standard error.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                logs += &format!("--- {}\n{text}", entry.file_name().to_string_lossy());
            }
        }
        logs
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/epics").join(name)
}

/// The Python that has the EPICS packages, or why there is none.
fn python_with_epics() -> Result<PathBuf, String> {
    let python = env::var_os("NICRING_PYTHON").unwrap_or(".cache/venv/bin/python".into());
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(python);
    run(
        Command::new(&python).args(["-c", "import caproto, epics, p4p, pvaccess, repics, softioc"]),
        "",
    )
    .map(|_| python)
    .map_err(|reason| format!("no Python with the packages of tests/requirements.txt: {reason}"))
}
