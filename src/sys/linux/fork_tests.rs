//! Engines in processes that are forked.
#![allow(unsafe_code)]

use std::{
    env,
    future::Future,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    process::Command,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};

use crate::{Backend, Batch, Engine, Error, Queued};

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn backends() -> impl Iterator<Item = Backend> {
    let has_io_uring = crate::uring::check().is_ok();
    [Backend::IoUring, Backend::Portable]
        .into_iter()
        .filter(move |backend| *backend == Backend::Portable || has_io_uring)
}

pub(super) fn builder(backend: Backend) -> crate::Builder {
    Engine::builder().backend(backend).nic("127.0.0.1").port(0)
}

/// Runs this test once more in a process of its own, and returns true there. The children of this
/// one would hold the sockets of other tests.
#[track_caller]
pub(super) fn is_alone(module: &str, test: &str) -> bool {
    const MARK: &str = "NICRING_TEST_CHILD";
    if env::var_os(MARK).is_some() {
        return true;
    }
    let name = format!("{}::{test}", module.split_once("::").expect("a module").1);
    let mut command = Command::new("/proc/self/exe");
    let output = command.args([&name, "--exact", "--nocapture"]).env(MARK, "1").output();
    let output = output.expect("this program");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test}:\n{text}{error}");
    false
}

