//! The config string.
use tcmu_handler_api::plugin::{Refusal, options::Options};

/// What the config string says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) path: String,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) direct: bool,
    pub(crate) removable: bool,
}

impl Config {
    pub(crate) fn parse(config: &str) -> Result<Config, Refusal> {
        let mut options = Options::parse(config)?;
        let path = options.subject();
        if path.is_empty() {
            return Err(Refusal::invalid("the path is missing: file/<absolute path> is needed, as in file//srv/disk.img"));
        }
        if !path.starts_with('/') {
            // tcmu-runner takes it from the directory that it was started in: a disk that moves when the daemon is started differently.
            return Err(Refusal::invalid(format!(
                "the path {path:?} is relative: an absolute one is needed, as in file//srv/disk.img"
            )));
        }
        let config = Config {
            path: path.to_owned(),
            read_only: options.take_switch("ro", false)?,
            create: options.take_switch("create", true)?,
            direct: options.take_switch("direct", false)?,
            removable: options.take_switch("removable", false)?,
        };
        options.finish()?;
        Ok(config)
    }
}
