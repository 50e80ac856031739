//! `tcmu-runnerd`: the daemon, and, with a subcommand of its own, its handler hosts.
#![deny(clippy::print_stdout)]
#[cfg(test)]
mod dist_files;

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{ArgAction, Parser, Subcommand};
use tcmu::server::IoEngine;
use tcmu_runnerd::{
    config::Config,
    errln,
    host::{self, HostOptions},
    legacy, logging, outln, output, plugins, process,
    protocol::{Channel, FromHost, HandlerFacts},
    run_dir::{self, RunDir},
    supervisor::{self, Start},
};

/// The userspace side of Linux's TCMU: serves SCSI disks through handler plugins.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; /etc/tcmu/tcmu.toml if that is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directories with plugins, instead of the configuration's.
    #[arg(long, value_name = "DIR[:DIR]", env = "TCMU_HANDLER_PATH", value_delimiter = ':')]
    handler_path: Option<Vec<PathBuf>>,
    /// Where the daemon's lock and its hosts' sockets are.
    #[arg(long, value_name = "DIR", default_value = run_dir::DEFAULT_PATH)]
    run_dir: PathBuf,
    /// error, warn, info, debug or trace, instead of the configuration's.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Validate the configuration and the plugins, print what would be loaded, and exit.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    legacy: legacy::Options,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Subcommand)]
enum Sub {
    /// Runs one handler (started by the daemon).
    #[command(hide = true)]
    HandlerHost {
        /// For those who look at a list of processes.
        subtype: String,
        plugin: PathBuf,
        #[arg(long)]
        log_level: String,
        #[arg(long)]
        reactors: usize,
        #[arg(long)]
        workers: usize,
        #[arg(long)]
        io_engine: IoEngine,
        /// Microseconds.
        #[arg(long)]
        poll: u64,
        #[arg(long, action = ArgAction::Set)]
        stay_put: bool,
        #[arg(long, action = ArgAction::Set)]
        give_way: bool,
        #[arg(long)]
        device: Option<String>,
        #[arg(long)]
        user: Option<String>,
        #[arg(long)]
        unconfined: bool,
        #[arg(long)]
        pageable: bool,
    },
    /// Loads one plugin and says what it is (started by --check).
    #[command(hide = true)]
    Probe { plugin: PathBuf },
    /// Says whether this program can take over from the running daemon (asked by that).
    #[command(hide = true)]
    Successor,
}

fn main() -> ExitCode {
    let outcome = run(Arguments::parse()).and_then(|code| output::finish().map(|()| code).context("standard output"));
    logging::flush();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            errln!("tcmu-runnerd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Sub::Probe { plugin }) = &arguments.command {
        host::probe(plugin)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Sub::HandlerHost {
        plugin,
        log_level,
        reactors,
        workers,
        io_engine,
        poll,
        stay_put,
        give_way,
        device,
        user,
        unconfined,
        pageable,
        ..
    }) = &arguments.command
    {
        host::run(HostOptions {
            plugin,
            log_level,
            reactors: *reactors,
            workers: *workers,
            io_engine: *io_engine,
            poll: Duration::from_micros(*poll),
            stay_put: *stay_put,
            give_way: *give_way,
            device: device.as_deref(),
            user: user.as_deref(),
            confined: !unconfined,
            lock_memory: !pageable,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    arguments.legacy.notes().iter().for_each(|note| errln!("tcmu-runnerd: {note}"));
    let mut config = Config::load(arguments.config.as_deref())?;
    if let Some(path) = &arguments.handler_path {
        config.handler_path.clone_from(path);
    }
    let log_level = arguments.log_level.or_else(|| arguments.legacy.debug.then(|| "debug".into()));
    if let Some(level) = &log_level {
        if !logging::is_level(level) {
            bail!("--log-level {level}: error, warn, info, debug or trace is needed");
        }
        config.log_level.clone_from(level);
    }
    if matches!(arguments.command, Some(Sub::Successor)) {
        outln!("{}", supervisor::successor_answer());
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        return check(&config);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("this daemon configures the kernel: start it as root (--check works without)");
    }
    process::raise_open_files(arguments.legacy.nofile).context("-f")?;
    process::set_io_flusher();
    let locked = if config.lock_memory { process::lock_memory() } else { Ok(()) };
    let spared = process::spare_from_oom_killer();
    logging::start(&config.log_level, "");
    logging::write_later()?;
    if let Err(error) = locked {
        tracing::warn!(%error, "memory is not locked");
    }
    if let Err(error) = spared {
        tracing::warn!(%error, "the OOM killer may choose this process");
    }
    let run = RunDir::lock(&arguments.run_dir)?;
    // Now, while it is still the one that runs.
    let program = std::env::current_exe()?;
    let Arguments { config: config_path, handler_path, .. } = arguments;
    supervisor::run(Start { program, config, config_path, log_level, handler_path }, run)?;
    Ok(ExitCode::SUCCESS)
}

/// Loads each plugin in a process of its own and says what became of it.
fn check(config: &Config) -> anyhow::Result<ExitCode> {
    outln!("configuration: valid");
    let mut bad = 0;
    let mut subtypes: Vec<String> = Vec::new();
    for plugin in plugins::find(&config.handler_path) {
        let facts = plugins::check(&plugin).map_err(anyhow::Error::from).and_then(|()| probe(&plugin));
        match facts {
            Ok(facts) if !config.of_handler(&facts.subtype).enabled => {
                outln!("disabled: {} ({})", facts.subtype, plugin.display());
            }
            Ok(facts) if subtypes.contains(&facts.subtype) => {
                bad += 1;
                outln!("refused: {}: another plugin before it has the subtype {:?}", plugin.display(), facts.subtype);
            }
            Ok(facts) => {
                outln!("handler: {} {} ({}, ABI {})", facts.subtype, facts.version, plugin.display(), facts.abi);
                subtypes.push(facts.subtype);
            }
            Err(error) => {
                bad += 1;
                outln!("refused: {error:#}");
            }
        }
    }
    if subtypes.is_empty() && bad == 0 {
        outln!("no plugins in {:?}", config.handler_path);
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn probe(plugin: &std::path::Path) -> anyhow::Result<HandlerFacts> {
    let (channel, theirs) = Channel::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("probe")
        .arg(plugin)
        .stdin(Stdio::from(theirs))
        .stderr(Stdio::null())
        .spawn()?;
    let said = channel.receive::<FromHost>();
    drop(channel);
    let ended = child.wait()?;
    match said? {
        Some((FromHost::Ready(facts), _)) => Ok(facts.handler),
        Some((FromHost::Unloadable { reason }, _)) => bail!(reason),
        _ => bail!("{}: its process ended while it was loaded ({ended})", plugin.display()),
    }
}
