//! `nicring doctor`: what works here, and what prevents the rest.

#[cfg(target_os = "linux")]
mod firewall;
mod hearing;
#[cfg(target_os = "linux")]
mod outside;
#[cfg(not(target_os = "linux"))]
#[path = "outside_absent.rs"]
mod outside;

use std::{net::Ipv4Addr, process::ExitCode};

use clap::Args;
use nicring::{Backend, Engine, Filter, Nics, Unicast, search::Protocol};

use crate::cli::{
    environment::Environment,
    failure::Failure,
    host,
    listen::{ListenArguments, ListenPlan, by_engine},
    port_holders::is_held,
    text::{Console, printable, wrapped},
};

/// Tells what io_uring grants here, the NICs and sockets, who else holds the ports, and what to do
///
/// Takes the options of `nicring serve`, and follows the same environment. It opens the sockets
/// for a moment and answers nothing. Exit code 0 if `nicring serve` would work.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    listen: ListenArguments,
}

pub fn run(arguments: &Arguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let console = Console::new(false);
    console.say("System");
    for (name, value) in host::facts() {
        say_row(console, name, &value);
    }
    console.say("\nBackends");
    for backend in [Backend::IoUring, Backend::Portable] {
        say_row(console, &backend.to_string(), &try_backend(backend));
    }
    let chosen = match std::env::var(Backend::ENVIRONMENT_VARIABLE) {
        Ok(value) => format!("{}={value}", Backend::ENVIRONMENT_VARIABLE),
        Err(_) => format!("{} is not set", Backend::ENVIRONMENT_VARIABLE),
    };
    let asked = arguments.listen.backend();
    say_row(console, "chosen by", &format!("--backend {asked}, {chosen}"));
    say_row(console, "--shards", &try_shards());
    let nics = Nics::enumerate()?;
    tell_nics(&nics, console);
    let plans = arguments.listen.plans(environment)?;
    let ports = plans.each_ref().map(|plan| plan.port);
    tell_holders(&plans, console);
    let opened = tell_sockets(&arguments.listen, plans, console);
    console.say("\nOutside");
    outside::lines(&ports, &nics).iter().for_each(|line| console.say(line));
    match opened {
        Ok(0) => console.say("\nnicring serve would work here."),
        Ok(count) => {
            console.say(&format!("\nnicring serve would work here, but for {count} sockets."));
        }
        Err(failure) => {
            console.say(&format!("\nnicring serve would not work here: {failure}"));
            return Ok(failure.exit_code());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say_row(console: Console, name: &str, text: &str) {
    row(name, text).iter().for_each(|line| console.say(line));
}

fn row(name: &str, text: &str) -> Vec<String> {
    wrapped(&format!("  {name:<26}"), text)
}

/// Opens a backend on an unused port of the loopback interface, and describes the result.
fn try_backend(backend: Backend) -> String {
    let builder = Engine::builder().port(0).nic(Ipv4Addr::LOCALHOST).unicast(Unicast::Take);
    match builder.backend(backend).open() {
        Ok(engine) => format!("works: {}", engine.handle().backend().setup),
        Err(error) => format!("refused: {error}"),
    }
}

/// Opens two shards, with a filter, as [`try_backend`] does.
fn try_shards() -> String {
    let filter = Filter::new().search(Protocol::Ca).search(Protocol::Pva);
    let builder = Engine::builder().port(0).nic(Ipv4Addr::LOCALHOST).filter(filter);
    match builder.shards(2).open_shards() {
        Ok(shards) if shards.len() == 2 => {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            format!("work, and so does --filter; {count} processors may be used here")
        }
        Ok(_) => "one only: this system has no socket filters".to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}

fn tell_nics(nics: &Nics, console: Console) {
    console.say("\nNICs");
    for nic in nics {
        let addresses = nic.addresses.iter().map(|own| {
            let prefix_len = own.netmask.to_bits().leading_ones();
            match own.broadcast {
                Some(broadcast) => format!("{}/{prefix_len} (to all: {broadcast})", own.address),
                None => format!("{}/{prefix_len}", own.address),
            }
        });
        let state = if nic.is_up { "up" } else { "down: not listened on" };
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        let head = format!("  {:<16} {state:<10}", printable(&nic.name));
        wrapped(&head, &addresses).iter().for_each(|line| console.say(line));
    }
}

fn tell_holders(plans: &[ListenPlan], console: Console) {
    console.say("\nPorts");
    for plan in plans {
        let name = format!("{} {}", plan.protocol, plan.port);
        if !is_held(plan.port) {
            console.say(&format!("  {name:<26}free"));
            continue;
        }
        let holders = host::port_holders(plan.port);
        if holders.is_empty() {
            console.say(&format!("  {name:<26}held by another program"));
        }
        for holder in holders {
            let (program, address) = (holder.program(), holder.address);
            console.say(&format!("  {name:<26}held by {program} at {address}"));
        }
        if let Some(note) = &plan.note {
            wrapped(&" ".repeat(28), note).iter().for_each(|line| console.say(line));
        }
    }
}

/// Opens what `nicring serve` would open. Returns how many sockets could not be opened.
fn tell_sockets(
    arguments: &ListenArguments,
    plans: [ListenPlan; 2],
    console: Console,
) -> Result<usize, Failure> {
    let mut failed_count = 0;
    for plans in by_engine(plans) {
        let ports: Vec<_> =
            plans.iter().map(|plan| format!("{} {}", plan.protocol, plan.port)).collect();
        console.say(&format!("\nHeard, and by which socket: {}", ports.join(", ")));
        let engine = arguments.builder(&plans).open()?;
        let handle = engine.handle();
        hearing::lines(&handle, &plans).iter().for_each(|line| console.say(line));
        let count = handle.sockets().len();
        console.say(&format!("  {count} sockets, backend: {}", handle.backend().backend));
        failed_count += handle.failed_nics().len();
    }
    Ok(failed_count)
}
