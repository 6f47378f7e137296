//! The rights to make network namespaces, for an ordinary user.

use std::{env, os::unix::process::CommandExt, process::Command, sync::OnceLock};

use nix::unistd::geteuid;

/// Why this user gets no user namespace.
pub static REFUSED: OnceLock<String> = OnceLock::new();

/// If an ordinary user started the program, starts it again as root in a user namespace of its own.
/// In the network namespace that comes with it only `lo` is up. Call it first in `main`. If the
/// system allows no user namespaces, it notes why and returns.
pub fn enter() {
    if geteuid().is_root() {
        return;
    }
    // `ip netns` keeps its names in /run.
    const SCRIPT: &str = "mount -t tmpfs none /run && ip link set lo up && exec \"$0\" \"$@\"";
    let in_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", SCRIPT]);
        command
    };
    let reason = match in_namespace().arg("true").output() {
        Ok(tried) if tried.status.success() => {
            let program = env::current_exe().expect("/proc");
            let arguments = env::args_os().skip(1);
            in_namespace().arg(program).args(arguments).exec().to_string()
        }
        Ok(tried) => String::from_utf8_lossy(&tried.stderr).into_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    let _ = REFUSED.set(format!("neither root nor a user namespace: {reason}"));
}
