//! `tcmuctl`: makes disks, looks after the daemon that serves them, and tests handlers.
//!
//! | module | commands |
//! |---|---|
//! | [`list`] | `status`, `handlers`, `devices`, `handler list`, `info`, `reload` |
//! | [`create`], [`change`], [`exports`] | `create`; `delete`, `resize`, `set`; `attach`, `detach` |
//! | [`show`] | `device show` |
//! | [`apply`], [`save`] | disks from files, and files from disks |
//! | [`disk`] | what these have in common |
//! | [`statistics`], [`top`], [`trace`] | `stats`; `top`; `trace` |
//! | [`doctor`] | what is wrong with this machine |
//! | [`handler`], [`reload`], [`tune`] | `handler test`, `reload --exec`, `tune` |
#![deny(clippy::print_stdout)]

// out!, outln!, errln!
#[macro_use]
extern crate tcmu_runnerd;

mod apply;
mod change;
mod create;
mod daemon;
mod disk;
#[cfg(test)]
#[path = "../../dist_files.rs"]
mod dist_files;
mod doctor;
mod exports;
mod handler;
mod list;
mod migrate;
mod reload;
mod save;
mod show;
mod statistics;
mod table;
mod top;
mod trace;
mod tune;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tcmu_runnerd::output;

use daemon::with_daemon;

/// Makes disks, looks after tcmu-runnerd, and tests handlers.
///
/// Exit status: 0 done, 1 failed, 2 the command line is wrong.
#[derive(Parser)]
#[command(name = "tcmuctl", version)]
struct Arguments {
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Whether the daemon runs, and how much it has to do.
    Status,
    /// The handlers and their plugins.
    Handlers,
    /// The devices and what was done for them.
    Devices,
    /// About single devices.
    #[command(subcommand)]
    Device(DeviceSub),
    /// Makes a disk and exports it. When a step fails, nothing stays behind.
    Create(create::Create),
    /// Takes disks away with all their exports; their data stays.
    Delete(change::Delete),
    /// Makes a disk larger or smaller while it is used.
    Resize(change::Resize),
    /// Changes a disk's switches and limits, all or none.
    Set(change::Set),
    /// Exports a disk that is there.
    #[command(visible_alias = "export")]
    Attach(exports::Attach),
    /// Takes exports away; the disk stays.
    Detach(exports::Detach),
    /// Makes disks as files describe them; shows first what it would do.
    Apply(apply::Apply),
    /// Writes the file that describes a disk.
    Save(save::Save),
    /// Looks for what keeps disks from being served, and says what mends it. Exit status 1: something is wrong.
    Doctor,
    /// What was done for each device and by each handler, and how long it took.
    Stats(statistics::Stats),
    /// What devices do now: rates, latencies, queues; the busiest first. Ctrl-C ends it.
    ///
    /// Keys, on a terminal: up and down (or k and j), home and end select a device, enter shows its latencies, s sorts by another column,
    /// space pauses, + and - change the interval, escape or q goes back or ends it.
    Top(top::Top),
    /// Writes each command of a device to a file, and prints such files.
    #[command(subcommand)]
    Trace(trace::Trace),
    /// Log more or less: error, warn, info, debug, trace, or a filter.
    LogLevel {
        /// The level.
        level: String,
    },
    /// The kernel's limits of each device: what they cost and how to change them.
    Tune {
        /// Only these, as user_0/name.
        devices: Vec<String>,
    },
    /// Read the configuration again.
    Reload {
        /// Also exchange the daemon for the program that is on disk now, as after an upgrade, without a pause in I/O.
        #[arg(long)]
        exec: bool,
    },
    /// Convert tcmu-runner's configuration.
    Migrate(migrate::Migrate),
    /// About handlers.
    #[command(subcommand)]
    Handler(HandlerSub),
}

#[derive(Subcommand)]
enum DeviceSub {
    /// Everything that is known of a device.
    Show {
        /// Its name, or user_<number>/<name>.
        name: String,
    },
}

#[derive(Subcommand)]
enum HandlerSub {
    /// The handlers and their plugins.
    List,
    /// Everything that is known of a handler, and what its config strings look like.
    Info {
        /// Its subtype.
        name: String,
    },
    /// Tests a plugin against a model, without a kernel or root. Exit status: 0 all passed, 1 some failed, 2 it can't be tested.
    Test(handler::Test),
    /// Restarts a handler with the plugin that is on disk now. Its devices pause for a moment; no command fails.
    Restart {
        /// Its subtype.
        name: String,
    },
    /// Restarts the handlers whose plugin on disk is another than the one they run.
    Reload {
        /// Only these, whatever their plugins are.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let outcome = match arguments.command {
        Sub::Handler(HandlerSub::Test(test)) => return handler::test(&test, json),
        Sub::Handler(HandlerSub::List) | Sub::Handlers => list::handlers(json),
        Sub::Handler(HandlerSub::Info { name }) => list::handler_info(&name, json),
        Sub::Handler(HandlerSub::Restart { name }) => with_daemon(async |daemon| daemon.restart_handler(&name).await),
        Sub::Handler(HandlerSub::Reload { names }) => list::reload_handlers(&names, json),
        Sub::Device(DeviceSub::Show { name }) => show::show(&name, json),
        Sub::Create(create) => create::create(&create, json),
        Sub::Delete(delete) => change::delete(&delete, json),
        Sub::Resize(resize) => change::resize(&resize, json),
        Sub::Set(set) => change::set(&set, json),
        Sub::Attach(attach) => exports::attach(&attach, json),
        Sub::Detach(detach) => exports::detach(&detach, json),
        Sub::Apply(apply) => apply::apply(&apply, json),
        Sub::Save(save) => save::save(&save, json),
        Sub::Doctor => match doctor::run(json) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Sub::Reload { exec: false } => with_daemon(async |daemon| daemon.reload(false).await),
        Sub::Reload { exec: true } => reload::exec(),
        Sub::Migrate(migrate) => migrate.run(),
        Sub::Status => list::status(json),
        Sub::Devices => list::devices(json),
        Sub::Stats(stats) => statistics::stats(&stats, json),
        Sub::Top(top) => top::top(&top, json),
        Sub::Trace(trace) => trace::run(&trace, json),
        Sub::Tune { devices } => tune::run(&devices, json),
        Sub::LogLevel { level } => with_daemon(async |daemon| daemon.set_log_level(&level).await),
    };
    match outcome.and_then(|()| output::finish().context("standard output")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("tcmuctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the program because of how it was called.
fn usage(what: &str) -> ! {
    errln!("tcmuctl: {what}");
    std::process::exit(2)
}
