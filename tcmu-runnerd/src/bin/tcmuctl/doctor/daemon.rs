//! The daemon: whether it runs, what it thinks of its configuration and plugins, and who is in its way.
use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tcmu_runnerd::trust;

use super::{Finding, Places};
use crate::{
    daemon::{Dictionary, Of, rows},
    disk::file,
};

/// Looks at all of it.
pub(super) fn look(places: &Places<'_>) -> Vec<Finding> {
    let mut found = run_dir(places);
    found.extend(plugins());
    found.extend(other(places));
    found.extend(devices());
    found.extend(disks_of_files(places));
    found
}

/// Whether it runs (its lock is held), and keeps others out of its run directory.
pub(super) fn run_dir(places: &Places<'_>) -> Vec<Finding> {
    let (about, dir) = ("daemon", &places.daemon_run);
    let mut found = Vec::new();
    if let Ok(metadata) = fs::metadata(dir)
        && (metadata.uid() != 0 || metadata.permissions().mode() & 0o077 != 0)
    {
        let mend = format!("chown root {0} && chmod 700 {0}", dir.display());
        found.push(Finding::wrong("run directory", format!("others than root may look into {}", dir.display()), mend));
    }
    let lock = dir.join("lock");
    match File::options().write(true).open(&lock) {
        // Others hold it as long as they run.
        Ok(file) if file.try_lock().is_err() => found.push(Finding::fine(about, "it is running")),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            found.push(Finding::hint(about, format!("{}: {error}", lock.display()), "sudo tcmuctl doctor"));
        }
        _ => found.push(Finding::wrong(about, "it is not running", "systemctl start tcmu-runnerd")),
    }
    found
}

/// What the daemon says of its configuration and plugins (`--check`).
fn plugins() -> Vec<Finding> {
    let about = "plugins";
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("tcmu-runnerd")));
    let candidates = [beside, Some("/usr/sbin/tcmu-runnerd".into())];
    let program = candidates.into_iter().flatten().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("tcmu-runnerd"));
    let output = match Command::new(&program).arg("--check").output() {
        Ok(output) => output,
        Err(error) => {
            return vec![Finding::wrong(about, format!("{}: {error}", program.display()), "install tcmu-runnerd")];
        }
    };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut found: Vec<Finding> = said
        .lines()
        .filter_map(|line| line.strip_prefix("refused: "))
        .map(|line| {
            Finding::wrong(
                about,
                line,
                format!("mend or remove the file, then: tcmuctl reload --exec ({} --check looks again)", program.display()),
            )
        })
        .collect();
    if let Some(problem) = complained.lines().next().filter(|_| !output.status.success() && found.is_empty()) {
        found.push(Finding::wrong(
            "configuration",
            problem.trim_start_matches("tcmu-runnerd: "),
            "correct the line, then: tcmuctl reload",
        ));
    }
    let handlers: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("handler: ")).filter_map(|line| line.split(' ').next()).collect();
    if !handlers.is_empty() {
        found.push(Finding::fine(about, format!("handlers: {}", handlers.join(", "))));
    } else if found.is_empty() {
        let mend = "install handlers in /usr/lib/tcmu-runnerd, or say in /etc/tcmu/tcmu.toml where they are (handler_path)";
        found.push(Finding::wrong(about, "there are none", mend));
    }
    found
}

/// tcmu-runner answers the same events as we do, and has the same name on the bus.
pub(super) fn other(places: &Places<'_>) -> Vec<Finding> {
    let about = "tcmu-runner";
    let comm = |dir: &Path| fs::read_to_string(dir.join("comm")).is_ok_and(|name| name.trim() == "tcmu-runner");
    let mut processes = fs::read_dir(&places.machine.proc).into_iter().flatten().flatten();
    if let Some(process) = processes.find(|entry| comm(&entry.path())) {
        let what = format!(
            "it is running (pid {}): both answer the kernel, and one refuses the other's disks",
            process.file_name().display()
        );
        return vec![Finding::wrong(about, what, "systemctl disable --now tcmu-runner")];
    }
    let installed = ["bin", "sbin"].iter().map(|dir| places.usr.join(dir).join("tcmu-runner")).find(|path| path.exists());
    installed
        .map(|path| {
            Finding::hint(about, format!("{} is installed and could be started", path.display()), "systemctl mask tcmu-runner")
        })
        .into_iter()
        .collect()
}

/// Devices that nobody serves at the moment.
fn devices() -> Vec<Finding> {
    // A daemon that can't be asked was told of above.
    let Ok(rows) = rows(Of::Devices) else { return Vec::new() };
    let text = |row: &Dictionary, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found: Vec<Finding> = rows
        .iter()
        .filter(|row| text(row, "state") != "serving")
        .map(|row| {
            let what = format!("{} is {}", text(row, "device"), text(row, "state"));
            let mend = format!("journalctl -u tcmu-runnerd says why; tcmuctl handler restart {}", text(row, "handler"));
            Finding::wrong("devices", what, mend)
        })
        .collect();
    if found.is_empty() {
        found.push(Finding::fine("devices", format!("{} serving of {}", rows.len(), rows.len())));
    }
    found
}

/// The files that `apply` reads.
fn disks_of_files(places: &Places<'_>) -> Vec<Finding> {
    let about = "disks.d";
    let dir = places.machine.etc.join("tcmu/disks.d");
    let Ok(files) = file::files(&dir) else { return Vec::new() };
    let problem = |path: &PathBuf| file::load(path).err().map(|error| format!("{error:#}"));
    let mut found: Vec<Finding> = files
        .iter()
        .filter_map(problem)
        .map(|what| Finding::wrong(about, what, "correct the line, then: tcmuctl apply"))
        .collect();
    if let Err(distrust) = files.iter().try_for_each(|path| trust::check(path)) {
        found.push(Finding::wrong(about, distrust.to_string(), format!("chown -R root {0} && chmod -R go-w {0}", dir.display())));
    }
    if found.is_empty() && !files.is_empty() {
        found.push(Finding::fine(about, format!("{} files", files.len())));
    }
    found
}