/// Runs `in_child` in a child process. It has to return true.
#[track_caller]
fn forked(in_child: impl FnOnce() -> bool) {
    // SAFETY: the child is a copy of a process with several threads, of which it has one. It takes
    // no lock but the allocator's, which is made for this (malloc(3), glibc), and it never returns.
    let child = match unsafe { fork() }.expect("a process") {
        ForkResult::Child => {
            let is_well = catch_unwind(AssertUnwindSafe(in_child)).unwrap_or(false);
            // SAFETY: ends the process at once, without running what its threads have left.
            unsafe { libc::_exit(if is_well { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => child,
    };
    let end = Instant::now() + PATIENCE;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("a child") {
            WaitStatus::StillAlive if Instant::now() < end => {
                thread::sleep(Duration::from_millis(1));
            }
            WaitStatus::StillAlive => {
                let _ = kill(child, Signal::SIGKILL);
                panic!("the child hangs");
            }
            status => return assert_eq!(status, WaitStatus::Exited(child, 0)),
        }
    }
}

pub(super) fn client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    client.connect((Ipv4Addr::LOCALHOST, port)).expect("loopback");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

#[track_caller]
pub(super) fn assert_answered(client: &UdpSocket, text: &str) {
    let mut payload = [0; 16];
    let len = client.recv(&mut payload).expect("an answer");
    assert_eq!(&payload[..len], text.as_bytes());
}

fn echo(batch: &Batch) -> ControlFlow<()> {
    for datagram in batch.iter() {
        batch.reply(&datagram, datagram.payload());
    }
    ControlFlow::Continue(())
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forked))
}

#[test]
fn a_forked_child_cannot_run_its_parents_engine_nor_take_its_datagrams() {
    if !is_alone(
        module_path!(),
        "a_forked_child_cannot_run_its_parents_engine_nor_take_its_datagrams",
    ) {
        return;
    }
    for backend in backends() {
        let mut engine = Some(builder(backend).open().expect("an engine"));
        let port = engine.as_ref().map_or(0, |engine| engine.ports()[0]);
        let client = client(port);
        client.send(b"before").expect("loopback");
        forked(|| is_forked(engine.take().expect("a copy").run(echo)));
        let handle = engine.as_ref().expect("the parent's").handle();
        let mut events = handle.events();
        forked(|| {
            // None of these may wait, or take a lock that the parent's thread had.
            let is_over = events.next().is_none() && events.try_next().is_none();
            let later = handle.events().next();
            is_over && later.is_none() && events.missed_count() == 0
        });
        forked(|| {
            let to = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let queued = handle.fan_out(crate::Egress::default(), to, b"x");
            queued == Queued::Stopped
                && handle.heard_nics().is_empty()
                && handle.stats().stopped_count == 0
        });
        forked(|| {
            handle.stop();
            handle.rescan();
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let SocketAddr::V4(to) = to else { return false };
            let queued = handle.send(crate::Egress::default(), to, b"x");
            drop(engine.take());
            queued == Queued::Stopped && handle.sockets().is_empty()
        });
        let engine = engine.expect("the parent's");
        thread::scope(|scope| {
            let server = scope.spawn(|| engine.run(echo).expect("it serves"));
            assert_answered(&client, "before");
            // While it runs too.
            forked(|| {
                handle.stop();
                handle.stats().nics.is_empty()
            });
            client.send(b"after").expect("loopback");
            assert_answered(&client, "after");
            handle.stop();
            let stats = server.join().expect("no panic");
            assert_eq!(stats.total().received_count(), 2, "{backend}");
        });
    }
}

#[test]
fn shards_in_a_forked_child_are_an_error_and_the_parents_go_on() {
    if !is_alone(module_path!(), "shards_in_a_forked_child_are_an_error_and_the_parents_go_on") {
        return;
    }
    for backend in backends() {
        let mut shards = Some(builder(backend).shards(2).open_shards().expect("shards"));
        let port = shards.as_ref().map_or(0, |shards| shards.ports()[0]);
        forked(|| is_forked(shards.take().expect("a copy").run(|_| echo)));
        let shards = shards.expect("the parent's");
        let handle = shards.handle();
        thread::scope(|scope| {
            let server = scope.spawn(|| shards.run(|_| echo).expect("they serve"));
            for number in 0..20 {
                let client = client(port);
                client.send(number.to_string().as_bytes()).expect("loopback");
                assert_answered(&client, &number.to_string());
            }
            handle.stop();
            assert_eq!(server.join().expect("no panic").total().received_count(), 20, "{backend}");
        });
    }
}

#[test]
fn a_handler_that_forks_ends_the_loop_of_the_child_and_the_parent_goes_on() {
    if !is_alone(
        module_path!(),
        "a_handler_that_forks_ends_the_loop_of_the_child_and_the_parent_goes_on",
    ) {
        return;
    }
    let flows = [ControlFlow::Continue(()), ControlFlow::Break(())];
    for (backend, in_child) in backends().flat_map(|backend| flows.map(|flow| (backend, flow))) {
        let engine = builder(backend).open().expect("an engine");
        let client = client(engine.ports()[0]);
        client.send(b"fork").expect("loopback");
        client.send(b"again").expect("loopback");
        let handle = engine.handle();
        let mut children = Vec::new();
        let result = engine.run(|batch| {
            for datagram in batch.iter().filter(|datagram| datagram.payload() == b"fork") {
                let _ = datagram;
                // SAFETY: as in `forked`.
                match unsafe { fork() }.expect("a process") {
                    ForkResult::Child => {
                        children.clear();
                        return in_child; // back into the loop
                    }
                    ForkResult::Parent { child } => children.push(child),
                }
            }
            let _ = echo(batch);
            if handle.stats().total().received_count() >= 2 {
                handle.stop();
            }
            ControlFlow::Continue(())
        });
        if children.is_empty() {
            let is_well = is_forked(result);
            // SAFETY: as in `forked`.
            unsafe { libc::_exit(if is_well { 0 } else { 1 }) }
        }
        result.expect("the parent serves");
        assert_answered(&client, "fork");
        assert_answered(&client, "again");
        for child in children {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)), "{backend}");
        }
    }
}

#[test]
fn an_async_engine_in_a_forked_child_is_an_error_and_its_drop_disturbs_nobody() {
    if !is_alone(
        module_path!(),
        "an_async_engine_in_a_forked_child_is_an_error_and_its_drop_disturbs_nobody",
    ) {
        return;
    }
    for backend in backends() {
        let mut engine = Some(builder(backend).open_async().expect("an engine"));
        let client = client(engine.as_ref().map_or(0, |engine| engine.ports()[0]));
        forked(|| {
            let engine = engine.take().expect("a copy");
            let receive = pin!(engine.recv_batch());
            let polled = receive.poll(&mut Context::from_waker(Waker::noop()));
            matches!(polled, Poll::Ready(Err(Error::Forked)))
        });
        let engine = engine.expect("the parent's");
        client.send(b"after").expect("loopback");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let batch = runtime.block_on(engine.recv_batch()).expect("a batch").expect("it runs");
        let _ = echo(&batch);
        drop(batch);
        assert_answered(&client, "after");
    }
}
