//! `examples/name_server.rs` is what README.md says: real clients of both protocols find servers
//! through it. `cargo test` builds it, but not `cargo test --test epics`.

use std::{env, fs, path::PathBuf};

use crate::{
    cases::{CLIENTS, SERVERS, Server, TABLE, TemporaryDirectory, inside, python_and_network},
    common::{cases, need_io_uring, skip},
};

cases!(
    clients_find_servers_through_the_example_on_io_uring,
    clients_find_servers_through_the_example_on_portable,
);

fn clients_find_servers_through_the_example_on_io_uring() {
    need_io_uring();
    clients_find_servers_through_the_example("io_uring");
}

fn clients_find_servers_through_the_example_on_portable() {
    clients_find_servers_through_the_example("portable");
}

fn clients_find_servers_through_the_example(backend: &str) {
    let (python, network) = python_and_network();
    let example = need_example();
    let files = TemporaryDirectory::new(&format!("example-{backend}"));
    let _servers = SERVERS.map(|server| server.start(&network.server, &python, &files));
    let path = files.path.join("table.txt");
    fs::write(&path, TABLE).expect("the table can be written");
    let mut command = inside(&network.server, &example);
    command.arg(path).env("NICRING_BACKEND", backend);
    let (_server, line) = Server::start(command, &files, "name_server", "ready: ");
    let ready = format!("ready: CA port 5064, PVA port 5076, {backend} (");
    assert!(line.starts_with(&ready), "{line}");
    for (asker, address) in network.clients.iter().zip(["10.77.1.1", "10.77.2.255"]) {
        for client in &CLIENTS[..3] {
            let read = client.read(asker, &python, client.known, &["--addr-list", address]);
            assert_eq!(read, Ok(()), "on {backend}:\n{}", files.logs());
        }
    }
}

fn need_example() -> PathBuf {
    let test = env::current_exe().expect("the path of this program");
    let built = test.ancestors().nth(2).expect("the folder of what Cargo built");
    let example = built.join("examples/name_server");
    if !example.is_file() {
        skip("epics", "the example is not built; cargo build --example name_server builds it");
    }
    example
}
