//! Many NICs, and a limit of open files.

use std::net::Ipv4Addr;

use nicring::Backend;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    common::{cases, netns, sandbox::is_child_of},
    host::Host,
    oracle::{PORT, builder},
};

cases!(
    three_hundred_nics_are_too_many_for_1024_descriptors_and_the_error_says_so_by_io_uring,
    three_hundred_nics_are_too_many_for_1024_descriptors_and_the_error_says_so_by_portable,
    three_hundred_nics_are_served_with_the_descriptors_that_systemd_allows_by_io_uring,
    three_hundred_nics_are_served_with_the_descriptors_that_systemd_allows_by_portable,
);

const NIC_COUNT: u32 = 300;

fn three_hundred_nics_are_too_many_for_1024_descriptors_and_the_error_says_so_by_io_uring() {
    let this = "many::three_hundred_nics_are_too_many_for_1024_descriptors_and_the_error_says_so_\
                by_io_uring";
    three_hundred_nics(this, Backend::IoUring, 1024);
}

fn three_hundred_nics_are_too_many_for_1024_descriptors_and_the_error_says_so_by_portable() {
    let this = "many::three_hundred_nics_are_too_many_for_1024_descriptors_and_the_error_says_so_\
                by_portable";
    three_hundred_nics(this, Backend::Portable, 1024);
}

fn three_hundred_nics_are_served_with_the_descriptors_that_systemd_allows_by_io_uring() {
    let this = "many::three_hundred_nics_are_served_with_the_descriptors_that_systemd_allows_\
                by_io_uring";
    three_hundred_nics(this, Backend::IoUring, 524_288);
}

fn three_hundred_nics_are_served_with_the_descriptors_that_systemd_allows_by_portable() {
    let this = "many::three_hundred_nics_are_served_with_the_descriptors_that_systemd_allows_\
                by_portable";
    three_hundred_nics(this, Backend::Portable, 524_288);
}

fn three_hundred_nics(this: &str, backend: Backend, limit: u64) {
    netns::on(backend, |backend| {
        if is_child_of(this, &[], |_| {}) {
            serve_three_hundred_nics(backend, limit);
        }
    });
}

fn serve_three_hundred_nics(backend: Backend, limit: u64) {
    let host = Host::new(1);
    let add = |number: u32| {
        let (high, low) = (100 + number / 250, number % 250);
        format!(
            "link add v{number} type veth peer name w{number}\n\
             address add 10.{high}.{low}.1/24 brd + dev v{number}\n\
             link set v{number} up\n\
             link set w{number} up\n"
        )
    };
    host.server.configure(&(0..NIC_COUNT).map(add).collect::<String>());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let limit = limit.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).expect("anyone may lower it");
    let builder = builder(backend);
    if limit < 4 * u64::from(NIC_COUNT) {
        let error = host.server.run(|| crate::common::refused(builder)).to_string();
        assert!(error.contains("RLIMIT_NOFILE") && error.contains("os error 24"), "{error}");
        return;
    }
    let server = host.server.echo(builder);
    assert!(server.handle.failed_nics().is_empty(), "{:#?}", server.handle.failed_nics());
    assert!(server.handle.sockets().len() > 4 * NIC_COUNT as usize);
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    for to in [Ipv4Addr::new(10, 101, 49, 1), Ipv4Addr::new(10, 201, 1, 255)] {
        client.ask("one of many", to, PORT);
        assert_eq!(server.next().text(), "one of many");
    }
}
