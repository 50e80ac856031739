//! Config strings of the form `what;key=value;key=value`. Neither `:` nor `,` can be in them: `targetcli` and configfs take those for
//! themselves.
use crate::plugin::Refusal;

/// A config string, taken apart. Each option is taken once; [`Options::finish`] refuses what nobody took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    subject: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    /// Takes a config string apart.
    pub fn parse(config: &'a str) -> Result<Options<'a>, Refusal> {
        let mut parts = config.split(';');
        let subject = parts.next().unwrap_or_default();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(Refusal::invalid(format!("option {part:?}: `key=value` is needed")));
            };
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(Refusal::invalid(format!("option {key:?} is given twice")));
            }
            pairs.push((key, value));
        }
        Ok(Options { subject, pairs, known: Vec::new() })
    }

    /// The part before the first `;`.
    pub fn subject(&self) -> &'a str {
        self.subject
    }

    /// Takes an option's value.
    pub fn take(&mut self, key: &'static str) -> Option<&'a str> {
        self.known.push(key);
        let at = self.pairs.iter().position(|(other, _)| *other == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// Takes an option that is `on` or `off`.
    pub fn take_switch(&mut self, key: &'static str, default: bool) -> Result<bool, Refusal> {
        match self.take(key) {
            None => Ok(default),
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(value) => Err(Refusal::invalid(format!("option {key}={value}: `on` or `off` is needed"))),
        }
    }

    /// Takes an option that is a number of bytes.
    pub fn take_size(&mut self, key: &'static str, default: u64) -> Result<u64, Refusal> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.parse().map_err(|_| Refusal::invalid(format!("option {key}={value}: a number of bytes is needed")))
    }

    /// Refuses options that nobody took.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) if self.known.is_empty() => {
                Err(Refusal::invalid(format!("option {key:?}: there are no options here")))
            }
            Some((key, _)) => Err(Refusal::invalid(format!("option {key:?} is not known; there are: {}", self.known.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_string_is_taken_apart() {
        let mut options = Options::parse("/srv/a b.img;ro=on;size=5;").unwrap();
        assert_eq!(options.subject(), "/srv/a b.img");
        assert_eq!(options.take_switch("ro", false), Ok(true));
        assert_eq!(options.take_switch("direct", false), Ok(false));
        assert_eq!(options.take("size"), Some("5"));
        assert_eq!(options.finish(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |config: &str| {
            let parsed = Options::parse(config).and_then(|mut options| {
                options.take_switch("ro", false)?;
                options.finish()
            });
            parsed.unwrap_err().message().to_owned()
        };
        assert_eq!(message("a;ro"), "option \"ro\": `key=value` is needed");
        assert_eq!(message("a;ro=on;ro=on"), "option \"ro\" is given twice");
        assert_eq!(message("a;ro=yes"), "option ro=yes: `on` or `off` is needed");
        assert_eq!(message("a;rw=on"), "option \"rw\" is not known; there are: ro");
    }
}
