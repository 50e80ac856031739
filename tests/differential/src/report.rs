//! What was found: each difference once, with the first command that showed it.
use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::{
    answer::Answer,
    request::{Request, hex},
    table::Table,
};

/// The first command that showed a difference.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The how-manieth command it was, from 0.
    pub command: u64,
    /// The CDB in hexadecimal.
    pub cdb: String,
    /// Data-Out as `--out` takes it.
    pub out: String,
    /// Bytes of room for Data-In.
    pub room: usize,
    /// Our answer.
    pub ours: String,
    /// The peer's answer.
    pub peer: String,
}

impl Example {
    /// Of a command and its answers.
    pub fn new(command: u64, request: &Request, out: &[u8], ours: &Answer, peer: &Answer) -> Example {
        let mode = matches!(request.out, crate::request::Payload::Mode(_));
        let out = if mode { hex(out) } else { request.out.to_string() };
        Example { command, cdb: hex(&request.cdb), out, room: request.room, ours: describe(ours), peer: describe(peer) }
    }
}

/// An answer for people.
pub fn describe(answer: &Answer) -> String {
    let mut text = answer.outcome();
    if !answer.sense.is_empty() {
        let _ = write!(text, ", sense {}", hex(&answer.sense));
    }
    if answer.residual != 0 {
        let _ = write!(text, ", residual {}", answer.residual);
    }
    if !answer.data.is_empty() {
        let shown = answer.data.len().min(64);
        let more = if shown < answer.data.len() { "..." } else { "" };
        let _ = write!(text, ", {} bytes {}{more}", answer.data.len(), hex(&answer.data[..shown]));
    }
    text
}

/// A kind of difference.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// How often.
    pub count: u64,
    /// The clause or reason of the table, if it is accepted.
    pub accepted: Option<String>,
    /// The first.
    pub example: Example,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Commands that were sent to both.
    pub commands: u64,
    /// Commands in a second, each sent to both.
    pub rate: f64,
    /// How often both gave GOOD, by name: a command that both always refuse tests little.
    pub good: BTreeMap<String, u64>,
    /// The differences by key.
    pub differences: BTreeMap<String, Found>,
}

impl Report {
    /// Adds a difference.
    pub fn add(&mut self, key: String, example: impl FnOnce() -> Example, table: &Table) {
        if let Some(found) = self.differences.get_mut(&key) {
            found.count += 1;
            return;
        }
        let accepted = table.explains(&key).map(|a| a.clause.iter().chain([&a.reason]).cloned().collect::<Vec<_>>().join(": "));
        self.differences.insert(key, Found { count: 1, accepted, example: example() });
    }

    /// The differences that nothing explains.
    pub fn unexplained(&self) -> impl Iterator<Item = (&String, &Found)> {
        self.differences.iter().filter(|(_, found)| found.accepted.is_none())
    }

    /// For people.
    pub fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        for (key, found) in &self.differences {
            match &found.accepted {
                None => {
                    let Example { command, cdb, out, room, ours, peer } = &found.example;
                    let data = match (out.as_str(), room) {
                        ("none", 0) => String::new(),
                        ("none", room) => format!(" --room {room}"),
                        (out, _) => format!(" --out {out}"),
                    };
                    let _ = writeln!(text, "{key}");
                    let _ = writeln!(text, "  {} times, first command {command}: --only {cdb}{data}", found.count);
                    let _ = writeln!(text, "  ours: {ours}\n  peer: {peer}");
                }
                Some(why) if verbose => {
                    let _ = writeln!(text, "accepted: {key} ({} times)\n  {why}", found.count);
                }
                Some(_) => {}
            }
        }
        let unexplained = self.unexplained().count();
        let accepted = self.differences.len() - unexplained;
        let good: u64 = self.good.values().sum();
        let _ = write!(text, "{} commands, {good} of them GOOD by both, {:.0} a second: ", self.commands, self.rate);
        let _ = writeln!(text, "{accepted} kinds of accepted differences, {unexplained} that nothing explains");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Payload;

    fn example() -> Example {
        let request = Request { cdb: vec![0x12, 0, 0, 0, 5, 0], out: Payload::None, room: 5 };
        let ours = Answer { data: vec![1, 2], residual: 3, ..Answer::default() };
        Example::new(7, &request, &[], &ours, &Answer { status: 8, ..Answer::default() })
    }

    #[test]
    fn a_difference_is_told_once_with_how_to_send_it_again() {
        let mut report = Report::default();
        report.add("INQUIRY: ours GOOD, peer BUSY".to_string(), example, &Table::default());
        report.add("INQUIRY: ours GOOD, peer BUSY".to_string(), || unreachable!(), &Table::default());
        let text = report.text(false);
        assert!(text.contains("2 times, first command 7: --only 120000000500 --room 5\n"), "{text}");
        assert!(text.contains("ours: GOOD, residual 3, 2 bytes 0102\n  peer: BUSY\n"), "{text}");
        assert_eq!(report.unexplained().count(), 1);
    }

    #[test]
    fn what_the_table_explains_is_no_failure() {
        let table = Table::read("[[difference]]\npattern = 'INQUIRY*BUSY'\nclause = 'SPC-6 1'\nreason = 'so'").unwrap();
        let mut report = Report::default();
        report.add("INQUIRY: ours GOOD, peer BUSY".to_string(), example, &table);
        assert_eq!(report.unexplained().count(), 0);
        assert!(!report.text(false).contains("INQUIRY"));
        assert!(report.text(true).contains("SPC-6 1: so"));
    }
}
