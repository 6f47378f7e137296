//! The cases, for Linux.

use std::{
    io, ops::ControlFlow, os::unix::process::CommandExt, process::Command, sync::mpsc, thread,
    time::Duration,
};

use nicring::{Backend, BackendReport, Engine, Error};
use nix::sys::resource::{Resource, setrlimit};

use crate::common::{
    self, Client, LOCALHOST, PATIENCE, Server, cases, has_io_uring, need_io_uring, on_loopback,
    sandbox::{deny, is_child_of, sandboxed},
    wait_until,
};

cases!(
    auto_falls_back_where_setup_is_denied_and_says_why,
    auto_falls_back_where_enter_is_denied_and_says_why,
    auto_falls_back_where_register_is_denied_and_says_why,
    io_uring_that_was_asked_for_is_an_error_where_it_is_denied,
    a_limit_of_locked_memory_is_explained,
    no_thread_to_be_had_means_the_portable_backend,
    sandboxes_are_told_apart_and_told_what_they_need,
    trying_io_uring_in_vain_leaks_no_descriptor,
    io_uring_runs_under_the_usual_limit_of_descriptors,
    the_environment_chooses_portable_for_auto_and_for_nothing_else,
    the_environment_chooses_io_uring_for_auto_without_falling_back,
    nonsense_in_the_environment_is_an_error_that_names_it,
    io_uring_runs_where_nothing_denies_it,
    a_sandbox_applied_before_run_ends_it_with_an_error_and_the_port_free,
    a_sandbox_applied_while_it_runs_ends_it_with_an_error_and_the_port_free,
    a_sandbox_around_the_whole_process_ends_an_async_engine_too,
    an_engine_closes_in_time_under_a_sandbox_without_having_run,
);

const SETUP: (&str, i64) = ("io_uring_setup", libc::SYS_io_uring_setup);
const ENTER: (&str, i64) = ("io_uring_enter", libc::SYS_io_uring_enter);
const REGISTER: (&str, i64) = ("io_uring_register", libc::SYS_io_uring_register);
const EPERM: (&str, i32) = ("EPERM", libc::EPERM);
const ENOSYS: (&str, i32) = ("ENOSYS", libc::ENOSYS);

fn auto_falls_back_where_setup_is_denied_and_says_why() {
    auto_falls_back_where_it_is_denied(SETUP, "auto_falls_back_where_setup_is_denied_and_says_why");
}

fn auto_falls_back_where_enter_is_denied_and_says_why() {
    auto_falls_back_where_it_is_denied(ENTER, "auto_falls_back_where_enter_is_denied_and_says_why");
}

fn auto_falls_back_where_register_is_denied_and_says_why() {
    let this = "auto_falls_back_where_register_is_denied_and_says_why";
    auto_falls_back_where_it_is_denied(REGISTER, this);
}

fn auto_falls_back_where_it_is_denied(call: (&str, i64), this: &str) {
    need_io_uring();
    if !is_child_of(this, &[], |_| {}) {
        return;
    }
    for (errno, remedy) in [(EPERM, "blocked by"), (ENOSYS, "CONFIG_IO_URING")] {
        sandboxed(call.1, errno.1, || {
            let server = Server::echo(on_loopback(Backend::Auto));
            assert_explained(server.handle.backend(), call.0, errno.0, remedy);
            assert_echoes(&server);
        });
    }
}

#[track_caller]
fn assert_explained(report: &BackendReport, operation: &str, errno: &str, remedy: &str) {
    assert_eq!(report.backend, Backend::Portable);
    let unavailable = report.unavailable.as_ref().expect("io_uring is the first choice");
    assert!(unavailable.operation.starts_with(operation), "{unavailable:?}");
    assert_eq!(unavailable.errno, errno);
    assert!(unavailable.remedy.contains(remedy), "{unavailable:?}");
    let text = report.to_string();
    for part in [operation, errno, remedy, "running on the portable backend"] {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}

#[track_caller]
fn assert_echoes(server: &Server) {
    let client = Client::on_loopback();
    client.send("still served", server.address());
    client.expect("still served", server.address());
}

fn io_uring_that_was_asked_for_is_an_error_where_it_is_denied() {
    need_io_uring();
    for call in [SETUP, ENTER, REGISTER] {
        for (errno, kind) in
            [(EPERM, io::ErrorKind::PermissionDenied), (ENOSYS, io::ErrorKind::Unsupported)]
        {
            sandboxed(call.1, errno.1, || {
                let error = on_loopback(Backend::IoUring).open().map(|_| ());
                let error = error.expect_err("it was denied");
                assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
                assert_eq!(error.kind(), kind);
                let text = error.to_string();
                assert!(text.contains(call.0) && text.contains(errno.0), "{text}");
            });
        }
    }
}

fn a_limit_of_locked_memory_is_explained() {
    let this = "a_limit_of_locked_memory_is_explained";
    let without_privileges = |command: &mut Command| {
        if nix::unistd::Uid::effective().is_root() {
            // CAP_IPC_LOCK would lift the limit.
            command.uid(65_534).gid(65_534);
        }
    };
    need_io_uring();
    if !is_child_of(this, &[("NICRING_TEST_LIMIT", "0")], without_privileges) {
        return;
    }
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).expect("a lower limit is always allowed");
    let ring = io_uring::IoUring::new(8).map(drop);
    let server = Server::echo(on_loopback(Backend::Auto));
    // Rings count as locked memory since Linux 6.14.
    if ring.is_err_and(|error| error.raw_os_error() == Some(libc::ENOMEM)) {
        assert_explained(server.handle.backend(), "io_uring_setup", "ENOMEM", "RLIMIT_MEMLOCK");
    }
    assert_echoes(&server);
}

