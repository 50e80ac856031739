//! What a run of the bench found.
use std::fmt;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be: what was expected and what came.
    Failed(String),
    /// Nothing to check, and why.
    NotApplicable(String),
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is true if it passes, in words.
    pub name: &'static str,
    /// Whether it is.
    pub verdict: Verdict,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The handler.
    pub subject: String,
    /// The seed of the random numbers.
    pub seed: u64,
    /// All checks, in order.
    pub checks: Vec<Check>,
}

impl Report {
    /// Checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.verdict, Verdict::Failed(_)))
    }

    /// 0 if all passed, 1 if some failed, 2 if nothing could be checked.
    pub fn exit_status(&self) -> u8 {
        let passed = self.checks.iter().any(|check| check.verdict == Verdict::Passed);
        match (self.failures().next().is_some(), passed) {
            (true, _) => 1,
            (false, true) => 0,
            (false, false) => 2,
        }
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        let checks: Vec<String> = self
            .checks
            .iter()
            .map(|check| {
                let (verdict, detail) = match &check.verdict {
                    Verdict::Passed => ("passed", ""),
                    Verdict::Failed(detail) => ("failed", detail.as_str()),
                    Verdict::NotApplicable(detail) => ("not applicable", detail.as_str()),
                };
                format!("{{\"check\":{},\"verdict\":{},\"detail\":{}}}", quoted(check.name), quoted(verdict), quoted(detail))
            })
            .collect();
        format!("{{\"subject\":{},\"seed\":{},\"checks\":[{}]}}", quoted(&self.subject), self.seed, checks.join(","))
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (seed {})", self.subject, self.seed)?;
        for check in &self.checks {
            match &check.verdict {
                Verdict::Passed => writeln!(f, "  ok    {}", check.name)?,
                Verdict::Failed(detail) => writeln!(f, "  FAIL  {}\n        {detail}", check.name)?,
                Verdict::NotApplicable(why) => writeln!(f, "  -     {} ({why})", check.name)?,
            }
        }
        let passed = self.checks.iter().filter(|check| check.verdict == Verdict::Passed).count();
        writeln!(
            f,
            "{passed} passed, {} failed, {} not applicable",
            self.failures().count(),
            self.checks.len() - passed - self.failures().count()
        )
    }
}
