//! The outcome of a conformance run, for people and for programs.
use std::fmt::{self, Write as _};

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed {
        /// What should be.
        expected: String,
        /// What was.
        found: String,
    },
    /// Does not apply to this handler.
    NotApplicable {
        /// For what reason.
        why: String,
    },
    /// Neither right nor wrong, but worth knowing.
    Noted {
        /// What was seen.
        what: String,
    },
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it belongs to: `table`, `config`, `device`, `data`, `operations`, `concurrency`, `scsi`, `life cycle`, `contract`.
    pub group: &'static str,
    /// The rule, in words.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// All checks of a run. `Display` is the report for people.
#[derive(Clone, Debug)]
pub struct Report {
    /// Subtype and version of the handler.
    pub handler: String,
    /// The config string.
    pub config: String,
    /// Repeats the run with the same data and order.
    pub seed: u64,
    /// In the order of the run.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing failed.
    pub fn is_success(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| matches!(c.outcome, Outcome::Failed { .. }))
    }

    /// How many passed, failed, did not apply, were only noted.
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for check in &self.checks {
            counts[match check.outcome {
                Outcome::Passed => 0,
                Outcome::Failed { .. } => 1,
                Outcome::NotApplicable { .. } => 2,
                Outcome::Noted { .. } => 3,
            }] += 1;
        }
        counts
    }

    /// The report as one JSON object: `handler`, `config`, `seed`, `passed`, `failed`, `not_applicable`, `noted`, and `checks`, an array
    /// of objects with `group`, `name`, `outcome` (`passed`, `failed`, `not_applicable`, `noted`) and by outcome `expected` and `found`,
    /// `why`, or `what`. The seed is a string: it may be larger than a JSON reader's numbers.
    pub fn to_json(&self) -> String {
        let [passed, failed, not_applicable, noted] = self.counts();
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|check| {
                let (outcome, more) = match &check.outcome {
                    Outcome::Passed => ("passed", String::new()),
                    Outcome::Failed { expected, found } => {
                        ("failed", format!(",\"expected\":{},\"found\":{}", quoted(expected), quoted(found)))
                    }
                    Outcome::NotApplicable { why } => ("not_applicable", format!(",\"why\":{}", quoted(why))),
                    Outcome::Noted { what } => ("noted", format!(",\"what\":{}", quoted(what))),
                };
                format!("{{\"group\":{},\"name\":{},\"outcome\":\"{outcome}\"{more}}}", quoted(check.group), quoted(&check.name))
            })
            .collect();
        format!(
            "{{\"handler\":{},\"config\":{},\"seed\":\"{}\",\"passed\":{passed},\"failed\":{failed},\
             \"not_applicable\":{not_applicable},\"noted\":{noted},\"checks\":[{}]}}",
            quoted(&self.handler),
            quoted(&self.config),
            self.seed,
            checks.join(",")
        )
    }
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "handler {}, config \"{}\", seed {}", self.handler, self.config, self.seed)?;
        let mut group = "";
        for check in &self.checks {
            if check.group != group {
                group = check.group;
                writeln!(f, "\n{group}")?;
            }
            match &check.outcome {
                Outcome::Passed => writeln!(f, "  ok    {}", check.name)?,
                Outcome::Failed { expected, found } => {
                    writeln!(f, "  FAIL  {}", check.name)?;
                    writeln!(f, "        expected: {expected}")?;
                    writeln!(f, "        found:    {}", found.replace('\n', "\n                  "))?;
                }
                Outcome::NotApplicable { why } => writeln!(f, "  -     {} (not applicable: {why})", check.name)?,
                Outcome::Noted { what } => writeln!(f, "  note  {}: {what}", check.name)?,
            }
        }
        let [passed, failed, not_applicable, noted] = self.counts();
        write!(f, "\n{passed} passed, {failed} failed, {not_applicable} not applicable")?;
        if noted > 0 { write!(f, ", {noted} noted") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let check = |name: &str, outcome| Check { group: "data", name: name.into(), outcome };
        Report {
            handler: "x 1".into(),
            config: "a\"b\\\u{1}".into(),
            seed: u64::MAX,
            checks: vec![
                check("one", Outcome::Passed),
                check("two", Outcome::Failed { expected: "A".into(), found: "B\nC".into() }),
                check("three", Outcome::NotApplicable { why: "D".into() }),
                check("four", Outcome::Noted { what: "E".into() }),
            ],
        }
    }

    #[test]
    fn people_see_a_line_for_each_check_and_the_detail_of_failures() {
        let expected = "\
handler x 1, config \"a\"b\\\u{1}\", seed 18446744073709551615

data
  ok    one
  FAIL  two
        expected: A
        found:    B
                  C
  -     three (not applicable: D)
  note  four: E

1 passed, 1 failed, 1 not applicable, 1 noted";
        assert_eq!(report().to_string(), expected);
        assert!(!report().is_success());
    }

    #[test]
    fn programs_get_valid_json() {
        assert_eq!(
            report().to_json(),
            "{\"handler\":\"x 1\",\"config\":\"a\\\"b\\\\\\u0001\",\"seed\":\"18446744073709551615\",\"passed\":1,\"failed\":1,\
             \"not_applicable\":1,\"noted\":1,\"checks\":[{\"group\":\"data\",\"name\":\"one\",\"outcome\":\"passed\"},\
             {\"group\":\"data\",\"name\":\"two\",\"outcome\":\"failed\",\"expected\":\"A\",\"found\":\"B\\nC\"},\
             {\"group\":\"data\",\"name\":\"three\",\"outcome\":\"not_applicable\",\"why\":\"D\"},\
             {\"group\":\"data\",\"name\":\"four\",\"outcome\":\"noted\",\"what\":\"E\"}]}"
        );
    }
}
