//! What was done for devices and by handlers, as the supervisor knows it and passes it on.
use std::{collections::BTreeMap, time::Duration};

use tcmu::server::counters::{BUCKETS, Counters, Kind};

/// A device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceStatistics {
    /// `user_<hba>/<name>`
    pub device: String,
    /// Its handler's subtype.
    pub handler: String,
    /// Where it is in its life, in words.
    pub state: String,
    /// Whether it is served.
    pub serving: bool,
    /// How old its oldest command is, if that is too old.
    pub hangs: Option<Duration>,
    /// How many times it was served again after a pause, since the daemon started.
    pub takeovers: u64,
    /// How long it was not served although it should have been, since the daemon started.
    pub blocked: Duration,
    /// What was done for it since it was created; hosts and daemons that came and went do not matter.
    pub counters: Counters,
}

/// A handler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HandlerStatistics {
    /// Its subtype.
    pub handler: String,
    /// Whether it has a process that is ready.
    pub up: bool,
    /// Processes that were started after the first one.
    pub restarts: u64,
    /// Devices that are there.
    pub devices: u64,
    /// What was done for all of its devices, those that are gone among them, since the daemon started.
    pub counters: Counters,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// By name.
    pub devices: Vec<DeviceStatistics>,
    /// By subtype.
    pub handlers: Vec<HandlerStatistics>,
}

/// A value that programs can be told.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Figure {
    Text(String),
    Number(u64),
    Numbers(Vec<u64>),
}

/// Names and values.
pub type Figures = BTreeMap<String, Figure>;

fn number(figures: &Figures, name: &str) -> u64 {
    match figures.get(name) {
        Some(Figure::Number(number)) => *number,
        _ => 0,
    }
}

fn numbers<'a>(figures: &'a Figures, name: &str) -> &'a [u64] {
    match figures.get(name) {
        Some(Figure::Numbers(numbers)) => numbers,
        _ => &[],
    }
}

