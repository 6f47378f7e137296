//! System calls that fail as in a sandbox, by seccomp, and tests that run in their own process.

use std::{
    collections::BTreeMap,
    env,
    process::{Command, Stdio},
    thread,
};

use nicring::Backend;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, apply_filter_all_threads,
};

use super::spawn;

/// Calls `what` on a new thread on which a system call fails with `errno`. Threads that it starts
/// inherit this.
#[track_caller]
pub fn sandboxed<R: Send>(call: i64, errno: i32, what: impl FnOnce() -> R + Send) -> R {
    let inside = || {
        deny(call, errno, false);
        what()
    };
    let result = thread::scope(|scope| scope.spawn(inside).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Calls `what` on a new thread on which no socket can be bound to a device, as before Linux 5.7
/// without CAP_NET_RAW.
#[track_caller]
pub fn without_devices<R: Send>(what: impl FnOnce() -> R + Send) -> R {
    without_options(&[libc::SO_BINDTODEVICE], what)
}

/// Calls `what` on a new thread on which send buffers stay as the system makes them: 212,992 bytes.
/// That is less than what a process without CAP_NET_ADMIN gets where nobody changed the limits.
#[track_caller]
pub fn with_small_send_buffers<R: Send>(what: impl FnOnce() -> R + Send) -> R {
    without_options(&[libc::SO_SNDBUF, libc::SO_SNDBUFFORCE], what)
}

/// Calls `what` on a new thread whose sockets get what an ordinary user's get.
#[track_caller]
pub fn with_ordinary_buffers<R: Send>(what: impl FnOnce() -> R + Send) -> R {
    without_options(&[libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE], what)
}

#[track_caller]
fn without_options<R: Send>(options: &[i32], what: impl FnOnce() -> R + Send) -> R {
    let argument = |index, value: i32| {
        let (len, is) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        SeccompCondition::new(index, len, is, value as u64).expect("an argument")
    };
    let sets = |option: &i32| {
        let conditions = vec![argument(1, libc::SOL_SOCKET), argument(2, *option)];
        SeccompRule::new(conditions).expect("conditions")
    };
    let rules: Vec<_> = options.iter().map(sets).collect();
    let inside = || {
        let rules = BTreeMap::from([(libc::SYS_setsockopt, rules)]);
        apply_filter(&program(rules, libc::EPERM)).expect("no privilege is needed");
        what()
    };
    let result = thread::scope(|scope| scope.spawn(inside).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> BpfProgram {
    let (allow, fail) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let architecture = env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, allow, fail, architecture).expect("a filter");
    filter.try_into().expect("a program")
}

/// Makes a system call fail with `errno` from now on, on this thread or on all threads.
pub fn deny(call: i64, errno: i32, on_all_threads: bool) {
    let program = program(BTreeMap::from([(call, Vec::new())]), errno);
    let applied =
        if on_all_threads { apply_filter_all_threads(&program) } else { apply_filter(&program) };
    applied.expect("no privilege is needed");
}

/// Runs the test with this name once more in its own process. There `NICRING_BACKEND` is not set,
/// unless `environment` sets it. Returns true in that process, which has to do the test's work.
pub fn is_child_of(
    this: &str,
    environment: &[(&str, &str)],
    prepare: impl FnOnce(&mut Command),
) -> bool {
    const MARK: &str = "NICRING_TEST_CHILD";
    if env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new("/proc/self/exe");
    // With one thread for the tests, none of the harness ends while the test counts threads.
    command.args([this, "--exact", "--test-threads=1"]);
    command.env_remove(Backend::ENVIRONMENT_VARIABLE);
    command.env(MARK, "1").envs(environment.iter().copied());
    prepare(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(&mut command).expect("this program");
    let output = child.wait_with_output().expect("its output");
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success() && text.contains("1 passed"), "{this}:\n{text}");
    false
}
