//! Results, medians, and goals.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// All measurements: target, case, metric.
#[derive(Debug, Default)]
pub struct Results {
    pub targets: Vec<String>,
    pub cases: Vec<String>,
    values: BTreeMap<(String, String, String), Vec<f64>>,
}

impl Results {
    pub fn add(&mut self, target: &str, case: &str, metric: &str, value: f64) {
        for (list, name) in [(&mut self.targets, target), (&mut self.cases, case)] {
            if !list.iter().any(|known| known == name) {
                list.push(name.into());
            }
        }
        self.values.entry((target.into(), case.into(), metric.into())).or_default().push(value);
    }

    pub fn median(&self, target: &str, case: &str, metric: &str) -> Option<f64> {
        Some(median(self.values(target, case, metric)?.to_vec()))
    }

    /// Round by round.
    fn values(&self, target: &str, case: &str, metric: &str) -> Option<&[f64]> {
        Some(self.values.get(&(target.into(), case.into(), metric.into()))?.as_slice())
    }

    /// What one has for each that the other has in the same round: the median, and the least and the most of them.
    fn beside(&self, target: &str, peer: &str, case: &str, metric: &str) -> Option<[f64; 3]> {
        let (ours, theirs) = (self.values(target, case, metric)?, self.values(peer, case, metric)?);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, f64::MIN), |(least, most), r| (r.min(least), r.max(most)));
        Some([median(ratios), least, most])
    }

    /// The metrics whose names begin so.
    pub fn metrics(&self, start: &str) -> Vec<String> {
        let all: BTreeSet<_> =
            self.values.keys().map(|(_, _, metric)| metric).filter(|metric| metric.starts_with(start)).collect();
        all.into_iter().cloned().collect()
    }

    /// All medians, for programs.
    pub fn json(&self) -> serde_json::Value {
        let mut found = serde_json::Map::new();
        for (target, case, metric) in self.values.keys() {
            let value = self.median(target, case, metric);
            let target = found.entry(target.clone()).or_insert_with(|| serde_json::json!({}));
            let case = target.as_object_mut().map(|target| target.entry(case.clone()).or_insert_with(|| serde_json::json!({})));
            if let Some(case) = case.and_then(|case| case.as_object_mut()) {
                case.insert(metric.clone(), serde_json::json!(value));
            }
        }
        found.into()
    }

    /// A table of one metric, cases down, targets across.
    pub fn table(&self, metric: &str, show: impl Fn(f64) -> String) -> String {
        let mut text = String::from("| |");
        for target in &self.targets {
            let _ = write!(text, " {target} |");
        }
        text += "\n|---|";
        self.targets.iter().for_each(|_| text += "---|");
        text.push('\n');
        for case in &self.cases {
            let values: Vec<_> = self.targets.iter().map(|target| self.median(target, case, metric)).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(text, "| {case} |");
            for value in values {
                let _ = write!(text, " {} |", value.map_or("-".into(), &show));
            }
            text.push('\n');
        }
        text
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}

/// A ratio that is to be reached.
pub struct Goal<'a> {
    /// Which cases, by name; one that ends with `*` by its beginning.
    pub cases: &'a [&'a str],
    pub ours: &'a [&'a str],
    /// Held against the best of these.
    pub peers: &'a [&'a str],
    pub metric: &'a str,
    /// At least so much for what is to be much, at most for what is to be little.
    pub ratio: f64,
    /// Those that do the same with nothing around it: the best of them is how far one can get.
    pub limits: &'a [&'a str],
}

impl Goal<'_> {
    /// Whether less is better.
    fn is_cost(&self) -> bool {
        self.metric != "iops"
    }

    /// Who of them does best at this, and how well.
    fn best<'n>(&self, who: &[&'n str], results: &Results, case: &str) -> Option<(&'n str, f64)> {
        let better = |a: &f64, b: &f64| if self.is_cost() { b.total_cmp(a) } else { a.total_cmp(b) };
        let medians = who.iter().filter_map(|name| Some((*name, results.median(name, case, self.metric)?)));
        medians.max_by(|(_, a), (_, b)| better(a, b))
    }

    /// Above the lines that `judge` writes.
    pub const HEADING: &'static str = "| case | what | ratio of medians | goal | reached | the bare loop on a file in its place | round by round: median (least to most) |\n|---|---|---|---|---|---|---|\n";

    /// A line for each case and target, and how many missed it.
    pub fn judge(&self, results: &Results, text: &mut String) -> usize {
        let mut missed = 0;
        for case in results.cases.iter().filter(|case| self.cases.iter().any(|wanted| is_meant(case, wanted))) {
            for ours in self.ours {
                let best = self.best(self.peers, results, case);
                let (Some(value), Some((peer, best))) = (results.median(ours, case, self.metric), best) else { continue };
                let ratio = value / best;
                let good = if self.is_cost() { ratio <= self.ratio } else { ratio >= self.ratio };
                missed += usize::from(!good);
                let sign = if self.is_cost() { "≤" } else { "≥" };
                let verdict = if good { "yes" } else { "**no**" };
                let limit = self.best(self.limits, results, case);
                let limit = limit.map_or("-".into(), |(_, value)| format!("{:.2}", value / best));
                let rounds = results.beside(ours, peer, case, self.metric);
                let rounds = rounds.map_or("-".into(), |[median, least, most]| format!("{median:.2} ({least:.2} to {most:.2})"));
                let _ = writeln!(
                    text,
                    "| {case} | {} of {ours} against {peer} | {ratio:.2} | {sign} {:.2} | {verdict} | {limit} | {rounds} |",
                    self.metric.replace('_', " "),
                    self.ratio
                );
            }
        }
        missed
    }
}

fn is_meant(case: &str, wanted: &str) -> bool {
    wanted.strip_suffix('*').map_or(case == wanted, |start| case.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for (target, values) in [("ours", [10.0, 30.0, 20.0]), ("a", [9.0, 10.0, 11.0]), ("b", [24.0, 25.0, 26.0])] {
            values.iter().for_each(|value| results.add(target, "4k read", "iops", *value));
            values.iter().for_each(|value| results.add(target, "4k read", "cpu_us_per_io", *value));
        }
        results
    }

    #[test]
    fn goals_are_held_against_the_better_peer() {
        let goal = |metric, ratio| Goal {
            cases: &["4k*"],
            ours: &["ours"],
            peers: &["a", "b", "c"],
            metric,
            ratio,
            limits: &["a", "ours"],
        };
        let mut text = String::new();
        assert_eq!(goal("iops", 0.8).judge(&results(), &mut text), 0);
        assert_eq!(goal("iops", 0.81).judge(&results(), &mut text), 1);
        assert_eq!(goal("cpu_us_per_io", 2.0).judge(&results(), &mut text), 0);
        assert_eq!(goal("cpu_us_per_io", 1.9).judge(&results(), &mut text), 1);
        assert!(text.contains("| iops of ours against b | 0.80 | ≥ 0.80 | yes | 0.80 | 0.77 (0.42 to 1.20) |"), "{text}");
    }

    #[test]
    fn medians_make_a_table() {
        let table = results().table("iops", |value| format!("{value:.0}"));
        assert_eq!(table, "| | ours | a | b |\n|---|---|---|---|\n| 4k read | 20 | 10 | 25 |\n");
    }
}
