//! `tcmuctl stats`, and what `tcmuctl top` has in common with it.
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tcmu::server::counters::{Counters, Histogram, Kind};
use tcmu_handler_api::scsi::{Sense, describe};
use tcmu_runnerd::{
    dbus::statistics::{StatisticsProxy, figures},
    statistics::{DeviceStatistics, HandlerStatistics},
};

use crate::table::{aligned, quantile, size, time};

/// What `tcmuctl stats` is asked.
#[derive(Args)]
pub(crate) struct Stats {
    /// Only these, as user_0/name.
    devices: Vec<String>,
}

/// Talks to the daemon.
pub(super) fn with_daemon<T>(ask: impl AsyncFnOnce(&StatisticsProxy<'_>) -> zbus::Result<T>) -> anyhow::Result<T> {
    zbus::block_on(async {
        let connection = super::daemon::bus().await?;
        let proxy = StatisticsProxy::new(&connection).await?;
        ask(&proxy).await.map_err(super::daemon::explained)
    })
}

/// The devices, or those that are named.
pub(crate) fn devices(wanted: &[String]) -> anyhow::Result<Vec<DeviceStatistics>> {
    let all = with_daemon(async |daemon| daemon.devices().await)?;
    let all: Vec<_> = all.into_iter().map(|device| DeviceStatistics::of(&figures(device))).collect();
    if let Some(name) = wanted.iter().find(|name| !all.iter().any(|device| device.device == **name)) {
        anyhow::bail!("there is no device {name}; `tcmuctl devices` lists them");
    }
    Ok(all.into_iter().filter(|device| wanted.is_empty() || wanted.contains(&device.device)).collect())
}

pub(crate) fn stats(stats: &Stats, json: bool) -> anyhow::Result<()> {
    let devices = devices(&stats.devices)?;
    let handlers = with_daemon(async |daemon| daemon.handlers().await)?;
    let handlers: Vec<_> = handlers.into_iter().map(|handler| HandlerStatistics::of(&figures(handler))).collect();
    if json {
        let devices: Vec<Value> = devices.iter().map(device_json).collect();
        let handlers: Vec<Value> = handlers.iter().map(handler_json).collect();
        outln!("{:#}", json!({ "devices": devices, "handlers": handlers }));
        return Ok(());
    }
    let heading = [
        "DEVICE", "HANDLER", "READS", "WRITES", "OTHER", "READ", "WRITTEN", "FAILED", "SLOW", "QUEUE", "MAX", "BLOCKED", "STATE",
    ];
    let rows = devices.iter().map(|d| {
        let c = &d.counters;
        let state = d.state.clone();
        [&d.device, &d.handler].into_iter().cloned().chain(counted(c)).chain([
            c.slow.to_string(),
            c.in_flight.to_string(),
            c.in_flight_max.to_string(),
            format!("{:.1} s", d.blocked.as_secs_f64()),
            state,
        ])
    });
    out!("{}", aligned(&heading, rows.map(Iterator::collect).collect(), 2));
    if stats.devices.is_empty() {
        let heading = ["HANDLER", "DEVICES", "READS", "WRITES", "OTHER", "READ", "WRITTEN", "FAILED", "RESTARTS"];
        let rows = handlers.iter().map(|h| {
            [h.handler.clone(), h.devices.to_string()].into_iter().chain(counted(&h.counters)).chain([h.restarts.to_string()])
        });
        out!("\n{}", aligned(&heading, rows.map(Iterator::collect).collect(), 1));
    }
    for device in devices.iter().filter(|device| device.counters.latency.iter().any(|latency| latency.count() > 0)) {
        outln!("\n{}", device.device);
        out!("{}", latencies_of(&device.counters.latency));
        for (key, count) in errors(&device.counters) {
            outln!("  {key}: {count}");
        }
    }
    Ok(())
}

/// Reads, writes, all others, bytes, failures.
fn counted(counters: &Counters) -> [String; 6] {
    let other = counters.commands.saturating_sub(counters.reads).saturating_sub(counters.writes);
    [
        counters.reads.to_string(),
        counters.writes.to_string(),
        other.to_string(),
        size(counters.bytes_read),
        size(counters.bytes_written),
        counters.errors.to_string(),
    ]
}

/// A table of how long commands took, by kind; those that there are.
pub(crate) fn latencies_of(latencies: &[Histogram]) -> String {
    let used = Kind::ALL.iter().zip(latencies).filter(|(_, latency)| latency.count() > 0);
    let rows = used.map(|(kind, latency)| {
        let count = latency.count().to_string();
        [
            format!("  {}", kind.name()),
            count,
            time(latency.mean()),
            quantile(latency, 0.5),
            quantile(latency, 0.99),
            quantile(latency, 1.0),
        ]
        .to_vec()
    });
    aligned(&["  OPERATION", "COMMANDS", "MEAN", "P50", "P99", "MAX"], rows.collect(), 1)
}

/// Sense keys that came, in words.
pub(crate) fn errors(counters: &Counters) -> Vec<(String, u64)> {
    let name = |key: u8| match Sense::parse(&[0x72, key, 0, 0, 0, 0, 0, 0]) {
        Some(sense) => describe::sense_key(sense.key),
        None => format!("SENSE KEY {key:#x}"),
    };
    let keys = counters.sense_keys.iter().enumerate().map(|(key, count)| (name(key as u8), *count));
    keys.chain([("another status".to_owned(), counters.other_status)]).filter(|(_, count)| *count > 0).collect()
}

fn counters_json(counters: &Counters) -> Value {
    let microseconds = |time: Option<Duration>| time.map(|time| time.as_nanos() as f64 / 1000.0);
    let latency: serde_json::Map<String, Value> = Kind::ALL
        .iter()
        .zip(&counters.latency)
        .filter(|(_, latency)| latency.count() > 0)
        .map(|(kind, latency)| {
            let buckets = latency.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
            let below = |bucket| Histogram::limit(bucket).map_or("more".to_owned(), |limit| limit.as_micros().to_string());
            let buckets: serde_json::Map<String, Value> = buckets.map(|(bucket, count)| (below(bucket), json!(count))).collect();
            let told = json!({
                "commands": latency.count(),
                "mean_microseconds": microseconds(latency.mean()),
                "p50_microseconds": microseconds(latency.quantile(0.5)),
                "p99_microseconds": microseconds(latency.quantile(0.99)),
                "below_microseconds": buckets,
            });
            (kind.name().to_owned(), told)
        })
        .collect();
    let errors: serde_json::Map<String, Value> =
        errors(counters).into_iter().map(|(key, count)| (key.to_lowercase().replace(' ', "_"), json!(count))).collect();
    json!({
        "commands": counters.commands, "reads": counters.reads, "writes": counters.writes,
        "bytes_read": counters.bytes_read, "bytes_written": counters.bytes_written,
        "failed": counters.errors, "errors": errors, "slow": counters.slow,
        "in_flight": counters.in_flight, "in_flight_max": counters.in_flight_max,
        "batches": counters.batches, "kicks": counters.kicks, "latency": latency,
    })
}

fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn device_json(device: &DeviceStatistics) -> Value {
    let facts = json!({
        "device": device.device, "handler": device.handler, "state": device.state, "serving": device.serving,
        "size": device.counters.size, "hangs_seconds": device.hangs.map(|time| time.as_secs()),
        "takeovers": device.takeovers, "blocked_seconds": device.blocked.as_secs_f64(),
    });
    with(facts, counters_json(&device.counters))
}

fn handler_json(handler: &HandlerStatistics) -> Value {
    let facts = json!({
        "handler": handler.handler, "up": handler.up, "restarts": handler.restarts, "devices": handler.devices,
    });
    with(facts, counters_json(&handler.counters))
}
