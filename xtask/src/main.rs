//! What the README's commands call: `cargo xtask test`, `demo`, `bench`, `soak`, `package`, `vm`.
mod bench;
mod demo;
mod docs;
mod hang;
mod install;
mod package;
mod packages;
mod progress;
mod sanitize;
mod soak;
mod test;
mod vm;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The project's tasks. Each installs what it needs (Debian packages, as root or with sudo)."
)]
struct Arguments {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Shows it at work: a kernel with TCMU, the daemon, two disks, a file tree, checksums.
    Demo,
    /// Format, lints, licences, unit tests, handler conformance, end-to-end tests on a real kernel.
    Test {
        /// Only these steps.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Only these end-to-end tests.
        #[arg(long, value_delimiter = ',')]
        e2e: Vec<String>,
    },
    /// Measures our disks and the peers', and writes tables to docs/benchmarks. Exit status 1: a goal was missed.
    Bench {
        /// Only these: vm, native.
        only: Vec<String>,
        /// Times that each is measured.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Seconds for each measurement.
        #[arg(long, default_value_t = 4)]
        seconds: u32,
        /// Only these disks: regular expressions, separated by semicolons. Nothing is written down then.
        #[arg(long)]
        targets: Option<String>,
        /// Only these cases, likewise.
        #[arg(long)]
        cases: Option<String>,
    },
    /// Builds the Debian packages, into target/packages.
    Package {
        /// RPMs too.
        #[arg(long)]
        rpm: bool,
    },
    /// Verified load on several disks for a while, with everything that can happen to them in random order; then a look for leaks.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 30)]
        minutes: u32,
        /// Repeats the order of an earlier run, which its first line names.
        #[arg(long)]
        seed: Option<u32>,
        /// Use what is built already.
        #[arg(long)]
        no_build: bool,
    },
    /// Writes the completions and manual pages in dist/ anew, after a change of a command line.
    DistFiles,
    /// Runs a command on a real kernel, as root, with this build on PATH.
    Vm {
        /// GiB of memory.
        #[arg(long, default_value_t = 4)]
        memory: u32,
        /// Processors.
        #[arg(long, default_value_t = 2)]
        cpus: u32,
        /// Use what is built already.
        #[arg(long)]
        no_build: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// The top of the project.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

fn main() -> ExitCode {
    if let Err(error) = std::env::set_current_dir(root()) {
        eprintln!("cargo xtask: {}: {error}", root().display());
        return ExitCode::FAILURE;
    }
    let outcome = match Arguments::parse().command {
        Sub::Demo => demo::run().map(|()| 0),
        Sub::Test { only, e2e } => test::run(&only, &e2e),
        Sub::Bench { only, rounds, seconds, targets, cases } => {
            bench::run(&bench::Options { only, rounds, seconds, targets, cases })
        }
        Sub::Package { rpm } => package::run(rpm).map(|()| 0),
        Sub::Soak { minutes, seed, no_build } => soak::run(minutes, seed, !no_build),
        Sub::DistFiles => test::write_dist_files().map(|()| 0),
        Sub::Vm { memory, cpus, no_build, command } => vm::run_command(memory, cpus, !no_build, &command),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
