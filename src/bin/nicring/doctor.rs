//! `nicring doctor`: what works here, and what prevents the rest.

use std::process::ExitCode;

use clap::Args;
use nicring::{Backend, Engine, Nics, Unicast};

use crate::cli::{
    environment::Environment,
    failure::Failure,
    host,
    listen::{ListenArguments, ListenPlan, by_engine},
    port_holders::is_held,
    text::Console,
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
        console.say(&format!("  {name:<26}{value}"));
    }
    console.say("\nBackends");
    for backend in [Backend::IoUring, Backend::Portable] {
        console.say(&format!("  {:<26}{}", backend.to_string(), try_backend(backend)));
    }
    let chosen = match std::env::var(Backend::ENVIRONMENT_VARIABLE) {
        Ok(value) => format!("{}={value}", Backend::ENVIRONMENT_VARIABLE),
        Err(_) => format!("{} is not set", Backend::ENVIRONMENT_VARIABLE),
    };
    let asked = arguments.listen.backend();
    console.say(&format!("  {:<26}--backend {asked}, {chosen}", "chosen by"));
    tell_nics(console)?;
    let plans = arguments.listen.plans(environment)?;
    tell_holders(&plans, console);
    match tell_sockets(&arguments.listen, plans, console) {
        Ok(()) => {
            console.say("\nnicring serve would work here.");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            console.say(&format!("\nnicring serve would not work here: {failure}"));
            Ok(failure.exit_code())
        }
    }
}

/// Opens a backend on an unused port of the loopback interface, and describes the result.
fn try_backend(backend: Backend) -> String {
    let filter = nicring::NicFilter::Address(std::net::Ipv4Addr::LOCALHOST);
    let builder = Engine::builder().port(0).nic(filter).unicast(Unicast::Take);
    match builder.backend(backend).open() {
        Ok(engine) => format!("works: {}", engine.handle().backend().setup),
        Err(error) => format!("refused: {error}"),
    }
}

fn tell_nics(console: Console) -> Result<(), Failure> {
    console.say("\nNICs");
    for nic in &Nics::enumerate()? {
        let addresses = nic.addresses.iter().map(|own| {
            let prefix_len = own.netmask.to_bits().leading_ones();
            match own.broadcast {
                Some(broadcast) => format!("{}/{prefix_len} (to all: {broadcast})", own.address),
                None => format!("{}/{prefix_len}", own.address),
            }
        });
        let state = if nic.is_up { "up" } else { "down: not listened on" };
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        console.say(&format!("  {:<16}{:<10}{addresses}", nic.name, state));
    }
    Ok(())
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
            console.say(&format!("  {:<26}{note}", ""));
        }
    }
}

/// Opens what `nicring serve` would open.
fn tell_sockets(
    arguments: &ListenArguments,
    plans: [ListenPlan; 2],
    console: Console,
) -> Result<(), Failure> {
    console.say("\nSockets");
    for plans in by_engine(plans) {
        let engine = arguments.builder(&plans).open()?;
        let handle = engine.handle();
        console.say(&format!("  backend: {}", handle.backend()));
        for socket in handle.sockets() {
            console.say(&format!("  {socket}"));
        }
    }
    Ok(())
}
