//! OpenMetrics text (version 1.0).
use std::{
    fmt::{Display, Write},
    time::Duration,
};

use tcmu::server::counters::{Histogram, Kind};
use tcmu_handler_api::scsi::{Sense, describe};

use crate::statistics::{DeviceStatistics, HandlerStatistics, Statistics};

/// The page.
pub fn encode(statistics: &Statistics) -> String {
    let mut page = Page(String::new());
    let Statistics { devices, handlers } = statistics;
    page.info();
    page.handlers(handlers);
    page.devices(devices);
    page.errors(devices);
    page.latency(devices);
    page.0 + "# EOF\n"
}

struct Page(String);

/// Within quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(time: Duration) -> String {
    format!("{}", time.as_secs_f64())
}

type Value<T> = fn(&T) -> String;

/// Name, type, unit, help, value. The suffix of counters comes by itself.
type Family<T> = (&'static str, &'static str, &'static str, &'static str, Value<T>);

const OF_HANDLERS: &[Family<HandlerStatistics>] = &[
    ("tcmu_handler_up", "gauge", "", "Whether the handler has a process that is ready.", |h| u8::from(h.up).to_string()),
    ("tcmu_handler_restarts", "counter", "", "Processes of the handler that were started after the first one.", |h| {
        h.restarts.to_string()
    }),
    ("tcmu_handler_devices", "gauge", "", "Devices of the handler.", |h| h.devices.to_string()),
    ("tcmu_handler_commands", "counter", "", "Commands of all its devices, those that are gone among them.", |h| {
        h.counters.commands.to_string()
    }),
    ("tcmu_handler_read_bytes", "counter", "bytes", "Bytes read from all its devices.", |h| h.counters.bytes_read.to_string()),
    ("tcmu_handler_written_bytes", "counter", "bytes", "Bytes written to all its devices.", |h| {
        h.counters.bytes_written.to_string()
    }),
    ("tcmu_handler_failed_commands", "counter", "", "Commands of all its devices that did not end with GOOD.", |h| {
        h.counters.errors.to_string()
    }),
];

const OF_DEVICES: &[Family<DeviceStatistics>] = &[
    ("tcmu_device_size_bytes", "gauge", "bytes", "The device's size.", |d| d.counters.size.to_string()),
    ("tcmu_device_serving", "gauge", "", "Whether the device is served.", |d| u8::from(d.serving).to_string()),
    ("tcmu_device_hanging_seconds", "gauge", "seconds", "How old its oldest command is, if it hangs.", |d| {
        seconds(d.hangs.unwrap_or_default())
    }),
    ("tcmu_device_blocked_seconds", "counter", "seconds", "How long it was not served although it should have been.", |d| {
        seconds(d.blocked)
    }),
    ("tcmu_device_takeovers", "counter", "", "How often it was served again after a pause.", |d| d.takeovers.to_string()),
    ("tcmu_device_commands", "counter", "", "Commands taken from its ring.", |d| d.counters.commands.to_string()),
    ("tcmu_device_read_bytes", "counter", "bytes", "Bytes read.", |d| d.counters.bytes_read.to_string()),
    ("tcmu_device_written_bytes", "counter", "bytes", "Bytes written.", |d| d.counters.bytes_written.to_string()),
    ("tcmu_device_slow_commands", "counter", "", "Commands that took longer than slow_command_ms.", |d| {
        d.counters.slow.to_string()
    }),
    ("tcmu_device_in_flight", "gauge", "", "Commands that its handler has now.", |d| d.counters.in_flight.to_string()),
    ("tcmu_device_in_flight_max", "gauge", "", "The most commands that its handler ever had.", |d| {
        d.counters.in_flight_max.to_string()
    }),
    ("tcmu_device_batches", "counter", "", "Looks at its ring that found commands.", |d| d.counters.batches.to_string()),
    ("tcmu_device_kicks", "counter", "", "System calls that told the kernel of completions.", |d| d.counters.kicks.to_string()),
];

