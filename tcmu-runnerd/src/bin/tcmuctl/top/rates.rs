//! What devices did between two looks, and the columns in which it is shown.
use std::{cmp::Ordering, time::Duration};

use serde_json::{Value, json};
use tcmu::server::counters::{Counters, Histogram, Kind};
use tcmu_runnerd::statistics::DeviceStatistics;

use crate::table::{quantile, size};

/// What a device did in an interval.
#[derive(Clone)]
pub(super) struct Rate {
    /// As it was at the end.
    pub(super) device: DeviceStatistics,
    /// What was counted in the interval, by kind.
    pub(super) latency: Vec<Histogram>,
    seconds: f64,
    /// Read and written, per second.
    bytes: [f64; 2],
    failed: f64,
}

/// The devices of the second look.
pub(super) fn rates(before: &[DeviceStatistics], now: &[DeviceStatistics], time: Duration) -> Vec<Rate> {
    let seconds = time.as_secs_f64().max(1e-3);
    let none = Counters::default();
    let rate = |device: &DeviceStatistics| {
        let earlier = before.iter().find(|earlier| earlier.device == device.device).map_or(&none, |earlier| &earlier.counters);
        let counters = &device.counters;
        // Less than before is another device of the same name.
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
    sort(&mut rates, None);
    rates
}

/// By a column; by all commands, the busiest first, where none is named. Devices that are equal in it stand by their names.
pub(super) fn sort(rates: &mut [Rate], by: Option<Column>) {
    rates.sort_by(|a, b| {
        let order = by.map_or_else(|| b.commands().cmp(&a.commands()), |column| column.order(a, b));
        order.then_with(|| a.device.device.cmp(&b.device.device))
    });
}

/// One line about all of them.
pub(super) fn sum(rates: &[Rate]) -> String {
    let bytes = |of: usize| size(rates.iter().map(|rate| rate.bytes[of]).sum::<f64>() as u64);
    let commands: f64 = rates.iter().map(|rate| rate.per_second(rate.commands())).sum();
    let devices = if rates.len() == 1 { "1 device".into() } else { format!("{} devices", rates.len()) };
    format!("{devices}, {commands:.0} commands/s, {}/s read, {}/s written", bytes(0), bytes(1))
}

impl Rate {
    fn of(&self, kind: Kind) -> &Histogram {
        &self.latency[kind as usize]
    }

    pub(super) fn commands(&self) -> u64 {
        self.latency.iter().map(Histogram::count).sum()
    }

    fn per_second(&self, commands: u64) -> f64 {
        commands as f64 / self.seconds
    }

    fn other(&self) -> u64 {
        self.commands() - self.of(Kind::Read).count() - self.of(Kind::Write).count()
    }

    pub(super) fn json(&self) -> Value {
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

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Device,
    Handler,
    Reads,
    Writes,
    Other,
    BytesRead,
    BytesWritten,
    ReadMedian,
    ReadP99,
    WriteMedian,
    WriteP99,
    Queue,
    Failed,
    State,
}

impl Column {
    pub(super) const ALL: [Column; 14] = [
        Column::Device,
        Column::Handler,
        Column::Reads,
        Column::Writes,
        Column::Other,
        Column::BytesRead,
        Column::BytesWritten,
        Column::ReadMedian,
        Column::ReadP99,
        Column::WriteMedian,
        Column::WriteP99,
        Column::Queue,
        Column::Failed,
        Column::State,
    ];

    /// Those that are left out of a table that is too wide, the first of them first.
    pub(super) const LEAST: [Column; 12] = [
        Column::Handler,
        Column::Other,
        Column::Failed,
        Column::WriteMedian,
        Column::ReadMedian,
        Column::BytesWritten,
        Column::BytesRead,
        Column::State,
        Column::WriteP99,
        Column::ReadP99,
        Column::Queue,
        Column::Writes,
    ];

    pub(super) fn heading(self) -> &'static str {
        match self {
            Column::Device => "DEVICE",
            Column::Handler => "HANDLER",
            Column::Reads => "R/S",
            Column::Writes => "W/S",
            Column::Other => "OTHER/S",
            Column::BytesRead => "READ",
            Column::BytesWritten => "WRITTEN",
            Column::ReadMedian => "R-P50",
            Column::ReadP99 => "R-P99",
            Column::WriteMedian => "W-P50",
            Column::WriteP99 => "W-P99",
            Column::Queue => "QUEUE",
            Column::Failed => "FAILED/S",
            Column::State => "STATE",
        }
    }

    /// Words stand left, numbers right.
    pub(super) fn is_words(self) -> bool {
        matches!(self, Column::Device | Column::Handler | Column::State)
    }

    pub(super) fn cell(self, rate: &Rate) -> String {
        let (read, write) = (rate.of(Kind::Read), rate.of(Kind::Write));
        match self {
            Column::Device => rate.device.device.clone(),
            Column::Handler => rate.device.handler.clone(),
            Column::State => rate.device.state.clone(),
            Column::BytesRead | Column::BytesWritten => format!("{}/s", size(self.number(rate) as u64)),
            Column::ReadMedian => quantile(read, 0.5),
            Column::ReadP99 => quantile(read, 0.99),
            Column::WriteMedian => quantile(write, 0.5),
            Column::WriteP99 => quantile(write, 0.99),
            _ => format!("{:.0}", self.number(rate)),
        }
    }

    fn number(self, rate: &Rate) -> f64 {
        let latency = |kind, part| rate.of(kind).quantile(part).map_or(0.0, |time| time.as_secs_f64());
        match self {
            Column::Reads => rate.per_second(rate.of(Kind::Read).count()),
            Column::Writes => rate.per_second(rate.of(Kind::Write).count()),
            Column::Other => rate.per_second(rate.other()),
            Column::BytesRead => rate.bytes[0],
            Column::BytesWritten => rate.bytes[1],
            Column::ReadMedian => latency(Kind::Read, 0.5),
            Column::ReadP99 => latency(Kind::Read, 0.99),
            Column::WriteMedian => latency(Kind::Write, 0.5),
            Column::WriteP99 => latency(Kind::Write, 0.99),
            Column::Queue => rate.device.counters.in_flight as f64,
            Column::Failed => rate.failed,
            Column::Device | Column::Handler | Column::State => 0.0,
        }
    }

    /// Words from A to Z, the largest number first.
    fn order(self, a: &Rate, b: &Rate) -> Ordering {
        if self.is_words() { self.cell(a).cmp(&self.cell(b)) } else { self.number(b).total_cmp(&self.number(a)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn device(name: &str, reads: u64) -> DeviceStatistics {
        let mut device = DeviceStatistics {
            device: name.into(),
            handler: "file".into(),
            state: "serving".into(),
            serving: true,
            ..DeviceStatistics::default()
        };
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
        assert!(sum(&rates).starts_with("3 devices, 107 commands/s, 428.0 KiB/s read"), "{}", sum(&rates));
    }

    #[test]
    fn a_device_that_was_made_anew_counts_from_nothing() {
        let rates = rates(&[device("a", 1000)], &[device("a", 10)], Duration::from_secs(1));
        assert_eq!(Column::BytesRead.cell(&rates[0]), "40.0 KiB/s");
    }

    #[test]
    fn each_column_sorts_its_way() {
        let mut all = rates(&[], &[device("b", 1), device("c", 1), device("a", 9)], Duration::from_secs(1));
        let mut by = |column| {
            sort(&mut all, column);
            all.iter().map(|rate| rate.device.device.as_str()).collect::<String>()
        };
        assert_eq!([by(None), by(Some(Column::Device)), by(Some(Column::Reads)), by(Some(Column::State))], ["abc"; 4]);
        let mut all = rates(&[], &[device("b", 2), device("a", 1)], Duration::from_secs(1));
        sort(&mut all, Some(Column::Reads));
        assert_eq!(all[0].device.device, "b");
        sort(&mut all, Some(Column::Device));
        assert_eq!(all[0].device.device, "a");
    }
}
