//! tcmu-runner's configuration as one of ours.
use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tcmu_runnerd::{config, legacy};

/// A file of that size is no configuration (tcmu-runner has the same limit).
const LARGEST: u64 = 2 << 20;

/// What to convert.
#[derive(clap::Args)]
pub(crate) struct Migrate {
    /// tcmu-runner's configuration.
    #[arg(long, value_name = "FILE", default_value = legacy::CONF)]
    from: PathBuf,
    /// Ours, which must not be there yet; `-` prints it.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    to: PathBuf,
}

impl Migrate {
    /// Writes the new file, and says what has no place in it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let from = self.from.display();
        let size = fs::metadata(&self.from).with_context(|| format!("{from}"))?.len();
        if size > LARGEST {
            bail!("{from}: {size} bytes are too many for a configuration");
        }
        let text = fs::read(&self.from).with_context(|| format!("{from}"))?;
        let converted = legacy::convert(&String::from_utf8_lossy(&text), &from.to_string());
        // What we write we can read.
        config::Config::parse(&converted.toml, &self.to)?;
        if self.to == Path::new("-") {
            out!("{}", converted.toml);
        } else {
            self.write(&converted.toml)?;
            outln!("{} written; the daemon reads it by itself", self.to.display());
        }
        converted.notes.iter().for_each(|note| errln!("{from}: {note}"));
        Ok(())
    }

    fn write(&self, toml: &str) -> anyhow::Result<()> {
        let to = self.to.display();
        if let Some(dir) = self.to.parent() {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let file = fs::File::options().write(true).create_new(true).open(&self.to);
        let mut file = match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{to} is there already: move it away, or name another file with --to (`--to -` prints)")
            }
            file => file.with_context(|| to.to_string())?,
        };
        file.write_all(toml.as_bytes()).and_then(|()| file.sync_all()).with_context(|| to.to_string())
    }
}
