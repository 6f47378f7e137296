//! The cases, which are for Linux.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use nicring::Backend;

use crate::common::{
    Client, for_each_backend,
    netns::{Namespace, run},
    skip, spawn,
};

for_each_backend!(crate::common::netns::on:
    controllers_find_the_bacnet_device_by_the_nic_that_they_are_on,
    announcements_leave_by_each_nic_also_by_one_that_comes_later,
);

/// An example that runs.
struct Running(Child);

impl Running {
    /// Starts it, and waits for its first line.
    #[track_caller]
    fn start(at: &Namespace, backend: Backend, name: &str, argument: &str) -> Self {
        let program = env::current_exe().expect("a path");
        let built = program.ancestors().nth(2).expect("the folder of what Cargo built");
        let example = built.join("examples").join(name);
        assert!(example.is_file(), "cargo build --examples builds {}", example.display());
        let mut command = at.command(example);
        command.arg(argument).env(Backend::ENVIRONMENT_VARIABLE, backend.to_string());
        let mut child = spawn(command.stdout(Stdio::piped())).expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        // What it prints later is nobody's; the pipe must not be full.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        assert!(!line.is_empty(), "{name} has ended");
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server and its neighbours, each on a NIC of its own.
struct Hosts {
    server: Namespace,
    neighbours: Vec<Namespace>,
}

impl Hosts {
    fn new() -> Self {
        let made = |label| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
        let hosts = Self { server: made("s"), neighbours: vec![made("a"), made("b")] };
        hosts.connect(1);
        hosts
    }

    /// Connects the neighbour with this number: 10.77.`number`.2, to the server: 10.77.`number`.1.
    fn connect(&self, number: usize) {
        let (neighbour, nic) = (&self.neighbours[number - 1], format!("nic{number}"));
        let connected = self.server.connect(&nic, neighbour, "eth0");
        connected.unwrap_or_else(|error| panic!("{error}"));
        let address = |last: u8| format!("address add 10.77.{number}.{last}/24 brd +");
        self.server.configure(&format!("{} dev {nic}", address(1)));
        neighbour.configure(&format!("{} dev eth0", address(2)));
    }
}

fn controllers_find_the_bacnet_device_by_the_nic_that_they_are_on(backend: Backend) {
    let python = env::var_os("NICRING_PYTHON").unwrap_or(".cache/venv/bin/python".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(python);
    if let Err(reason) = run(Command::new(&python).args(["-c", "import bacpypes3"]), "") {
        skip("epics", &format!("no Python with the packages of tests/requirements.txt: {reason}"));
    }
    let hosts = Hosts::new();
    hosts.connect(2);
    let _device = Running::start(&hosts.server, backend, "bacnet_device", "260001");
    let ask = |number: usize, limits: &[&str]| {
        let mut command = hosts.neighbours[number - 1].command(&python);
        command.arg(root.join("tests/examples/who_is.py")).arg(format!("10.77.{number}.2/24"));
        run(command.args(limits), "").unwrap_or_else(|error| panic!("{error}"))
    };
    for number in [1, 2] {
        let found = format!("260001 10.77.{number}.1\n");
        assert_eq!(ask(number, &[]), found, "whoever is there");
        assert_eq!(ask(number, &["260000", "260002"]), found, "one of a range");
    }
    assert_eq!(ask(1, &["1", "260000"]), "", "one of a range that it is not in");
}

fn announcements_leave_by_each_nic_also_by_one_that_comes_later(backend: Backend) {
    let hosts = Hosts::new();
    let listen =
        |number: usize| hosts.neighbours[number - 1].run(|| Client::bind(("0.0.0.0", 5065)));
    let first = listen(1);
    let _announcer = Running::start(&hosts.server, backend, "announce", "5065");
    for (number, listener) in [(1, &first), (2, &listen(2))] {
        if number == 2 {
            hosts.connect(2);
        }
        let (beacon, source) = listener.receive();
        assert!(beacon.starts_with(b"beacon "), "{beacon:?}");
        assert_eq!(source.ip().octets(), [10, 77, number, 1]);
    }
}
