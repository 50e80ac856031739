//! The table of accepted differences.
use serde::Deserialize;

/// An accepted difference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Which: a key in which `*` stands for anything.
    pub pattern: String,
    /// The clause of a standard that makes ours right, or allows both.
    pub clause: Option<String>,
    /// Why it is so.
    pub reason: String,
}

/// The accepted differences, in the order of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(default)]
    difference: Vec<Accepted>,
}

impl Table {
    /// Reads a table.
    pub fn read(text: &str) -> anyhow::Result<Table> {
        Ok(toml::from_str(text)?)
    }

    /// What explains a difference: the first entry that matches its key.
    pub fn explains(&self, key: &str) -> Option<&Accepted> {
        self.difference.iter().find(|accepted| matches(&accepted.pattern, key))
    }

    /// Entries that explain none of these keys.
    pub fn unused<'a>(&'a self, keys: &'a [String]) -> impl Iterator<Item = &'a Accepted> {
        self.difference.iter().filter(|accepted| !keys.iter().any(|key| matches(&accepted.pattern, key)))
    }
}

/// Whether a text is as a pattern says, in which `*` stands for anything, also for nothing.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    let mut at = text;
    loop {
        if matches(rest, at) {
            return true;
        }
        let mut chars = at.chars();
        if chars.next().is_none() {
            return false;
        }
        at = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("READ(*) fua*: ours GOOD", "READ(16) fua dpo: ours GOOD"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "a..b..b..c"));
        assert!(!matches("a*b*c", "a..c..b"));
        assert!(!matches("READ(10)", "READ(10) fua"));
    }

    #[test]
    fn every_accepted_difference_is_one_and_has_a_reason() {
        let table = Table::read(include_str!("../differences.toml")).unwrap();
        assert!(!table.difference.is_empty());
        for (at, accepted) in table.difference.iter().enumerate() {
            let Accepted { pattern, clause, reason } = accepted;
            assert!(reason.len() > 20, "{pattern}: {reason}");
            assert!(
                clause.as_ref().is_none_or(|c| c.starts_with("SPC-") || c.starts_with("SBC-") || c.starts_with("SAM-")),
                "{pattern}"
            );
            assert!(pattern.contains("ours") || pattern.contains("peer"), "{pattern} says of no unit what it does");
            assert!(!table.difference[..at].iter().any(|earlier| earlier.pattern == *pattern), "{pattern} is there twice");
        }
    }

    #[test]
    fn what_is_wrong_whoever_does_it_is_never_explained() {
        let table = Table::read(include_str!("../differences.toml")).unwrap();
        for key in [
            "READ(10) data: differs",
            "WRITE(16) medium: differs",
            "READ(16): ours MEDIUM ERROR/11h/00h, peer GOOD",
            "WRITE(10): ours no answer (host status 07h), peer GOOD",
            "INQUIRY structure: ours: the header is cut off",
            "WRITE AND VERIFY(16) medium: not what the command defines",
        ] {
            assert!(table.explains(key).is_none(), "{key}");
        }
    }

    #[test]
    fn entries_that_nothing_needed_are_told() {
        let table =
            Table::read("[[difference]]\npattern = 'a*'\nreason = 'x'\n[[difference]]\npattern = 'b'\nreason = 'y'").unwrap();
        let keys = ["ab".to_string()];
        let unused: Vec<&str> = table.unused(&keys).map(|accepted| &accepted.pattern[..]).collect();
        assert_eq!(unused, ["b"]);
        assert!(Table::read("[[difference]]\npattern = 'a'").is_err(), "no reason");
    }
}
