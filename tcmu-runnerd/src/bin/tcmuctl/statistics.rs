//! `tcmuctl stats` and `tcmuctl top`.
use std::{
    cmp::Reverse,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};
use tcmu::server::counters::{Counters, Histogram, Kind};
use tcmu_handler_api::scsi::{Sense, describe};
use tcmu_runnerd::{
    dbus::statistics::{StatisticsProxy, figures},
    output::Out,
    statistics::{DeviceStatistics, HandlerStatistics},
};

use crate::table::size;

/// What `tcmuctl stats` is asked.
#[derive(Args)]
pub(crate) struct Stats {
    /// Only these, as user_0/name.
    devices: Vec<String>,
}

/// What `tcmuctl top` is asked.
#[derive(Args)]
pub(crate) struct Top {
    /// Only these, as user_0/name.
    devices: Vec<String>,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    interval: f64,
    /// Show one interval and end; so it does where the output is no terminal.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.1 to 3600 is needed".into()),
    }
}

/// Talks to the daemon.
pub(super) fn with_daemon<T>(ask: impl AsyncFnOnce(&StatisticsProxy<'_>) -> zbus::Result<T>) -> anyhow::Result<T> {
    zbus::block_on(async {
        let connection = super::daemon::bus().await?;
        let proxy = StatisticsProxy::new(&connection).await?;
        ask(&proxy).await.map_err(super::daemon::explained)
    })
}

fn devices(wanted: &[String]) -> anyhow::Result<Vec<DeviceStatistics>> {
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
        out!("{}", latencies(&device.counters));
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

fn latencies(counters: &Counters) -> String {
    let used = Kind::ALL.iter().zip(&counters.latency).filter(|(_, latency)| latency.count() > 0);
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
fn errors(counters: &Counters) -> Vec<(String, u64)> {
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

pub(crate) fn top(top: &Top, json: bool) -> anyhow::Result<()> {
    let live = io::stdout().is_terminal() && !top.once && !json;
    let mut before = (Instant::now(), devices(&top.devices)?);
    loop {
        std::thread::sleep(Duration::from_secs_f64(top.interval));
        let now = (Instant::now(), devices(&top.devices)?);
        let rates = rates(&before.1, &now.1, now.0 - before.0);
        if json {
            outln!("{:#}", Value::from(rates.iter().map(Rate::json).collect::<Vec<_>>()));
        } else {
            let lines =
                if live { rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_row)) } else { 0 };
            let text = screen(&rates, lines);
            // Home, the text, and nothing of what was behind it.
            let text = if live { format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")) } else { text };
            Out.write_all(text.as_bytes())?;
            Out.flush()?;
        }
        if !live {
            return Ok(());
        }
        before = now;
    }
}

/// What a device did in an interval.
struct Rate {
    device: DeviceStatistics,
    /// What was counted in it.
    latency: Vec<Histogram>,
    seconds: f64,
    bytes: [f64; 2],
    failed: f64,
}

fn rates(before: &[DeviceStatistics], now: &[DeviceStatistics], time: Duration) -> Vec<Rate> {
    let seconds = time.as_secs_f64().max(1e-3);
    let rate = |device: &DeviceStatistics| {
        let none = DeviceStatistics::default();
        let earlier = &before.iter().find(|earlier| earlier.device == device.device).unwrap_or(&none).counters;
        let counters = &device.counters;
        let per_second = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now) as f64 / seconds;
        Rate {
            latency: counters.latency.iter().zip(&earlier.latency).map(|(now, then)| now.since(then)).collect(),
            seconds,
            bytes: [
                per_second(counters.bytes_read, earlier.bytes_read),
                per_second(counters.bytes_written, earlier.bytes_written),
            ],
            failed: per_second(counters.errors, earlier.errors),
            device: device.clone(),
        }
    };
    let mut rates: Vec<Rate> = now.iter().map(rate).collect();
    rates.sort_by_key(|rate| (Reverse(rate.commands()), rate.device.device.clone()));
    rates
}

impl Rate {
    fn of(&self, kind: Kind) -> &Histogram {
        &self.latency[kind as usize]
    }

    fn commands(&self) -> u64 {
        self.latency.iter().map(Histogram::count).sum()
    }

    fn per_second(&self, commands: u64) -> f64 {
        commands as f64 / self.seconds
    }

    fn other(&self) -> u64 {
        self.commands() - self.of(Kind::Read).count() - self.of(Kind::Write).count()
    }

    fn cells(&self) -> Vec<String> {
        let (read, write) = (self.of(Kind::Read), self.of(Kind::Write));
        let number = |rate: f64| format!("{rate:.0}");
        vec![
            self.device.device.clone(),
            self.device.handler.clone(),
            number(self.per_second(read.count())),
            number(self.per_second(write.count())),
            number(self.per_second(self.other())),
            format!("{}/s", size(self.bytes[0] as u64)),
            format!("{}/s", size(self.bytes[1] as u64)),
            quantile(read, 0.5),
            quantile(read, 0.99),
            quantile(write, 0.5),
            quantile(write, 0.99),
            self.device.counters.in_flight.to_string(),
            number(self.failed),
            self.device.state.clone(),
        ]
    }

    fn json(&self) -> Value {
        let microseconds = |kind, part| self.of(kind).quantile(part).map(|time| time.as_nanos() as f64 / 1000.0);
        json!({
            "device": self.device.device, "handler": self.device.handler, "state": self.device.state, "seconds": self.seconds,
            "reads_per_second": self.per_second(self.of(Kind::Read).count()),
            "writes_per_second": self.per_second(self.of(Kind::Write).count()),
            "other_per_second": self.per_second(self.other()),
            "bytes_read_per_second": self.bytes[0], "bytes_written_per_second": self.bytes[1],
            "read_p50_microseconds": microseconds(Kind::Read, 0.5), "read_p99_microseconds": microseconds(Kind::Read, 0.99),
            "write_p50_microseconds": microseconds(Kind::Write, 0.5), "write_p99_microseconds": microseconds(Kind::Write, 0.99),
            "in_flight": self.device.counters.in_flight, "failed_per_second": self.failed,
        })
    }
}

/// The busiest devices, as many as there are lines for; 0: all.
fn screen(rates: &[Rate], lines: usize) -> String {
    let all: u64 = rates.iter().map(Rate::commands).sum();
    let seconds = rates.first().map_or(1.0, |rate| rate.seconds);
    let sum = |of: usize| size(rates.iter().map(|rate| rate.bytes[of]).sum::<f64>() as u64);
    let mut text =
        format!("{} devices, {:.0} commands/s, {}/s read, {}/s written\n\n", rates.len(), all as f64 / seconds, sum(0), sum(1));
    let heading = [
        "DEVICE", "HANDLER", "R/S", "W/S", "OTHER/S", "READ", "WRITTEN", "R-P50", "R-P99", "W-P50", "W-P99", "QUEUE", "FAILED/S",
        "STATE",
    ];
    let most = if lines == 0 { usize::MAX } else { lines.saturating_sub(4).max(1) };
    text += &aligned(&heading, rates.iter().take(most).map(Rate::cells).collect(), 2);
    text
}

/// A table; the first `left` columns and STATE stand left, the others right.
fn aligned(heading: &[&str], rows: Vec<Vec<String>>, left: usize) -> String {
    let heading: Vec<String> = heading.iter().map(|&name| name.to_owned()).collect();
    let width = |column: usize| rows.iter().chain([&heading]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut table = String::new();
    for row in [&heading].into_iter().chain(&rows) {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if column < left || heading[column] == "STATE" { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        table += cells.collect::<Vec<_>>().join("  ").trim_end();
        table.push('\n');
    }
    table
}

fn quantile(latency: &Histogram, part: f64) -> String {
    time(latency.quantile(part))
}

/// A time with a unit, in about three digits.
fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".into() };
    let microseconds = time.as_nanos() as f64 / 1000.0;
    match microseconds {
        us if us < 10.0 => format!("{us:.1} µs"),
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.1} ms", us / 1000.0),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1000.0),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, reads: u64) -> DeviceStatistics {
        let mut device = DeviceStatistics { device: name.into(), state: "serving".into(), ..DeviceStatistics::default() };
        device.counters.latency[Kind::Read as usize].buckets[4] = reads;
        (device.counters.reads, device.counters.bytes_read) = (reads, reads * 4096);
        device
    }

    #[test]
    fn rates_are_the_difference_of_two_looks_and_the_busiest_comes_first() {
        let before = [device("a", 100), device("b", 100)];
        let now = [device("a", 110), device("b", 300), device("new", 4)];
        let rates = rates(&before, &now, Duration::from_secs(2));
        let found: Vec<_> = rates.iter().map(|rate| (rate.device.device.as_str(), rate.per_second(rate.commands()))).collect();
        assert_eq!(found, [("b", 100.0), ("a", 5.0), ("new", 2.0)]);
        assert_eq!(rates[0].bytes[0], 409_600.0);
        let text = screen(&rates, 0);
        assert!(text.starts_with("3 devices, 107 commands/s, 428.0 KiB/s read"), "{text}");
        assert_eq!(screen(&rates, 5).lines().count(), 4, "the heading and the busiest");
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let told = |micros| time(Some(Duration::from_micros(micros)));
        assert_eq!([1, 12, 1234, 12_345, 1_234_567].map(told), ["1.0 µs", "12 µs", "1.2 ms", "12 ms", "1.2 s"]);
        assert_eq!(time(None), "-");
    }
}
