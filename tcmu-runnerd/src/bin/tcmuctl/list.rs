//! `tcmuctl status`, `handlers`, `devices`, `handler info`.
use anyhow::Context;
use serde_json::Value;

use super::{
    daemon::{Dictionary, Of, rows, with_daemon},
    table,
};

/// Prints the handlers.
pub(crate) fn handlers(json: bool) -> anyhow::Result<()> {
    list(json, &["subtype", "version", "state", "pid", "restarts", "plugin"], Of::Handlers)
}

/// Prints the devices.
pub(crate) fn devices(json: bool) -> anyhow::Result<()> {
    let columns = ["device", "handler", "size", "state", "reads", "writes", "bytes_read", "bytes_written", "errors", "config"];
    list(json, &columns, Of::Devices)
}

fn list(json: bool, columns: &[&str], of: Of) -> anyhow::Result<()> {
    let rows = rows(of)?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&rows)?);
    } else if rows.is_empty() {
        outln!("{}", if of == Of::Devices { "no devices" } else { "no handlers" });
    } else {
        out!("{}", table::of(&rows, columns));
    }
    Ok(())
}

/// Prints whether the daemon runs, and how much it has to do.
pub(crate) fn status(json: bool) -> anyhow::Result<()> {
    let (version, pid, problem) =
        with_daemon(async |daemon| Ok((daemon.version().await?, daemon.pid().await?, daemon.config_problem().await?)))?;
    let (handlers, devices) = (rows(Of::Handlers)?, rows(Of::Devices)?);
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
        outln!("{status:#}");
    } else {
        outln!("tcmu-runnerd {version}, pid {pid}");
        outln!("handlers: {running} running of {}", handlers.len());
        outln!("devices:  {serving} serving of {}", devices.len());
        if !problem.is_empty() {
            outln!("configuration: not in force, what was read before is: {problem}");
        }
    }
    Ok(())
}

/// Prints all that is known of one handler.
pub(crate) fn handler_info(name: &str, json: bool) -> anyhow::Result<()> {
    let rows = rows(Of::Handlers)?;
    let subtype = |row: &Dictionary| row.get("subtype").and_then(Value::as_str).map(str::to_owned);
    let names: Vec<String> = rows.iter().filter_map(subtype).collect();
    let row = rows.iter().find(|row| subtype(row).as_deref() == Some(name));
    let row = row.with_context(|| format!("there is no handler {name:?}; there are: {}", names.join(", ")))?;
    if json {
        outln!("{}", serde_json::to_string_pretty(row)?);
    } else {
        out!("{}", table::facts(row.iter().map(|(key, value)| (key.as_str(), value))));
    }
    Ok(())
}

/// Restarts the handlers whose plugin on disk is another than the one they run, or those that are named.
pub(crate) fn reload_handlers(names: &[String], json: bool) -> anyhow::Result<()> {
    let outdated: Vec<String> = match names {
        [] => rows(Of::Handlers)?
            .iter()
            .filter(|row| row.get("outdated") == Some(&Value::Bool(true)))
            .filter_map(|row| row.get("subtype").and_then(Value::as_str).map(str::to_owned))
            .collect(),
        names => names.to_vec(),
    };
    for name in &outdated {
        with_daemon(async |daemon| daemon.restart_handler(name).await)?;
    }
    if json {
        outln!("{}", serde_json::json!({ "restarted": outdated }));
    } else if outdated.is_empty() {
        outln!("every handler runs the plugin that is on disk");
    } else {
        outln!("restarted: {}", outdated.join(", "));
    }
    Ok(())
}