fn text(figures: &Figures, name: &str) -> String {
    match figures.get(name) {
        Some(Figure::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

/// The counters that are single numbers, by the names that they are told by.
fn singles(counters: &mut Counters) -> [(&'static str, &mut u64); 13] {
    [
        ("commands", &mut counters.commands),
        ("reads", &mut counters.reads),
        ("writes", &mut counters.writes),
        ("bytes_read", &mut counters.bytes_read),
        ("bytes_written", &mut counters.bytes_written),
        ("errors", &mut counters.errors),
        ("other_status", &mut counters.other_status),
        ("in_flight", &mut counters.in_flight),
        ("in_flight_max", &mut counters.in_flight_max),
        ("batches", &mut counters.batches),
        ("kicks", &mut counters.kicks),
        ("slow", &mut counters.slow),
        ("size", &mut counters.size),
    ]
}

fn tell(counters: &Counters, figures: &mut Figures) {
    let mut counters = counters.clone();
    figures.extend(singles(&mut counters).map(|(name, value)| (name.to_owned(), Figure::Number(*value))));
    figures.insert("sense_keys".into(), Figure::Numbers(counters.sense_keys.to_vec()));
    for (kind, latency) in Kind::ALL.iter().zip(&counters.latency) {
        figures.insert(format!("latency_{}", kind.name()), Figure::Numbers(latency.buckets.to_vec()));
        figures.insert(format!("nanoseconds_{}", kind.name()), Figure::Number(latency.nanoseconds));
    }
}

fn understand(figures: &Figures) -> Counters {
    let mut counters = Counters::default();
    for (name, value) in singles(&mut counters) {
        *value = number(figures, name);
    }
    for (key, count) in counters.sense_keys.iter_mut().zip(numbers(figures, "sense_keys")) {
        *key = *count;
    }
    for (kind, latency) in Kind::ALL.iter().zip(&mut counters.latency) {
        let buckets = numbers(figures, &format!("latency_{}", kind.name()));
        latency.buckets = std::array::from_fn::<_, BUCKETS, _>(|bucket| buckets.get(bucket).copied().unwrap_or(0));
        latency.nanoseconds = number(figures, &format!("nanoseconds_{}", kind.name()));
    }
    counters
}

impl DeviceStatistics {
    /// By names.
    pub fn figures(&self) -> Figures {
        let mut figures: Figures = [
            ("device", Figure::Text(self.device.clone())),
            ("handler", Figure::Text(self.handler.clone())),
            ("state", Figure::Text(self.state.clone())),
            ("serving", Figure::Number(u64::from(self.serving))),
            ("hangs_seconds", Figure::Number(self.hangs.map_or(0, |time| time.as_secs()))),
            ("takeovers", Figure::Number(self.takeovers)),
            ("blocked_milliseconds", Figure::Number(self.blocked.as_millis() as u64)),
        ]
        .map(|(name, figure)| (name.to_owned(), figure))
        .into();
        tell(&self.counters, &mut figures);
        figures
    }

    /// From names; what is missing is zero or empty.
    pub fn of(figures: &Figures) -> DeviceStatistics {
        let hangs = number(figures, "hangs_seconds");
        DeviceStatistics {
            device: text(figures, "device"),
            handler: text(figures, "handler"),
            state: text(figures, "state"),
            serving: number(figures, "serving") != 0,
            hangs: (hangs > 0).then(|| Duration::from_secs(hangs)),
            takeovers: number(figures, "takeovers"),
            blocked: Duration::from_millis(number(figures, "blocked_milliseconds")),
            counters: understand(figures),
        }
    }
}

impl HandlerStatistics {
    /// By names.
    pub fn figures(&self) -> Figures {
        let mut figures: Figures = [
            ("handler", Figure::Text(self.handler.clone())),
            ("up", Figure::Number(u64::from(self.up))),
            ("restarts", Figure::Number(self.restarts)),
            ("devices", Figure::Number(self.devices)),
        ]
        .map(|(name, figure)| (name.to_owned(), figure))
        .into();
        tell(&self.counters, &mut figures);
        figures
    }

    /// From names; what is missing is zero or empty.
    pub fn of(figures: &Figures) -> HandlerStatistics {
        HandlerStatistics {
            handler: text(figures, "handler"),
            up: number(figures, "up") != 0,
            restarts: number(figures, "restarts"),
            devices: number(figures, "devices"),
            counters: understand(figures),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Something of everything, each another number.
    pub(crate) fn sample() -> Statistics {
        let mut counters = Counters::default();
        for (n, (_, value)) in singles(&mut counters).into_iter().enumerate() {
            *value = 1000 + n as u64;
        }
        counters.sense_keys = std::array::from_fn(|key| key as u64);
        for (n, latency) in counters.latency.iter_mut().enumerate() {
            latency.buckets = std::array::from_fn(|bucket| (10 * n + bucket) as u64);
            latency.nanoseconds = 1_000_000 * (n as u64 + 1);
        }
        let device = DeviceStatistics {
            device: "user_0/a".into(),
            handler: "file".into(),
            state: "serving".into(),
            serving: true,
            hangs: Some(Duration::from_secs(3)),
            takeovers: 2,
            blocked: Duration::from_millis(1500),
            counters: counters.clone(),
        };
        let handler = HandlerStatistics { handler: "file".into(), up: true, restarts: 4, devices: 1, counters };
        Statistics { devices: vec![device], handlers: vec![handler] }
    }

    #[test]
    fn what_is_told_by_names_is_understood() {
        let Statistics { devices, handlers } = sample();
        assert_eq!(DeviceStatistics::of(&devices[0].figures()), devices[0]);
        assert_eq!(HandlerStatistics::of(&handlers[0].figures()), handlers[0]);
        assert_eq!(DeviceStatistics::of(&Figures::new()), DeviceStatistics::default(), "another daemon may tell less");
    }
}
