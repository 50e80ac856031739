//! `tcmuctl`: looks after the daemon, and tests handlers.
mod handler;
mod migrate;
mod reload;
mod statistics;
mod table;
mod trace;
mod tune;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde_json::Value;
use tcmu_runnerd::dbus::control::ControlProxy;
use zbus::zvariant::OwnedValue;

/// Looks after tcmu-runnerd, and tests handlers.
#[derive(Parser)]
#[command(version)]
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
    /// What was done for each device and by each handler, and how long it took.
    Stats(statistics::Stats),
    /// What devices do now: rates, latencies, queues; the busiest first. Ctrl-C ends it.
    Top(statistics::Top),
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
enum HandlerSub {
    /// Tests a plugin against a model, without a kernel or root. Exit status: 0 all passed, 1 some failed, 2 it can't be tested.
    Test(handler::Test),
    /// Restarts a handler with the plugin that is on disk now. Its devices pause for a moment; no command fails.
    Restart {
        /// Its subtype.
        name: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let outcome = match arguments.command {
        Sub::Handler(HandlerSub::Test(test)) => return handler::test(&test, json),
        Sub::Handler(HandlerSub::Restart { name }) => with_daemon(async |daemon| daemon.restart_handler(&name).await),
        Sub::Reload { exec: false } => with_daemon(async |daemon| daemon.reload(false).await),
        Sub::Reload { exec: true } => reload::exec(),
        Sub::Migrate(migrate) => migrate.run(),
        Sub::Status => status(json),
        Sub::Handlers => list(json, &["subtype", "version", "state", "pid", "restarts", "plugin"], Of::Handlers),
        Sub::Devices => list(
            json,
            &["device", "handler", "size", "state", "reads", "writes", "bytes_read", "bytes_written", "errors", "config"],
            Of::Devices,
        ),
        Sub::Stats(stats) => statistics::stats(&stats, json),
        Sub::Top(top) => statistics::top(&top, json),
        Sub::Trace(trace) => trace::run(&trace, json),
        Sub::Tune { devices } => tune::run(&devices, json),
        Sub::LogLevel { level } => set_log_level(&level),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcmuctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Dictionary = BTreeMap<String, Value>;

enum Of {
    Handlers,
    Devices,
}

/// Talks to the daemon.
fn with_daemon<T>(ask: impl AsyncFnOnce(&ControlProxy<'_>) -> zbus::Result<T>) -> anyhow::Result<T> {
    zbus::block_on(async {
        let connection = bus().await?;
        let proxy = ControlProxy::new(&connection).await?;
        ask(&proxy).await.map_err(explain)
    })
}

async fn bus() -> anyhow::Result<zbus::Connection> {
    zbus::Connection::system()
        .await
        .context("no D-Bus system bus; is dbus running? (the daemon serves devices without it, but cannot be asked)")
}

/// Why the daemon did not do it, with what would help.
fn explain(error: zbus::Error) -> anyhow::Error {
    let text = error.to_string();
    let hint = if text.contains("ServiceUnknown") || text.contains("NameHasNoOwner") || text.contains("not provided") {
        "tcmu-runnerd is not running (systemctl start tcmu-runnerd)"
    } else if text.contains("AccessDenied") {
        "only root may talk to tcmu-runnerd"
    } else {
        "the daemon did not answer"
    };
    // What the daemon itself says needs no more words.
    match error {
        zbus::Error::MethodError(name, Some(text), _) if name.as_str() == "org.freedesktop.DBus.Error.Failed" => {
            anyhow::anyhow!(text)
        }
        error => anyhow::Error::from(error).context(hint),
    }
}

fn plain(rows: Vec<std::collections::HashMap<String, OwnedValue>>) -> Vec<Dictionary> {
    let value = |variant: OwnedValue| {
        if let Ok(text) = <&str>::try_from(&*variant) {
            Value::from(text)
        } else if let Ok(number) = u64::try_from(&*variant) {
            Value::from(number)
        } else if let Ok(flag) = bool::try_from(&*variant) {
            Value::from(flag)
        } else {
            Value::Null
        }
    };
    rows.into_iter().map(|row| row.into_iter().map(|(name, field)| (name, value(field))).collect()).collect()
}

fn rows(of: &Of) -> anyhow::Result<Vec<Dictionary>> {
    with_daemon(async |daemon| match of {
        Of::Handlers => daemon.list_handlers().await,
        Of::Devices => daemon.list_devices().await,
    })
    .map(plain)
}

fn list(json: bool, columns: &[&str], of: Of) -> anyhow::Result<()> {
    let rows = rows(&of)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else if rows.is_empty() {
        println!("{}", if matches!(of, Of::Devices) { "no devices" } else { "no handlers" });
    } else {
        print!("{}", table::of(&rows, columns));
    }
    Ok(())
}

fn status(json: bool) -> anyhow::Result<()> {
    let (version, pid, problem) =
        with_daemon(async |daemon| Ok((daemon.version().await?, daemon.pid().await?, daemon.config_problem().await?)))?;
    let (handlers, devices) = (rows(&Of::Handlers)?, rows(&Of::Devices)?);
    let is = |row: &Dictionary, state: &str| row.get("state").and_then(Value::as_str) == Some(state);
    let running = handlers.iter().filter(|row| is(row, "running")).count();
    let serving = devices.iter().filter(|row| is(row, "serving")).count();
    if json {
        let status = serde_json::json!({
            "version": version, "pid": pid,
            "handlers": handlers.len(), "handlers_running": running,
            "devices": devices.len(), "devices_serving": serving,
            "config_problem": problem,
        });
        println!("{status:#}");
    } else {
        println!("tcmu-runnerd {version}, pid {pid}");
        println!("handlers: {running} running of {}", handlers.len());
        println!("devices:  {serving} serving of {}", devices.len());
        if !problem.is_empty() {
            println!("configuration: not in force, what was read before is: {problem}");
        }
    }
    Ok(())
}

fn set_log_level(level: &str) -> anyhow::Result<()> {
    with_daemon(async |daemon| daemon.set_log_level(level).await)
}
