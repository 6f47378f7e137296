//! SEARCH servers that are separate programs, started as their users start them.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
};

use nicring::{Backend, search::Protocol};

use crate::{
    affinity,
    clock::ProcessClock,
    memory::rss_bytes,
    names::name,
    network::{Host, Network, dropped_count},
};

/// A program that answers SEARCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// `nicring serve` with its defaults.
    Nicring(Backend),
    /// The same on io_uring, and every answer leaves at once.
    NicringNoDelay,
    /// The server of pvxs, as p4p runs it.
    Pvxs,
    /// The IOC of EPICS Base, as softioc runs it.
    Rsrv,
    /// caproto's IOC.
    Caproto,
}

impl Server {
    /// Whether it answers SEARCHes of a protocol.
    #[must_use]
    pub fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Self::Nicring(_) | Self::NicringNoDelay => true,
            Self::Pvxs => protocol == Protocol::Pva,
            Self::Rsrv | Self::Caproto => protocol == Protocol::Ca,
        }
    }

    /// How many names it can be started with. Those of the peers are arguments of a script.
    #[must_use]
    pub fn name_count_max(self) -> u32 {
        match self {
            Self::Nicring(_) | Self::NicringNoDelay => u32::MAX,
            Self::Pvxs | Self::Rsrv | Self::Caproto => 10_000,
        }
    }

    /// Its script in `tests/epics`, which the tests use too, and the script's option for the SEARCH
    /// port.
    fn script(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Nicring(_) | Self::NicringNoDelay => None,
            Self::Pvxs => Some(("pva_server.py", &["--port", "5075", "--search-port"])),
            Self::Rsrv => Some(("ca_ioc_softioc.py", &["--port"])),
            Self::Caproto => Some(("ca_ioc_caproto.py", &["--port"])),
        }
    }
}

const REMEDY: &str = "make it by `python3 -m venv .cache/venv` and `.cache/venv/bin/pip install \
                      -r tests/requirements.txt`, or name another by NICRING_PYTHON";

/// No server lasts longer, even if the program that started it is gone.
const TIME_MAX_S: &str = "120";

/// The programs of the servers, and the files that these read and write. Dropping this removes the
/// files.
#[derive(Debug)]
pub struct Programs {
    repository: PathBuf,
    nicring: Option<PathBuf>,
    python: PathBuf,
    files: PathBuf,
    /// The program that starts a server, with its arguments; empty for none.
    starter: &'static [&'static str],
}

impl Programs {
    /// Builds nicring, if it is among the servers, and finds Python.
    ///
    /// # Errors
    ///
    /// If nicring cannot be built or a file cannot be written.
    pub fn prepare(servers: &[Server]) -> Result<Self, Box<dyn Error>> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let python = env::var_os("NICRING_PYTHON").unwrap_or(".cache/venv/bin/python".into());
        let has_nicring = servers.iter().any(|server| server.script().is_none());
        let nicring = if has_nicring { Some(build_nicring(&repository)?) } else { None };
        let files = env::temp_dir().join(format!("nicring-bench-{}", process::id()));
        let python = repository.join(python);
        let programs = Self { repository, nicring, python, files, starter: &[] };
        fs::create_dir_all(&programs.files)?;
        Ok(programs)
    }

    /// The program `nicring`, if it was built.
    #[must_use]
    pub fn nicring(&self) -> Option<&Path> {
        self.nicring.as_deref()
    }

    /// A directory that is removed in the end.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.files
    }

    /// Servers are started by another program from now on, such as `setpriv`.
    pub fn start_by(&mut self, starter: &'static [&'static str]) {
        self.starter = starter;
    }

    fn started(&self, command: Command) -> Command {
        let Some((starter, arguments)) = self.starter.split_first() else {
            return command;
        };
        let mut started = Command::new(starter);
        started.args(arguments).arg(command.get_program()).args(command.get_args());
        started
    }

    /// A file with the names of a table. It is written when it is first asked for.
    fn table(&self, protocol: Protocol, name_count: u32) -> io::Result<PathBuf> {
        let file = self.files.join(format!("{protocol}-{name_count}.txt"));
        if !file.is_file() {
            let mut table = BufWriter::new(File::create(&file)?);
            for number in 0..name_count {
                writeln!(table, "{protocol} {} 192.0.2.7:5075", name(number))?;
            }
            table.flush()?;
        }
        Ok(file)
    }

    fn log(&self, port: u16) -> PathBuf {
        self.files.join(format!("server-{port}.log"))
    }

    fn command(
        &self,
        server: Server,
        protocol: Protocol,
        name_count: u32,
        port: u16,
    ) -> Result<Command, Box<dyn Error>> {
        let port = port.to_string();
        let Some((script, port_option)) = server.script() else {
            let program = self.nicring.as_ref().ok_or("nicring was not built")?;
            let mut command = Command::new(program);
            command.args(["serve", "--duration-s", TIME_MAX_S, "--pvs"]);
            command.arg(self.table(protocol, name_count)?);
            match server {
                Server::Nicring(backend) => command.args(["--backend", &backend.to_string()]),
                _ => command.args(["--backend", "io_uring", "--delay-max", "0"]),
            };
            match protocol {
                Protocol::Ca => command.args(["--ca-port", &port, "--pva-port", "0"]),
                Protocol::Pva => command.args(["--pva-port", &port, "--ca-port", "0"]),
            };
            return Ok(command);
        };
        if !self.python.is_file() {
            return Err(format!("skipped: no {}: {REMEDY}", self.python.display()).into());
        }
        let mut command = Command::new(&self.python);
        command.arg(self.repository.join("tests/epics").join(script));
        command.args((0..name_count).map(|number| format!("{}=1.25", name(number))));
        command.args(port_option).arg(port);
        Ok(command)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.files);
    }
}

