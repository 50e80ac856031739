//! A handler host is let do little, and no more than its plugin declares; the rest is refused without an end to the process.
use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tcmu_runnerd::protocol::{Channel, FromHost, Listener, Outcome, PROTOCOL, ToHost};

/// `tests/plugins/forbidden.c`, which declares that it needs this.
fn plugin(dir: &Path, needs: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let object = dir.join("handler_forbidden.so");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-D_GNU_SOURCE"])
        .arg(format!("-DNEEDS=\"{needs}\""))
        .arg("-I")
        .arg(top.join("handler-api/include"))
        .arg("-o")
        .args([&object, &top.join("tests/plugins/forbidden.c")])
        .status();
    assert!(compiled.unwrap().success());
    object
}

struct Host {
    child: Child,
    channel: Channel,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Host {
    fn start(needs: &str, more: &[&str]) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let socket = dir.path().join("socket");
        let listener = Listener::bind(&socket).unwrap();
        let channel = Channel::connect(&socket).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tcmu-runnerd"))
            .args(["handler-host", "forbidden"])
            .arg(plugin(dir.path(), needs))
            .args(
                "--log-level info --reactors 1 --workers 2 --io-engine auto --poll 0 --stay-put true --give-way true".split(' '),
            )
            .args(more)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        channel.send(&ToHost::Hello { protocol: PROTOCOL }, None).unwrap();
        let said = || channel.receive::<FromHost>().unwrap().expect("a host that speaks").0;
        assert!(matches!(said(), FromHost::Hello { protocol: PROTOCOL, .. }));
        let ready = said();
        assert!(matches!(&ready, FromHost::Ready(facts) if facts.handler.subtype == "forbidden"), "{ready:?}");
        assert!(matches!(said(), FromHost::ThatIsAll));
        Host { child, channel, log, _dir: dir }
    }