/// As under a limit of tasks (pids cgroup, TasksMax= of systemd).
fn no_thread_to_be_had_means_the_portable_backend() {
    let this = "no_thread_to_be_had_means_the_portable_backend";
    let unprivileged = |command: &mut Command| {
        if nix::unistd::Uid::effective().is_root() {
            command.uid(65_534).gid(65_534); // no limit holds for root
        }
    };
    need_io_uring();
    if !is_child_of(this, &[], unprivileged) {
        return;
    }
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).expect("a lower limit is always allowed");
    let engine = common::open(on_loopback(Backend::Auto));
    assert_explained(engine.handle().backend(), "starting a thread", "EAGAIN", "RLIMIT_NPROC");
    let error = on_loopback(Backend::IoUring).open().map(drop).expect_err("it takes a thread");
    assert!(error.to_string().contains("TasksMax"), "{error}");
    let error = on_loopback(Backend::Portable).open_async().map(drop).expect_err("so does this");
    assert!(error.to_string().contains("TasksMax"), "{error}");
}

fn sandboxes_are_told_apart_and_told_what_they_need() {
    let refused = |call| {
        sandboxed(call, libc::EAFNOSUPPORT, || common::refused(on_loopback(Backend::IoUring)))
    };
    let error = refused(libc::SYS_socket).to_string();
    assert!(error.contains("RestrictAddressFamilies=AF_NETLINK"), "{error}");
    if has_io_uring() {
        let error = refused(libc::SYS_socketpair).to_string();
        assert!(error.contains("socketpair: EAFNOSUPPORT") && error.contains("AF_UNIX"), "{error}");
    }
}

fn trying_io_uring_in_vain_leaks_no_descriptor() {
    let this = "trying_io_uring_in_vain_leaks_no_descriptor";
    need_io_uring();
    if !is_child_of(this, &[], |_| {}) {
        return;
    }
    let count = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
    for call in [ENTER, REGISTER] {
        sandboxed(call.1, libc::EPERM, || {
            let open = || drop(common::open(on_loopback(Backend::Auto)));
            open();
            let before = count();
            (0..20).for_each(|_| open());
            assert_eq!(count(), before, "{}", call.0);
        });
    }
}

/// The soft limit of most systems is 1,024 descriptors. An engine has more slots than that.
fn io_uring_runs_under_the_usual_limit_of_descriptors() {
    let this = "io_uring_runs_under_the_usual_limit_of_descriptors";
    need_io_uring();
    if !is_child_of(this, &[], |_| {}) {
        return;
    }
    for limit in [1_024, 64] {
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).expect("a lower limit is always allowed");
        assert_echoes(&Server::echo(on_loopback(Backend::IoUring)));
    }
}

fn the_environment_chooses_portable_for_auto_and_for_nothing_else() {
    let this = "the_environment_chooses_portable_for_auto_and_for_nothing_else";
    if !is_child_of(this, &[(Backend::ENVIRONMENT_VARIABLE, "portable")], |_| {}) {
        return;
    }
    let engine = common::open(on_loopback(Backend::Auto));
    let handle = engine.handle();
    assert_eq!(handle.backend().backend, Backend::Portable);
    assert!(handle.backend().unavailable.is_none(), "it was asked for");
    assert_echoes(&Server::echo(on_loopback(Backend::Auto)));
    if has_io_uring() {
        let forced = common::open(on_loopback(Backend::IoUring)).handle();
        assert_eq!(forced.backend().backend, Backend::IoUring);
    }
}