/// Builds nicring from this source with the release profile, into the target directory of the
/// running program.
fn build_nicring(repository: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("runs in no target directory")?;
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository).args(["build", "--quiet", "--release", "--package", "nicring"]);
    command.args(["--features", "cli", "--bin", "nicring", "--target-dir"]).arg(target);
    match command.status() {
        Ok(status) if status.success() => Ok(target.join("release/nicring")),
        Ok(status) => Err(format!("building nicring: {status}: {command:?}").into()),
        Err(error) => Err(format!("building nicring: {error}: {command:?}").into()),
    }
}

/// A running server. Dropping this ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    clock: ProcessClock,
}

impl Process {
    /// Starts a SEARCH server with `name_count` names, but at most its [`Server::name_count_max`],
    /// at a port in the namespace of the network's server. Waits until it listens.
    ///
    /// # Errors
    ///
    /// The server's reason why it does not listen, with the remedy if a package is missing.
    pub fn start(
        server: Server,
        protocol: Protocol,
        name_count: u32,
        port: u16,
        programs: &Programs,
        network: &Network,
    ) -> Result<Self, Box<dyn Error>> {
        let name_count = name_count.min(server.name_count_max());
        let command = programs.command(server, protocol, name_count, port)?;
        let mut command = programs.started(command);
        network.wait_until_free(port)?;
        let log = File::create(programs.log(port))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        for (key, _) in env::vars_os() {
            let key_bytes = key.as_encoded_bytes();
            if key_bytes.starts_with(b"EPICS_") || key_bytes.starts_with(b"NICRING_") {
                command.env_remove(key);
            }
        }
        let mut child = spawn_in_server(command, network)?;
        let lines = BufReader::new(child.stdout.as_mut().expect("a pipe was asked for")).lines();
        let is_ready = |line: &String| line.to_lowercase().starts_with("ready");
        let ready = lines.map_while(Result::ok).find(is_ready);
        let process = Self { clock: ProcessClock::of(child.id())?, child };
        match ready {
            Some(line) if server.script().is_none_or(|_| says_right_port(server, port, &line)) => {
                Ok(process)
            }
            Some(line) => Err(format!("took another port: {line}").into()),
            None => Err(reason(&programs.log(port))?.into()),
        }
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads, in ns.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        Ok(self.clock.cpu_time()?.as_nanos() as u64)
    }

    /// How many datagrams its host has lost because a socket was full, since the host began.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn dropped_count(&self) -> io::Result<u64> {
        dropped_count(self.pid())
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        rss_bytes(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// rsrv and caproto print the port of both TCP and UDP, pvxs that of TCP.
fn says_right_port(server: Server, search_port: u16, ready: &str) -> bool {
    let port = if server == Server::Pvxs { 5075 } else { search_port };
    ready.split_whitespace().nth(1) == Some(port.to_string().as_str())
}

/// A child inherits namespace and CPUs of the thread that starts it.
fn spawn_in_server(mut command: Command, network: &Network) -> io::Result<Child> {
    thread::scope(|scope| {
        let spawner = scope.spawn(|| {
            network.enter(Host::Server)?;
            affinity::leave_first_cpu_if_pinned()?;
            command.spawn()
        });
        spawner.join().expect("no panic")
    })
}

/// Why a server ended: the last line of its log.
fn reason(log: &Path) -> io::Result<String> {
    let text = fs::read_to_string(log)?;
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Ok(match last.starts_with("ModuleNotFoundError") {
        true => format!("skipped: {last}: {REMEDY}"),
        false => format!("ended at once: {last}"),
    })
}
