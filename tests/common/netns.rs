//! Network namespaces, created and removed with `ip`. Needs root, or a user namespace.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    net::Ipv4Addr,
    process::{self, Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use nicring::{Backend, Builder};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

use super::{Client, Server, skip, spawn, user_namespace::REFUSED, wait_until};

/// Runs a case that needs namespaces.
pub fn on(backend: Backend, case: impl FnOnce(Backend)) {
    need();
    super::on(backend, case);
}

/// Skips the case unless namespaces can be created.
pub fn need() {
    static PROBED: OnceLock<Result<(), String>> = OnceLock::new();
    let probed = PROBED.get_or_init(|| {
        if let Some(reason) = REFUSED.get() {
            return Err(reason.clone());
        }
        let [a, b] = [Namespace::new("a")?, Namespace::new("b")?];
        a.connect("nic1", &b, "eth0")?;
        a.ip("link add br0 type bridge")
    });
    if let Err(reason) = probed {
        skip("netns", reason);
    }
}

/// A network namespace with `lo` up. Dropping it removes it and kills the processes inside.
pub struct Namespace {
    pub name: String,
    file: File,
}

impl Namespace {
    pub fn new(label: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nt{}-{}{label}", process::id(), COUNT.fetch_add(1, Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let path = format!("/run/netns/{name}");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                let _ = run(Command::new("ip").args(["netns", "delete", &name]), "");
                return Err(format!("{path}: {error}"));
            }
        };
        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `ip` inside, with one command per line.
    pub fn ip(&self, commands: &str) -> Result<(), String> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), commands).map(drop)
    }

    /// What `ip` prints for a command inside.
    #[track_caller]
    pub fn shown(&self, command: &str) -> String {
        let arguments = ["-n", &self.name].into_iter().chain(command.split(' '));
        let shown = run(Command::new("ip").args(arguments), "");
        shown.unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Namespace::ip`], but panics on failure.
    #[track_caller]
    pub fn configure(&self, commands: &str) {
        self.ip(commands).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Creates a veth pair, `nic` here and `peer_nic` in `peer`. Both are up and pass packets.
    pub fn connect(&self, nic: &str, peer: &Self, peer_nic: &str) -> Result<(), String> {
        let peer_name = &peer.name;
        self.ip(&format!(
            "link add {nic} type veth peer name {peer_nic} netns {peer_name}\nlink set {nic} up"
        ))?;
        peer.ip(&format!("link set {peer_nic} up"))?;
        // A NIC drops what it sends until the kernel has seen its peer, a moment later.
        wait_until("the pair is up", || self.is_up(nic) && peer.is_up(peer_nic));
        Ok(())
    }

    pub fn is_up(&self, nic: &str) -> bool {
        let show = ["-n", &self.name, "-brief", "link", "show", nic];
        let shown = run(Command::new("ip").args(show), "");
        shown.is_ok_and(|line| line.split_whitespace().nth(1) == Some("UP"))
    }

    /// Sets a kernel parameter, such as `ipv4/ip_forward`.
    #[track_caller]
    pub fn set(&self, parameter: &str, value: &str) {
        let path = format!("/proc/sys/net/{parameter}");
        // The kernel shows the parameters of the namespace of the thread that opens the file.
        let written = self.run(|| fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Calls `what` on a thread inside the namespace. Sockets that it opens and threads that it
    /// starts stay inside.
    #[track_caller]
    pub fn run<R: Send>(&self, what: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter");
            what()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    #[track_caller]
    pub fn index_of(&self, nic: &str) -> u32 {
        self.run(|| if_nametoindex(nic)).unwrap_or_else(|error| panic!("{nic}: {error}"))
    }

    /// A counter of a NIC: the column of `/proc/net/dev` with this number.
    #[track_caller]
    pub fn count_of(&self, nic: &str, field: usize) -> u64 {
        let table = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
        let table = table.expect("/proc/thread-self/net/dev");
        let row = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{nic}:")));
        let fields = row.unwrap_or_else(|| panic!("no {nic} in\n{table}"));
        let field = fields.split_whitespace().nth(field);
        field.and_then(|text| text.parse().ok()).expect("a count")
    }

    #[track_caller]
    pub fn client(&self, address: impl Into<Ipv4Addr>) -> Client {
        let address = address.into();
        self.run(move || Client::bind((address, 0)))
    }

    #[track_caller]
    pub fn echo(&self, builder: Builder) -> Server {
        self.run(move || Server::echo(builder))
    }

    /// A command that runs a program inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Has `nft` add a rule.
    pub fn nft(&self, rule: &str) -> Result<(), String> {
        run(self.command("nft").arg(rule), "").map(drop)
    }

    /// Has `nft` add these rules. Skips the case if it does not.
    pub fn need_nft(&self, rules: &[&str]) {
        let added = rules.iter().try_for_each(|rule| self.nft(rule));
        added.unwrap_or_else(|reason| skip("nft", &reason));
    }

    /// An end of a tunnel over UDP between 10.201.1.`own` and 10.201.1.`other`, as OpenVPN and
    /// WireGuard have it, but in the clear.
    #[track_caller]
    pub fn tunnel(&self, own: u8, other: u8) -> Child {
        let udp = format!("UDP4-DATAGRAM:10.201.1.{other}:7000,bind=10.201.1.{own}:7000");
        let tun = "TUN,tun-type=tun,tun-name=tun0,iff-no-pi,iff-up";
        let child = spawn(self.command("socat").args([&udp, tun])).expect("socat starts");
        wait_until("the tunnel has an end", || self.ip("address show dev tun0").is_ok());
        self.configure(&format!("address add 10.8.0.{own}/24 brd + dev tun0"));
        child
    }
}

/// Skips the case unless there is `socat` and it may make tunnels.
pub fn need_tunnels() {
    if let Err(error) = Command::new("socat").arg("-V").output() {
        skip("socat", &format!("socat: {error}"));
    }
    const DEVICE: &str = "/dev/net/tun";
    if let Err(error) = File::options().read(true).write(true).open(DEVICE) {
        skip("socat", &format!("{DEVICE}: {error}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let processes = run(Command::new("ip").args(["netns", "pids", &self.name]), "");
        for pid in processes.unwrap_or_default().split_whitespace() {
            // Processes are listed by their main threads, so this process should not be listed.
            // Make sure of it.
            if pid != process::id().to_string() {
                let _ = run(Command::new("kill").args(["-KILL", pid]), "");
            }
        }
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]), "");
    }
}

/// Runs a short command to its end and returns what it printed.
pub fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let output = output_of(command, input).map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}\n{input}", output.status, stderr.trim()))
}

fn output_of(command: &mut Command, input: &str) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // A command that does not read its input may already have ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output()
}