impl Page {
    fn begin(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.0, "# HELP {name} {help}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn info(&mut self) {
        self.begin("tcmu_runnerd", "info", "", "The daemon.");
        self.line("tcmu_runnerd_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    }

    fn families<T>(&mut self, families: &[Family<T>], of: &[T], labels: fn(&T) -> String) {
        for (name, kind, unit, help, value) in families {
            self.begin(name, kind, unit, help);
            let suffix = if *kind == "counter" { "_total" } else { "" };
            of.iter().for_each(|one| self.line(&format!("{name}{suffix}"), &labels(one), value(one)));
        }
    }

    fn handlers(&mut self, handlers: &[HandlerStatistics]) {
        self.families(OF_HANDLERS, handlers, |handler| format!("handler=\"{}\"", escaped(&handler.handler)));
    }

    fn devices(&mut self, devices: &[DeviceStatistics]) {
        self.families(OF_DEVICES, devices, labels);
    }

    /// By sense key; those that never came are left out.
    fn errors(&mut self, devices: &[DeviceStatistics]) {
        let name = "tcmu_device_errors";
        self.begin(name, "counter", "", "Commands that did not end with GOOD, by sense key; none: by another status.");
        for device in devices {
            let keys = device.counters.sense_keys.iter().enumerate().map(|(key, count)| (sense_key(key as u8), *count));
            for (key, count) in keys.chain([("none".to_owned(), device.counters.other_status)]).filter(|(_, count)| *count > 0) {
                self.line("tcmu_device_errors_total", &format!("{},sense_key=\"{key}\"", labels(device)), count);
            }
        }
    }

    /// By kind of command; those that never came are left out.
    fn latency(&mut self, devices: &[DeviceStatistics]) {
        let name = "tcmu_device_latency_seconds";
        self.begin(name, "histogram", "seconds", "How long commands took from the ring and back.");
        for device in devices {
            for (kind, latency) in Kind::ALL.iter().zip(&device.counters.latency).filter(|(_, latency)| latency.count() > 0) {
                let labels = format!("{},operation=\"{}\"", labels(device), kind.name());
                let mut below = 0u64;
                for (bucket, count) in latency.buckets.iter().enumerate() {
                    below = below.wrapping_add(*count);
                    let limit = Histogram::limit(bucket).map_or("+Inf".into(), seconds);
                    self.line("tcmu_device_latency_seconds_bucket", &format!("{labels},le=\"{limit}\""), below);
                }
                self.line("tcmu_device_latency_seconds_count", &labels, below);
                self.line("tcmu_device_latency_seconds_sum", &labels, seconds(Duration::from_nanos(latency.nanoseconds)));
            }
        }
    }
}

fn labels(device: &DeviceStatistics) -> String {
    format!("device=\"{}\",handler=\"{}\"", escaped(&device.device), escaped(&device.handler))
}

/// A sense key as a word.
fn sense_key(key: u8) -> String {
    match Sense::parse(&[0x72, key, 0, 0, 0, 0, 0, 0]) {
        Some(sense) => describe::sense_key(sense.key).to_lowercase().replace(' ', "_"),
        None => format!("{key:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::statistics::tests::sample;

    const DASHBOARD: &str = include_str!("../../../dist/grafana/tcmu-runnerd.json");
    const RULES: &str = include_str!("../../../dist/prometheus/tcmu-runnerd.rules.yml");

    fn samples(page: &str) -> BTreeMap<&str, &str> {
        page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect()
    }

    #[test]
    fn counters_are_told_with_their_names_and_units() {
        let page = encode(&sample());
        let samples = samples(&page);
        let device = "device=\"user_0/a\",handler=\"file\"";
        let of = |name: &str, labels: &str| samples.get(format!("{name}{{{labels}}}").as_str()).copied();
        assert_eq!(of("tcmu_device_commands_total", device), Some("1000"));
        assert_eq!(of("tcmu_device_blocked_seconds_total", device), Some("1.5"));
        assert_eq!(of("tcmu_device_hanging_seconds", device), Some("3"));
        assert_eq!(of("tcmu_device_errors_total", &format!("{device},sense_key=\"medium_error\"")), Some("3"));
        assert_eq!(of("tcmu_device_errors_total", &format!("{device},sense_key=\"none\"")), Some("1006"));
        assert_eq!(of("tcmu_device_errors_total", &format!("{device},sense_key=\"no_sense\"")), None, "it never came");
        assert_eq!(of("tcmu_handler_restarts_total", "handler=\"file\""), Some("4"));
        let writes = format!("{device},operation=\"write\"");
        assert_eq!(of("tcmu_device_latency_seconds_bucket", &format!("{writes},le=\"0.000001\"")), Some("10"));
        assert_eq!(of("tcmu_device_latency_seconds_bucket", &format!("{writes},le=\"0.001024\"")), Some("165"));
        let count = (10..38).sum::<u64>().to_string();
        assert_eq!(of("tcmu_device_latency_seconds_bucket", &format!("{writes},le=\"+Inf\"")), Some(count.as_str()));
        assert_eq!(of("tcmu_device_latency_seconds_count", &writes), Some(count.as_str()));
        assert_eq!(of("tcmu_device_latency_seconds_sum", &writes), Some("0.002"));
        assert!(page.contains("# TYPE tcmu_device_read_bytes counter\n# UNIT tcmu_device_read_bytes bytes\n"));
        assert!(page.ends_with("\n# EOF\n"));
    }

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        let mut statistics = sample();
        statistics.devices[0].device = "user_0/a\"} 1\nx\\".into();
        let page = encode(&statistics);
        assert!(page.contains(r#"device="user_0/a\"} 1\nx\\""#), "{page}");
        assert!(page.lines().all(|line| line.starts_with("tcmu_") || line.starts_with("# ")));
    }

    #[test]
    fn each_family_is_told_once_and_its_samples_follow() {
        let page = encode(&sample());
        let mut seen = BTreeSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ") {
                family = name.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} is not of {family}");
            }
        }
    }

    #[test]
    fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
        let page = encode(&sample());
        let there: BTreeSet<&str> = samples(&page).keys().filter_map(|sample| sample.split('{').next()).collect();
        for (file, text) in [("dashboard", DASHBOARD), ("rules", RULES)] {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let asked: BTreeSet<&str> = words
                .filter(|word| ["tcmu_device_", "tcmu_handler_", "tcmu_runnerd_"].iter().any(|p| word.starts_with(p)))
                .collect();
            assert!(asked.len() > 5, "the {file} asks for {asked:?}");
            for name in asked {
                assert!(there.contains(name), "the {file} asks for {name}");
            }
        }
        serde_json::from_str::<serde_json::Value>(DASHBOARD).unwrap();
    }
}
