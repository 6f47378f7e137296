//! The measurement behind the program `reload`.

use std::{
    error::Error,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use nicring::Backend;
use nicring_bench::{
    affinity,
    network::{Host, Network},
    outcome::verdict,
    server::{Programs, Server},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Breaks one of 100 files of names at each reload, and asks for all names meanwhile.
///
/// Needs root and `ip`. The server has a CPU for itself.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many names, in 100 files
    #[arg(long, default_value_t = 1_000_000)]
    names: usize,
    /// Searches per second, one name each
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// How long to ask, in seconds
    #[arg(long, default_value_t = 20)]
    duration_s: u64,
}

const FILE_COUNT: usize = 100;
const PORT: &str = "5064";

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = affinity::pin_to_first_cpu().map_err(Into::into).and_then(|()| {
        let backends = [Backend::IoUring, Backend::Portable];
        let programs = Programs::prepare(&backends.map(Server::Nicring))?;
        let mut is_good = true;
        for backend in backends {
            is_good &= measure(backend, &programs, &arguments)?;
        }
        Ok::<_, Box<dyn Error>>(is_good)
    });
    verdict("reload", measured)
}

fn measure(
    backend: Backend,
    programs: &Programs,
    arguments: &Arguments,
) -> Result<bool, Box<dyn Error>> {
    let network = Network::new(1)?;
    let directory = programs.directory().join("names");
    fs::create_dir_all(&directory)?;
    let each = arguments.names / FILE_COUNT;
    let mut all = String::new();
    for file in 0..FILE_COUNT {
        let text = text_of(file, each);
        all += &text;
        fs::write(directory.join(format!("{file:02}")), text)?;
    }
    let names = programs.directory().join("all");
    fs::write(&names, all)?;
    let program = programs.nicring().ok_or("nicring was not built")?;
    let mut server = serve(program, backend, &directory, &network)?;
    let mut stderr = server.stderr.take().expect("a pipe was asked for");
    let log = thread::spawn(move || {
        let mut log = String::new();
        let _ = stderr.read_to_string(&mut log);
        log
    });
    network.prime()?;
    let storm = storm(program, &names, &network, arguments)?;
    let (end, mut round) = (Instant::now() + Duration::from_secs(arguments.duration_s), 0);
    while Instant::now() < end {
        // The one that was broken is mended, and another one is cut in a line.
        let broken = round % FILE_COUNT;
        let text = text_of(broken, each);
        fs::write(directory.join(format!("{broken:02}")), &text[..text.len() * 3 / 4 - 5])?;
        if round > 0 {
            let mended = (round - 1) % FILE_COUNT;
            fs::write(directory.join(format!("{mended:02}")), text_of(mended, each))?;
        }
        kill(Pid::from_raw(server.id() as i32), Signal::SIGHUP)?;
        thread::sleep(Duration::from_secs(1));
        round += 1;
    }
    let heard = storm.wait_with_output()?;
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM)?;
    server.wait()?;
    let log = log.join().expect("no panic");
    let result = String::from_utf8(heard.stdout)?;
    let (asked, lost) = (number(&result, "asked_count")?, number(&result, "lost_count")?);
    let refused_count = log.matches("not reloaded").count();
    println!(
        "{backend}: {asked} searches, {lost} not answered, {} reloads, {refused_count} files \
         refused; answers: p50 {:.0} us, p99 {:.0} us, at most {:.0} us",
        log.matches("nicring: reloaded").count(),
        number(&result, "latency_p50_ns")? / 1e3,
        number(&result, "latency_p99_ns")? / 1e3,
        number(&result, "latency_max_ns")? / 1e3,
    );
    Ok(lost == 0.0 && refused_count >= round - 1)
}

fn text_of(file: usize, count: usize) -> String {
    let mut text = String::new();
    for name in 0..count {
        let _ = writeln!(text, "ca site:area{file:02}:device{name:05}:readback 192.0.2.7:5064");
    }
    text
}

fn serve(
    program: &Path,
    backend: Backend,
    directory: &Path,
    network: &Network,
) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.namespace(Host::Server)]).arg(program);
    command.args(["serve", "--ca-port", PORT, "--pva-port", "0", "--backend"]);
    command.arg(backend.to_string()).arg("--pvs").arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = thread::scope(|scope| {
        let spawn = || {
            affinity::leave_first_cpu_if_pinned()?;
            command.spawn()
        };
        scope.spawn(spawn).join().expect("no panic")
    })?;
    let lines = BufReader::new(child.stdout.as_mut().expect("a pipe was asked for")).lines();
    match lines.map_while(Result::ok).any(|line| line.starts_with("ready")) {
        true => Ok(child),
        false => Err("nicring serve is not ready".into()),
    }
}

fn storm(
    program: &Path,
    names: &Path,
    network: &Network,
    arguments: &Arguments,
) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.namespace(Host::Client)]).arg(program);
    command.arg("storm").arg(Network::server_address(0).to_string()).arg("--names-file").arg(names);
    command.args(["--protocol", "ca", "--ca-port", PORT, "--json", "--rate"]);
    command.arg(arguments.rate.to_string()).arg("--duration-s");
    command.arg(arguments.duration_s.to_string());
    let null = File::open("/dev/null")?;
    Ok(command.stdin(null).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// The first number with this name in a JSON text.
fn number(json: &str, name: &str) -> Result<f64, Box<dyn Error>> {
    let key = format!("\"{name}\":");
    let at = json.find(&key).ok_or_else(|| format!("no {name} in {json}"))? + key.len();
    let end = json[at..].find([',', '}']).ok_or("an end")? + at;
    Ok(json[at..end].trim().parse()?)
}
