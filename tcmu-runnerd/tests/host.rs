//! A handler host, as supervisors that come and go see it. No kernel is needed: its devices cannot be served here, but asked for.
use std::{
    fs::{self, File},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tcmu_runnerd::protocol::{Channel, DeviceSpec, Doing, FromHost, Listener, Outcome, PROTOCOL, ToHost};

const WITHIN: Duration = Duration::from_secs(30);

/// The C example, which takes a second to open a device.
fn slow_plugin(dir: &Path) -> PathBuf {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api");
    let source = fs::read_to_string(api.join("examples/ram.c")).unwrap();
    let wanted = "    struct ram *ram = malloc(sizeof *ram);";
    assert!(source.contains(wanted), "ram.c has no {wanted:?}");
    let (file, object) = (dir.join("slow.c"), dir.join("handler_ramc.so"));
    fs::write(&file, source.replacen(wanted, &format!("{wanted}\n    sleep(1);"), 1)).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-include", "unistd.h", "-I"])
        .arg(api.join("include"))
        .arg("-o")
        .args([&object, &file])
        .status()
        .unwrap();
    assert!(compiled.success());
    object
}

struct Rig {
    dir: tempfile::TempDir,
    plugin: PathBuf,
    host: Child,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
    }
}

impl Rig {
    fn start() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let plugin = slow_plugin(dir.path());
        let listener = Listener::bind(&dir.path().join("host")).unwrap();
        let host = Command::new(env!("CARGO_BIN_EXE_tcmu-runnerd"))
            .args(["handler-host", "ramc"])
            .arg(&plugin)
            .args(
                "--log-level info --reactors 1 --workers 1 --io-engine threads --poll 0 --stay-put true --give-way true"
                    .split(' '),
            )
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Rig { dir, plugin, host }
    }

    fn connect(&self, protocol: u32) -> Channel {
        let channel = Channel::connect(&self.dir.path().join("host")).unwrap();
        channel.wait_at_most(Some(WITHIN)).unwrap();
        channel.send(&ToHost::Hello { protocol }, None).unwrap();
        channel
    }

    /// A supervisor, and what the host says it has.
    fn supervisor(&self) -> (Channel, Vec<(String, Doing)>) {
        let channel = self.connect(PROTOCOL);
        assert!(matches!(next(&channel), FromHost::Hello { protocol: PROTOCOL, .. }));
        let FromHost::Ready(facts) = next(&channel) else { panic!("not ready") };
        assert_eq!((facts.handler.subtype.as_str(), &facts.plugin), ("ramc", &self.plugin));
        let mut devices = Vec::new();
        loop {
            match channel.receive::<FromHost>().unwrap().unwrap() {
                (FromHost::Has { device, doing }, fd) => {
                    assert!(fd.is_some(), "without its descriptor");
                    devices.push((device.name, doing));
                }
                (FromHost::ThatIsAll, None) => return (channel, devices),
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    fn ends(&mut self) -> bool {
        let end = Instant::now() + WITHIN;
        while Instant::now() < end {
            if self.host.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

/// What the host says next, but that it is alive.
fn next(channel: &Channel) -> FromHost {
    loop {
        match channel.receive::<FromHost>().unwrap().expect("the host hung up").0 {
            FromHost::Alive { .. } => {}
            other => return other,
        }
    }
}

fn spec(name: &str) -> DeviceSpec {
    DeviceSpec {
        name: name.into(),
        minor: 3,
        config: "x".into(),
        size: 1 << 20,
        block_size: 512,
        hw_max_sectors: 128,
        map_size: 4096,
        take_over: false,
        write_cache: None,
        copies_with: Vec::new(),
        slow_command_ms: 0,
    }
}

#[test]
fn a_host_outlives_its_supervisor_and_answers_the_next_one() {
    let mut rig = Rig::start();
    let (first, devices) = rig.supervisor();
    assert_eq!(devices, []);
    // We made the socket, and the host makes it its own when it has loaded the plugin.
    let peer = first.peer().unwrap().0;
    assert!([std::process::id(), rig.host.id()].contains(&peer.as_raw_nonzero().get().unsigned_abs()), "{peer:?}");
    first.send(&ToHost::CheckConfig { id: 1, config: "x".into() }, None).unwrap();
    assert_eq!(next(&first), FromHost::Answer { id: 1, outcome: Outcome::Done });
    let file = File::open("/dev/zero").unwrap();
    first.send(&ToHost::Open { id: 2, device: spec("user_0/a") }, Some(file.as_fd())).unwrap();
    first.send(&ToHost::CheckConfig { id: 3, config: "x".into() }, None).unwrap();
    assert_eq!(next(&first), FromHost::Answer { id: 3, outcome: Outcome::Done });
    drop(first);
    let (second, devices) = rig.supervisor();
    assert_eq!(second.peer().unwrap().0.as_raw_nonzero().get(), rig.host.id() as i32, "now the host is known by its socket");
    assert_eq!(devices, [("user_0/a".to_owned(), Doing::Opening { id: 2 })]);
    // Meanwhile it can be neither opened nor closed.
    second.send(&ToHost::Open { id: 4, device: spec("user_0/a") }, Some(file.as_fd())).unwrap();
    assert!(matches!(next(&second), FromHost::Answer { id: 4, outcome: Outcome::Refused { errno: libc::EEXIST, .. } }));
    second.send(&ToHost::Close { id: 5, device: "user_0/a".into(), within_ms: 1 }, None).unwrap();
    assert!(matches!(next(&second), FromHost::Answer { id: 5, outcome: Outcome::Refused { errno: libc::EBUSY, .. } }));
    // /dev/zero is no UIO device, which the handler's host finds out in the end; and nothing stays behind.
    assert!(matches!(next(&second), FromHost::Answer { id: 2, outcome: Outcome::Refused { .. } }));
    let (third, devices) = rig.supervisor();
    assert_eq!(devices, []);
    third.send(&ToHost::End, None).unwrap();
    assert!(rig.ends());
}

#[test]
fn the_last_supervisor_counts_and_strangers_do_not() {
    let mut rig = Rig::start();
    let (first, _) = rig.supervisor();
    // One with another protocol hears which is ours, and nothing else; one that says nothing or nonsense is left.
    let foreign = rig.connect(PROTOCOL + 1);
    assert!(matches!(next(&foreign), FromHost::Hello { protocol: PROTOCOL, .. }));
    let silent = Channel::connect(&rig.dir.path().join("host")).unwrap();
    let nonsense = Channel::connect(&rig.dir.path().join("host")).unwrap();
    nonsense.send(&"nonsense", None).unwrap();
    nonsense.wait_at_most(Some(WITHIN)).unwrap();
    assert!(nonsense.receive::<FromHost>().unwrap().is_none());
    first.send(&ToHost::CheckConfig { id: 1, config: "x".into() }, None).unwrap();
    assert_eq!(next(&first), FromHost::Answer { id: 1, outcome: Outcome::Done });
    let (second, _) = rig.supervisor();
    second.send(&ToHost::Settings { log_level: "info".into(), alive_ms: 100 }, None).unwrap();
    assert!(first.receive::<FromHost>().is_ok_and(|said| said.is_none()), "the first one is not listened to any more");
    let mut alive = 0;
    while alive < 3 {
        let (said, _) = second.receive::<FromHost>().unwrap().unwrap();
        alive += usize::from(matches!(said, FromHost::Alive { ref late } if late.is_empty()));
    }
    // Nonsense of the supervisor is the end of the connection, and not of the host.
    second.send(&"nonsense", None).unwrap();
    let (third, _) = rig.supervisor();
    drop(silent);
    third.send(&ToHost::End, None).unwrap();
    assert!(rig.ends());
}