fn the_environment_chooses_io_uring_for_auto_without_falling_back() {
    let this = "the_environment_chooses_io_uring_for_auto_without_falling_back";
    let environment = [(Backend::ENVIRONMENT_VARIABLE, "io_uring")];
    need_io_uring();
    if !is_child_of(this, &environment, |_| {}) {
        return;
    }
    let handle = common::open(on_loopback(Backend::Auto)).handle();
    assert_eq!(handle.backend().backend, Backend::IoUring);
    sandboxed(SETUP.1, libc::EPERM, || {
        let error = on_loopback(Backend::Auto).open().map(|_| ()).expect_err("it was denied");
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        let portable = common::open(on_loopback(Backend::Portable)).handle();
        assert_eq!(portable.backend().backend, Backend::Portable);
    });
}

fn nonsense_in_the_environment_is_an_error_that_names_it() {
    let this = "nonsense_in_the_environment_is_an_error_that_names_it";
    if !is_child_of(this, &[(Backend::ENVIRONMENT_VARIABLE, "epoll")], |_| {}) {
        return;
    }
    let error = on_loopback(Backend::Auto).open().map(|_| ()).expect_err("no such backend");
    assert!(matches!(error, Error::Setting { setting: "NICRING_BACKEND", .. }), "{error:?}");
    assert!(error.to_string().contains("expected auto, io_uring or portable"), "{error}");
}

fn io_uring_runs_where_nothing_denies_it() {
    let this = "io_uring_runs_where_nothing_denies_it";
    need_io_uring();
    if !is_child_of(this, &[], |_| {}) {
        return;
    }
    let server = Server::echo(on_loopback(Backend::Auto));
    let report = server.handle.backend();
    assert_eq!(report.backend, Backend::IoUring, "{report}");
    assert!(report.unavailable.is_none());
    assert_echoes(&server);
}

fn a_sandbox_applied_before_run_ends_it_with_an_error_and_the_port_free() {
    need_io_uring();
    for call in [ENTER, REGISTER] {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let engine = common::open(on_loopback(Backend::IoUring));
            let port = engine.ports()[0];
            let result = sandboxed(call.1, errno, || engine.run(|_| ControlFlow::Continue(())));
            assert_failed(result.map(drop), errno);
            wait_until_free(port);
        }
    }
}

fn a_sandbox_applied_while_it_runs_ends_it_with_an_error_and_the_port_free() {
    need_io_uring();
    let engine = common::open(on_loopback(Backend::IoUring));
    let port = engine.ports()[0];
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let result = engine.run(|batch| {
            for datagram in batch {
                batch.reply(&datagram, b"the last one");
            }
            deny(ENTER.1, libc::EPERM, false);
            ControlFlow::Continue(())
        });
        sender.send(result.map(drop)).expect("the test waits");
    });
    Client::on_loopback().ask("deny", LOCALHOST, port);
    let result = ended.recv_timeout(PATIENCE).expect("run comes to an end");
    assert_failed(result, libc::EPERM);
    wait_until_free(port);
}

fn a_sandbox_around_the_whole_process_ends_an_async_engine_too() {
    let this = "a_sandbox_around_the_whole_process_ends_an_async_engine_too";
    need_io_uring();
    if !is_child_of(this, &[], |_| {}) {
        return;
    }
    let engine = on_loopback(Backend::IoUring).open_async().expect("nothing is denied yet");
    let port = engine.ports()[0];
    let client = Client::on_loopback();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        client.ask("it runs", LOCALHOST, port);
        engine.recv_batch().await.expect("nothing is denied yet");
        deny(ENTER.1, libc::EPERM, true);
        // The engine waits in a call that was allowed. This datagram lets the call return, and the
        // next call is denied.
        client.ask("wake", LOCALHOST, port);
        let until_error = async {
            loop {
                if let Err(error) = engine.recv_batch().await {
                    return error;
                }
            }
        };
        let error = tokio::time::timeout(PATIENCE, until_error).await.expect("it ends");
        assert_failed(Err(error), libc::EPERM);
        let after = tokio::time::timeout(PATIENCE, engine.recv_batch()).await.expect("it ended");
        assert!(matches!(after, Ok(None)), "{after:?}");
    });
    wait_until_free(port);
}

#[track_caller]
fn assert_failed(result: nicring::Result<()>, errno: i32) {
    let error = result.expect_err("its system calls were denied");
    let Error::Backend { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(errno));
    let text = error.to_string();
    assert!(text.contains("sandbox") && text.contains("portable"), "no remedy in {text}");
}

/// The engine cannot free the port where the system calls for that are denied. The kernel frees it
/// a moment later, when the ring is gone.
#[track_caller]
fn wait_until_free(port: u16) {
    wait_until(&format!("port {port} is free"), || common::is_free(port));
}

fn an_engine_closes_in_time_under_a_sandbox_without_having_run() {
    need_io_uring();
    for call in [ENTER, REGISTER] {
        let engine: Engine = common::open(on_loopback(Backend::IoUring));
        let port = engine.ports()[0];
        let start = std::time::Instant::now();
        sandboxed(call.1, libc::EPERM, || drop(engine));
        assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
        wait_until_free(port);
    }
}