    /// What became of an attempt: 0, or the errno and the words.
    fn attempt(&self, what: &str) -> (i32, String) {
        self.channel.send(&ToHost::CheckConfig { id: 1, config: what.into() }, None).unwrap();
        loop {
            match self.channel.receive::<FromHost>().unwrap() {
                Some((FromHost::Answer { id: 1, outcome: Outcome::Done }, _)) => return (0, String::new()),
                Some((FromHost::Answer { id: 1, outcome: Outcome::Refused { errno, message } }, _)) => return (errno, message),
                Some((FromHost::Alive { .. }, _)) => {}
                other => panic!("{what}: {other:?}; {}", self.log()),
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The log, once this is in it: nobody waits for that who is refused a call.
    fn log_with(&self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < end, "{text:?} is not in the log: {log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A line of /proc/<pid>/status of each of its threads.
    fn status(&self, key: &str) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let value = |path: PathBuf| {
            // A thread that did what it was asked for is gone.
            let status = fs::read_to_string(path.join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim));
            Some(line.unwrap_or_else(|| panic!("no {key}")).to_owned())
        };
        let values: Vec<String> = tasks.filter_map(|task| value(task.ok()?.path())).collect();
        assert!(values.len() >= 4, "its threads: {values:?}");
        values
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.channel.send(&ToHost::End, None).unwrap();
        let _ = self.child.wait();
    }
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

const DAC_OVERRIDE: u64 = 1 << 1;
const SYS_ADMIN: u64 = 1 << 21;

#[test]
fn what_a_handler_does_not_declare_is_refused_and_told_and_it_goes_on() {
    let host = Host::start("", &[]);
    for allowed in ["thread", "unix", "raise"] {
        assert_eq!(host.attempt(allowed), (0, String::new()), "{allowed}");
    }
    let refused = "execve fork mount ptrace module inet netlink kill tgkill limits unshare bpf reboot setuid";
    for what in refused.split(' ') {
        assert_eq!(host.attempt(what), (libc::EPERM, format!("{what}: Operation not permitted")), "{}", host.log());
    }
    assert_eq!(host.attempt("unknown").0, libc::ENOSYS);
    if root() {
        assert_eq!(host.attempt("memory").0, libc::EACCES, "the supervisor has capabilities that a host has not");
    }
    assert_eq!(host.attempt("thread").0, 0, "still there");
    // The last of them.
    let log = host.log_with("system call 4000");
    for call in ["execve", "mount", "ptrace", "init_module", "socket", "kill", "reboot"] {
        let line = format!("the handler tried the system call `{call}`, which was refused (EPERM)");
        assert_eq!(log.matches(&line).count(), 1, "{call}: {log}");
    }
    assert!(log.contains("[forbidden] the handler tried the system call `execve`"), "{log}");
    assert!(log.contains("its plugin does not declare that it needs `processes`"), "{log}");
}

#[test]
fn whoever_tells_of_refused_calls_waits_for_no_lock_of_those_who_make_them() {
    let host = Host::start("", &[]);
    for _ in 0..3 {
        assert_eq!(host.attempt("storm"), (0, String::new()));
    }
    host.log_with("the handler tried system call 480, which was refused (ENOSYS)");
    // All from 511 on are told of as this one.
    assert!(host.log_with("system call 511,").lines().count() < 100, "it is told of once, and not of any number");
}

#[test]
fn every_thread_of_a_host_has_one_capability_and_the_filter() {
    let host = Host::start("", &[]);
    let allowed = if root() { DAC_OVERRIDE } else { 0 };
    for set in ["CapPrm", "CapEff"] {
        for value in host.status(set) {
            assert_eq!(u64::from_str_radix(&value, 16).unwrap(), allowed, "{set}");
        }
    }
    for set in ["CapInh", "CapAmb"] {
        assert!(host.status(set).iter().all(|value| value.trim_matches('0').is_empty()), "{set}");
    }
    // Threads that the plugin started as it was loaded are among them.
    assert!(host.status("Seccomp").len() >= 4);
    assert!(host.status("Seccomp").iter().all(|mode| mode == "2"), "{:?}", host.status("Seccomp"));
    assert!(host.status("NoNewPrivs").iter().all(|on| on == "1"));
}

#[test]
fn what_is_declared_is_allowed_and_no_more() {
    let host = Host::start("network processes mount unheard_of", &[]);
    for what in ["inet", "netlink", "fork"] {
        assert_eq!(host.attempt(what).0, 0, "{what}");
    }
    assert_eq!(host.attempt("execve").0, libc::ENOENT, "it was tried");
    if root() {
        assert_eq!(host.attempt("mount").0, libc::ENODEV, "it was tried");
        let main = u64::from_str_radix(&host.status("CapEff")[0], 16).unwrap();
        assert_ne!(main & SYS_ADMIN, 0);
    }
    for what in ["ptrace", "module", "unshare", "bpf"] {
        assert_eq!(host.attempt(what).0, libc::EPERM, "{what}");
    }
    host.log_with("the plugin needs \"unheard_of\", which this version does not know");
}

#[test]
fn a_host_that_is_not_confined_may_do_what_its_user_may() {
    let host = Host::start("", &["--unconfined"]);
    assert_eq!(host.attempt("inet").0, 0);
    assert_eq!(host.attempt("execve").0, libc::ENOENT);
    assert!(host.status("Seccomp").iter().all(|mode| mode == "0"));
}

#[test]
fn a_host_that_runs_as_a_user_has_no_rights_of_root() {
    if !root() {
        // Who isn't root runs hosts as a user in all the other tests.
        return;
    }
    let host = Host::start("mount", &["--user", "nobody"]);
    assert_eq!(host.attempt("shadow").0, libc::EACCES);
    assert_eq!(host.attempt("mount").0, libc::EPERM);
    for set in ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"] {
        assert!(host.status(set).iter().all(|value| value.trim_matches('0').is_empty()), "{set}: {:?}", host.status(set));
    }
}

#[test]
fn reactors_may_take_their_priority_back() {
    // Soft limit of "Max nice priority", proc(5).
    let limit = |pid: &str| -> u32 {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max nice priority")).unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap()
    };
    let host = Host::start("", &[]);
    // As far as whoever starts it may give that right: a container's root may not.
    let may = Command::new("prlimit").args(["--nice=20", "true"]).stderr(Stdio::null()).status().unwrap().success();
    let expected = if may { limit("self").max(20) } else { limit("self") };
    assert_eq!(limit(&host.child.id().to_string()), expected);
}
