//! `nicring`: tells EPICS clients where their process variables are, on every NIC at once.

#![forbid(unsafe_code)]

mod ask;
mod check;
mod cli;
mod doctor;
mod serve;
mod storm;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::cli::{environment::Environment, failure::Failure, text::Console};

/// Tells EPICS clients where their process variables are, on every NIC at once
///
/// An EPICS client that looks for a process variable sends a SEARCH by UDP. `nicring serve` hears
/// these SEARCHes on every network interface, looks the names up in a file, and answers with the
/// server that has them, for Channel Access and for PVAccess. It carries no data itself: the
/// client then connects to that server.
#[derive(Debug, Parser)]
#[command(name = "nicring", version, after_help = EXAMPLES, after_long_help = LONG_AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Arguments>),
    Ask(ask::Arguments),
    Check(check::Arguments),
    Storm(storm::Arguments),
    Doctor(doctor::Arguments),
}

const EXAMPLES: &str = "\
Examples:
  nicring serve --demo                 see it at work, on the loopback interface only
  nicring doctor                       what this machine grants, who else holds the ports
  nicring check pvs.txt                what is in a file, and its mistakes
  nicring serve --pvs pvs.txt          answer on every NIC
  nicring ask ioc1:temp                who answers for a name, and how fast
  nicring storm 192.0.2.255 --name ioc1:temp
                                       ask a whole subnet for one name, and measure";

const LONG_AFTER_HELP: &str = "\
Examples:
  nicring serve --demo                 see it at work, on the loopback interface only
  nicring doctor                       what this machine grants, who else holds the ports
  nicring check pvs.txt                what is in a file, and its mistakes
  nicring serve --pvs pvs.txt          answer on every NIC
  nicring ask ioc1:temp                who answers for a name, and how fast
  nicring storm 192.0.2.255 --name ioc1:temp
                                       ask a whole subnet for one name, and measure

Environment:
  NICRING_BACKEND  io_uring or portable: what --backend auto means
  NICRING_LOG      what to log on stderr, such as debug or nicring=trace; before RUST_LOG;
                   default warn

  `nicring serve --help` lists the EPICS variables that it follows.

Exit codes: 0 all is well; 1 it failed while running; 2 it was asked for something that cannot be.";

fn main() -> ExitCode {
    // Prints usage errors, help and version itself, and ends with 2 or 0.
    let arguments = Arguments::parse();
    cli::host::raise_open_files_limit();
    // Writes what is still to be written when it is dropped.
    let mut log = None;
    let started = start_logging().map(|guard| log = Some(guard));
    match started.and_then(|()| run(arguments.command)) {
        Ok(code) => code,
        Err(failure) => {
            Console::to_stderr().say(&format!("nicring: {failure}"));
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    match command {
        Command::Serve(arguments) if arguments.is_demo() => serve::demo::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments, &environment),
        Command::Ask(arguments) => ask::run(&arguments, &environment),
        Command::Check(arguments) => check::run(&arguments, &environment),
        Command::Storm(arguments) => storm::run(&arguments, &environment),
        Command::Doctor(arguments) => doctor::run(&arguments, &environment),
    }
}

/// Lines are written by a thread of their own, and dropped if it falls far behind: a pipe that
/// nobody reads stops no server.
fn start_logging() -> Result<WorkerGuard, Failure> {
    let set = |name: &'static str| {
        let value = env::var(name).ok().filter(|value| !value.is_empty())?;
        Some((name, value))
    };
    let filter = match set("NICRING_LOG").or_else(|| set("RUST_LOG")) {
        None => EnvFilter::new("warn"),
        Some((name, value)) => EnvFilter::try_new(&value).map_err(|error| {
            let expected = "expected a level such as debug, or target=level, ...";
            Failure::Usage(format!("{name}: {value:?}: {error}: {expected}"))
        })?,
    };
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(guard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
