//! CHAP passwords: from a file, the environment or the terminal, and never from the command line, where every user could see them.
use std::{
    fmt, fs,
    io::{self, IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// The environment variable that is looked at.
pub(crate) const VARIABLE: &str = "TCMUCTL_CHAP_PASSWORD";

/// Something that is not shown.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The first line of a file that others can't read.
pub(crate) fn from_file(path: &Path) -> anyhow::Result<String> {
    let failed = || format!("the password's file {}", path.display());
    let mode = fs::metadata(path).with_context(failed)?.mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others than its owner; chmod 600 it", path.display());
    }
    let text = fs::read_to_string(path).with_context(failed)?;
    let password = text.lines().next().unwrap_or_default();
    anyhow::ensure!(!password.is_empty(), "{}: a password is needed in its first line", path.display());
    Ok(password.to_owned())
}

/// From a file if one is named, else from the environment, else from whoever sits at the terminal.
pub(crate) fn ask(user: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
    if let Some(file) = file {
        return from_file(file).map(Secret);
    }
    if let Ok(password) = std::env::var(VARIABLE) {
        return Ok(Secret(password));
    }
    if !io::stdin().is_terminal() {
        bail!("the password of CHAP user {user:?} is needed: --chap-password-file FILE, or {VARIABLE} in the environment");
    }
    eprint!("CHAP password for {user}: ");
    io::stderr().flush()?;
    let password = without_echo(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    })?;
    errln!("");
    Ok(Secret(password.trim_end_matches('\n').to_owned()))
}

fn without_echo<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let terminal = io::stdin();
    let before = tcgetattr(&terminal)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Now, &quiet)?;
    let outcome = read();
    tcsetattr(&terminal, OptionalActions::Now, &before)?;
    outcome
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "secret\nmore\n").unwrap();
        assert_eq!(from_file(file.path()).unwrap(), "secret");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(from_file(file.path()).unwrap_err().to_string().contains("chmod 600"));
        assert_eq!(format!("{:?}", Secret("x".into())), "Secret");
    }
}
