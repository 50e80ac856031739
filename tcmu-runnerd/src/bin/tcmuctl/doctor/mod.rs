//! `tcmuctl doctor`: what keeps disks from being served on this machine, and the commands that mend it.
mod bus;
mod daemon;
mod kernel;

use std::path::PathBuf;

use serde_json::json;

use super::disk::Machine;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Fine,
    /// It works, and could be better or safer.
    Hint,
    /// Something does not work.
    Wrong,
}

/// What was found.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    level: Level,
    /// What was looked at.
    about: &'static str,
    /// What is the matter.
    what: String,
    /// The command that mends it.
    mend: Option<String>,
}

impl Finding {
    fn fine(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { level: Level::Fine, about, what: what.into(), mend: None }
    }

    fn hint(about: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Hint, about, what: what.into(), mend: Some(mend.into()) }
    }

    fn wrong(about: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Wrong, about, what: what.into(), mend: Some(mend.into()) }
    }
}

/// Where things are that only this looks at: others in tests.
pub(super) struct Places<'a> {
    machine: &'a Machine,
    usr: PathBuf,
    /// The daemon's run directory.
    daemon_run: PathBuf,
}

/// Looks at everything; whether nothing is wrong.
pub(crate) fn run(json: bool) -> anyhow::Result<bool> {
    let machine = Machine::this();
    let places = Places { machine: &machine, usr: "/usr".into(), daemon_run: tcmu_runnerd::run_dir::DEFAULT_PATH.into() };
    let mut findings = Vec::new();
    if !rustix::process::geteuid().is_root() {
        findings.push(Finding::wrong("user", "only root sees everything that is looked at here", "sudo tcmuctl doctor"));
    }
    findings.extend(kernel::look(&places));
    findings.extend(bus::look(&places));
    findings.extend(daemon::look(&places));
    let wrong = findings.iter().filter(|finding| finding.level == Level::Wrong).count();
    if json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "about": finding.about,
                    "level": match finding.level { Level::Fine => "fine", Level::Hint => "hint", Level::Wrong => "wrong" },
                    "what": finding.what,
                    "mend": finding.mend,
                })
            })
            .collect();
        outln!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        out!("{}", text(&findings));
        let hints = findings.iter().filter(|finding| finding.level == Level::Hint).count();
        outln!("\n{wrong} wrong, {hints} could be better");
    }
    Ok(wrong == 0)
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.level {
            Level::Fine => "ok",
            Level::Hint => "HINT",
            Level::Wrong => "WRONG",
        };
        text.push_str(&format!("{word:<5}  {}: {}\n", finding.about, finding.what));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("       → {mend}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::fixture;

    fn of(findings: &[Finding], about: &str) -> (Level, String, String) {
        let finding = findings.iter().find(|finding| finding.about == about).unwrap_or_else(|| panic!("{about}: {findings:#?}"));
        (finding.level, finding.what.clone(), finding.mend.clone().unwrap_or_default())
    }

    fn put(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_bare_machine_is_told_what_it_lacks() {
        let (dir, _fake, mut machine) = fixture::machine();
        machine.roots.target = dir.path().join("nothing");
        let places = Places { machine: &machine, usr: dir.path().join("usr"), daemon_run: dir.path().join("run/d") };
        let found = kernel::look(&places);
        assert_eq!(of(&found, "module").2, "modprobe target_core_user");
        assert_eq!(of(&found, "configfs").2, "mount -t configfs none /sys/kernel/config");
        assert_eq!(of(&bus::policy(&places), "D-Bus policy").0, Level::Wrong);
        assert_eq!(of(&daemon::run_dir(&places), "daemon").2, "systemctl start tcmu-runnerd");
    }

    #[test]
    fn a_machine_that_is_set_up_is_fine() {
        let (dir, fake, machine) = fixture::machine();
        let places = Places { machine: &machine, usr: dir.path().join("usr"), daemon_run: dir.path().join("run/d") };
        put(dir.path().join("sys/module/target_core_user/refcnt"), "0\n");
        put(dir.path().join("sys/class/uio/x"), "");
        put(fake.roots().target.join("dbroot"), &format!("{}\n", dir.path().join("etc/target").display()));
        let found = kernel::look(&places);
        let (level, what, mend) = of(&found, "reservations");
        assert_eq!(level, Level::Wrong, "{what}");
        assert!(mend.starts_with("mkdir -p ") && mend.contains("etc/target/pr"), "{mend}");
        for name in ["pr", "alua"] {
            fs::create_dir_all(dir.path().join("etc/target").join(name)).unwrap();
        }
        put(dir.path().join("etc/dbus-1/system.d/tcmu-runnerd.conf"), "<allow own=\"org.kernel.TCMUService1\"/>");
        let all: Vec<Finding> = kernel::look(&places).into_iter().chain(bus::policy(&places)).collect();
        assert!(all.iter().all(|finding| finding.level == Level::Fine), "{all:#?}");
    }

    #[test]
    fn what_slows_or_opens_a_machine_is_a_hint() {
        let (dir, _fake, machine) = fixture::machine();
        let places = Places { machine: &machine, usr: dir.path().join("usr"), daemon_run: dir.path().join("run/d") };
        put(dir.path().join("proc/sys/kernel/io_uring_disabled"), "2\n");
        assert_eq!(of(&kernel::look(&places), "io_uring").0, Level::Hint);
        let policy =
            "<busconfig><policy context=\"default\"><allow send_destination=\"org.kernel.TCMUService1\"/></policy></busconfig>";
        put(dir.path().join("etc/dbus-1/system.d/tcmu-runner.conf"), policy);
        let (level, what, _) = of(&bus::policy(&places), "D-Bus policy");
        assert_eq!(level, Level::Wrong, "{what}");
        assert!(what.contains("tcmu-runner.conf"), "{what}");
    }

    #[test]
    fn another_daemon_beside_ours_is_seen() {
        let (dir, _fake, machine) = fixture::machine();
        let places = Places { machine: &machine, usr: dir.path().join("usr"), daemon_run: dir.path().join("run/d") };
        assert!(daemon::other(&places).is_empty());
        put(dir.path().join("usr/bin/tcmu-runner"), "");
        assert_eq!(daemon::other(&places)[0].level, Level::Hint);
        put(dir.path().join("proc/77/comm"), "tcmu-runner\n");
        let found = daemon::other(&places);
        assert_eq!((found[0].level, found[0].mend.as_deref()), (Level::Wrong, Some("systemctl disable --now tcmu-runner")));
    }
}
