//! Async handlers that fork.
#![allow(unsafe_code)]

use std::{
    net::{Ipv4Addr, UdpSocket},
    rc::Rc,
    sync::Mutex,
    thread,
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};

use super::fork_tests::{assert_answered, backends, builder, client, is_alone};
use crate::BatchLease;

#[test]
fn an_async_handler_that_forks_leaves_the_sockets_and_tasks_of_the_parent_alone() {
    const NAME: &str =
        "an_async_handler_that_forks_leaves_the_sockets_and_tasks_of_the_parent_alone";
    if !is_alone(module_path!(), NAME) {
        return;
    }
    for backend in backends() {
        let shards = builder(backend).shards(1).open_shards().expect("a shard");
        let (handle, engine) = (shards.handle(), client(shards.ports()[0]));
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        own.set_nonblocking(true).expect("a socket");
        let task = client(own.local_addr().expect("an address").port());
        let own = Mutex::new(Some(own));
        let child: &Mutex<Option<Pid>> = &Mutex::default();
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let served = shards.run_async(|_, _| {
                    let own = own.lock().expect("no panic").take().expect("one shard");
                    let own = tokio::net::UdpSocket::from_std(own).expect("within the runtime");
                    let own = Rc::new(own);
                    tokio::task::spawn_local(echo(Rc::clone(&own)));
                    move |batch: BatchLease| {
                        let _ = &own; // the handler's too
                        batch.iter().for_each(|one| _ = batch.reply(&one, one.payload()));
                        if batch.iter().any(|one| one.payload() == b"fork") {
                            // SAFETY: of the child's threads only this one is there. It goes back
                            // into the loop, which ends, and so does the child.
                            let forked = unsafe { fork() }.expect("a process");
                            if let ForkResult::Parent { child: pid } = forked {
                                *child.lock().expect("no panic") = Some(pid);
                            }
                        }
                        std::future::ready(())
                    }
                });
                served.expect("the parent serves");
            });
            for (socket, text) in
                [(&task, "before"), (&engine, "fork"), (&task, "after"), (&engine, "again")]
            {
                socket.send(text.as_bytes()).expect("loopback");
                assert_answered(socket, text);
                let child = child.lock().expect("no panic").take();
                if let Some(child) = child {
                    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)), "{backend}");
                }
            }
            handle.stop();
            server.join().expect("no panic");
        });
    }
}

async fn echo(socket: Rc<tokio::net::UdpSocket>) {
    let mut payload = [0; 16];
    while let Ok((len, from)) = socket.recv_from(&mut payload).await {
        let _ = socket.send_to(&payload[..len], from).await;
    }
}
