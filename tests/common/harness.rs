//! Runs the cases of a test program, as libtest does, with one difference: a case can find out
//! while it runs that something is missing. Then it counts as ignored, and the reason is shown.
//! Programs whose cases need io_uring, network namespaces or other programs use it; Cargo.toml
//! names them. In these programs `#[test]` does nothing: list the functions in `cases!` instead.

use std::{any::Any, env, panic::resume_unwind, process::ExitCode, thread};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nicring::Backend;

use super::raw_ring;

/// A test, as the macros below register it.
pub struct Case {
    /// With the path of its module.
    pub name: &'static str,
    pub run: fn(),
}

inventory::collect!(Case);

/// Makes each function into a test.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        $(
            inventory::submit! {
                $crate::common::harness::Case {
                    name: concat!(module_path!(), "::", stringify!($case)),
                    run: $case,
                }
            }
        )+
    };
}
pub(crate) use cases;

/// Makes each case, a `fn(Backend)`, into one test per backend. The runner decides what the case
/// needs to run.
macro_rules! for_each_backend {
    ($runner:path: $($case:ident),+ $(,)?) => {
        mod io_uring {
            $(
                fn $case() {
                    $runner(nicring::Backend::IoUring, super::$case);
                }
            )+
            $crate::common::cases!($($case),+);
        }

        mod portable {
            $(
                fn $case() {
                    $runner(nicring::Backend::Portable, super::$case);
                }
            )+
            $crate::common::cases!($($case),+);
        }
    };
}
pub(crate) use for_each_backend;

/// The main function: runs the cases that the arguments choose.
pub fn main() -> ExitCode {
    let mut trials: Vec<_> = inventory::iter::<Case>.into_iter().map(trial).collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The main function of a program that makes network namespaces.
#[cfg(target_os = "linux")]
pub fn main_with_namespaces() -> ExitCode {
    super::user_namespace::enter();
    main()
}

/// As [`main`]: the cases that need namespaces are for Linux.
#[cfg(not(target_os = "linux"))]
pub fn main_with_namespaces() -> ExitCode {
    main()
}

fn trial(Case { name, run }: &'static Case) -> Trial {
    let name = name.split_once("::").map_or(*name, |(_program, name)| name);
    // A program that is for one system keeps its cases in a file beside main.rs.
    let name = name.strip_prefix("cases::").unwrap_or(name);
    Trial::ignorable_test(name, move || outcome(name, *run))
}

/// Runs a case on a thread of its own, which has its name.
fn outcome(name: &str, case: fn()) -> Result<Completion, Failed> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(case).expect("a thread");
    match thread.join().map_err(<Box<dyn Any + Send>>::downcast) {
        Ok(()) => Ok(Completion::Completed),
        Err(Ok(skipped)) => {
            let Skipped(reason) = *skipped;
            Ok(Completion::ignored_with(reason))
        }
        Err(Err(panic)) => resume_unwind(panic),
    }
}

/// What [`skip`] unwinds with.
struct Skipped(String);

/// Ends this case: it is ignored, for this reason. Fails if `NICRING_REQUIRE` lists what is
/// missing.
pub fn skip(capability: &str, reason: &str) -> ! {
    fail_if_required(capability, reason);
    let reason: Vec<_> = reason.split_whitespace().collect();
    resume_unwind(Box::new(Skipped(format!("for want of {capability}: {}", reason.join(" ")))))
}

fn fail_if_required(capability: &str, reason: &str) {
    let required = env::var("NICRING_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == capability),
        "required: {capability}: {reason}"
    );
}

/// Runs a case. If it is for io_uring, it needs a kernel that grants a bare `io_uring_setup`.
/// nicring's own report does not count: where the system call works, nicring must work.
pub fn on(backend: Backend, case: impl FnOnce(Backend)) {
    if backend == Backend::IoUring {
        need_io_uring();
    }
    case(backend);
}

/// Skips the case unless a bare `io_uring_setup` works.
pub fn need_io_uring() {
    if let Err(error) = raw_ring::open() {
        skip("io_uring", &format!("io_uring_setup: {error}"));
    }
}

/// Whether a bare `io_uring_setup` works, for tests that are worth running without it too. Fails if
/// it does not and `NICRING_REQUIRE` lists io_uring.
pub fn has_io_uring() -> bool {
    let opened = raw_ring::open();
    opened.map_err(|error| fail_if_required("io_uring", &error.to_string())).is_ok()
}
