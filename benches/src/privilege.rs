//! The rights to make network namespaces, for programs that an ordinary user starts.

use std::{
    env, fs, io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use nix::unistd::geteuid;

use crate::contestant::RECV_BUFFER_BYTES;

/// Set in a program that started itself again.
const VARIABLE: &str = "NICRING_BENCH_USER_NAMESPACE";

/// Starts the program again in a user namespace of its own, as root there, if an ordinary user
/// started it. Call it first in `main`. Returns only if that is not needed, or if something is
/// missing.
///
/// # Errors
///
/// What `unshare` is refused, and the remedy.
pub fn take() -> Result<(), ExitCode> {
    if env::var_os(VARIABLE).is_some() {
        say_what_differs();
        return Ok(());
    }
    if geteuid().is_root() {
        return Ok(());
    }
    // `ip netns` keeps its names in /run.
    const SCRIPT: &str = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    let in_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", SCRIPT]);
        command
    };
    let reason = match in_namespace().arg("true").output() {
        Ok(tried) if tried.status.success() => {
            let program = env::current_exe().unwrap_or_default();
            let mut command = in_namespace();
            command.arg(program).args(env::args_os().skip(1)).env(VARIABLE, "1").exec()
        }
        Ok(tried) => io::Error::other(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
        Err(error) => error,
    };
    eprintln!("needs root, or a user namespace made by unshare (util-linux): {reason}");
    Err(ExitCode::FAILURE)
}

fn say_what_differs() {
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max");
    let limit = limit.ok().and_then(|limit| limit.trim().parse::<usize>().ok());
    let differs = match limit {
        Some(limit) if limit >= RECV_BUFFER_BYTES => {
            "net.core.rmem_max allows receive buffers that are as long: nothing differs".to_owned()
        }
        limit => format!(
            "receive buffers are shorter, {} bytes in place of {RECV_BUFFER_BYTES}: fewer \
             datagrams wait on few NICs",
            limit.map_or("net.core.rmem_max".to_owned(), |limit| limit.to_string())
        ),
    };
    println!("without root, in a user namespace: SO_RCVBUFFORCE is refused; {differs}");
}
