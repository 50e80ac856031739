//! Sends the same random SCSI commands to two disks, keeps both the same, and compares what they answer.
//!
//! One is this project's, the other one a peer that somebody else wrote, as the kernel's `scsi_debug`. Each difference is held against a
//! table of accepted ones; what is not in it is printed with the command that shows it again, and the exit status is 1.
mod answer;
mod command;
mod compare;
mod features;
mod generate;
mod lists;
mod media;
mod random;
mod report;
mod request;
mod run;
mod sg;
mod structure;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::Parser;

use crate::{
    random::Random,
    request::{Payload, Request, unhex},
    run::Runner,
    sg::Device,
    table::Table,
};

/// Sends the same random SCSI commands to two disks and compares the answers. EVERYTHING ON BOTH DISKS IS LOST.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Our disk: /dev/sgN or /dev/sdX
    ours: PathBuf,
    /// The other disk, of the same size and block length
    peer: PathBuf,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many commands
    #[arg(long, default_value_t = 1000)]
    commands: u64,
    /// Stops after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Sends only this CDB
    #[arg(long, value_name = "HEX", value_parser = |text: &str| unhex(text).map(Bytes))]
    only: Option<Bytes>,
    /// Data-Out of it: hexadecimal, random:SEED:LENGTH or medium:LBA:HELD:FLIP:LENGTH
    #[arg(long, requires = "only", default_value = "none")]
    out: Payload,
    /// Bytes of room for its Data-In
    #[arg(long, requires = "only", default_value_t = 0)]
    room: usize,
    /// Table of accepted differences, in place of the one that is built in
    #[arg(long)]
    table: Option<PathBuf>,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
    /// Prints accepted differences too, and the entries of the table that were not needed
    #[arg(long, short)]
    verbose: bool,
}

/// So that a list of bytes is one argument.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let text = match &arguments.table {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => include_str!("../differences.toml").to_string(),
    };
    let table = Table::read(&text)?;
    let open = |path: &PathBuf| Device::open(path).with_context(|| path.display().to_string());
    let (mut ours, mut peer) = (open(&arguments.ours)?, open(&arguments.peer)?);
    let mut runner = Runner::new(&mut ours, &mut peer, &table)?;
    let mut differ = None;
    if let Some(Bytes(cdb)) = &arguments.only {
        let request = Request { cdb: cdb.clone(), out: arguments.out.clone(), room: arguments.room };
        for (whose, answer) in ["ours", "peer"].into_iter().zip(runner.step(&request)?) {
            println!("{whose}: {}", report::describe(&answer));
        }
    } else {
        anyhow::ensure!(runner.media_differ()?.is_none(), "the two media differ from the beginning");
        let mut random = Random::new(arguments.seed);
        let start = Instant::now();
        for at in 0..arguments.commands {
            if arguments.seconds.is_some_and(|seconds| start.elapsed().as_secs() >= seconds) {
                break;
            }
            let request = generate::request(&mut random, &runner.geometry);
            runner.step(&request).with_context(|| format!("command {at}: {request:?}"))?;
        }
        runner.report.rate = runner.report.commands as f64 / start.elapsed().as_secs_f64();
        differ = runner.media_differ()?;
    }
    let report = &runner.report;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{}", report.text(arguments.verbose));
    }
    if arguments.verbose && !arguments.json {
        let keys: Vec<String> = report.differences.keys().cloned().collect();
        table.unused(&keys).for_each(|accepted| println!("not needed: {}", accepted.pattern));
    }
    if let Some(lba) = differ {
        println!("in the end the media differ at block {lba}");
    }
    Ok(if report.unexplained().next().is_none() && differ.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
