//! Nanoseconds for a command, from the ring to its completion, against the simulated kernel; only our side is timed. In batches, since
//! that is how commands come when it matters.
//!
//! `commands [--batch N] [--seconds S] [--json] [--plugins DIR] [CASE...]`, or `commands --count N CASE` to execute exactly so many
//! batches: for instruction counts.
mod peer;

use std::{
    hint::black_box,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tcmu::{
    mapping::Mapping,
    ring::{Completion, Doorbell, Fetched, Next, Ring},
    server::{Attach, Server, Solo},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::{Events, Level, OpenSpec, Plugin},
    plugin::DeviceInfo,
};

struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

const SIZE: u64 = 64 << 20;

/// What a case needs for a batch: commands that are put on the ring.
fn read_4k(n: u64) -> ([u8; 10], Data) {
    ([0x28, 0, 0, 0, (n >> 5) as u8, (n << 3) as u8, 0, 0, 8, 0], Data::In(4096))
}

fn write_4k(n: u64) -> ([u8; 10], Data) {
    let (mut cdb, _) = read_4k(n);
    cdb[0] = 0x2a;
    (cdb, Data::Out(vec![0x5a; 4096]))
}

fn test_unit_ready(_: u64) -> ([u8; 10], Data) {
    ([0; 10], Data::None)
}

type Make = fn(u64) -> ([u8; 10], Data);

/// One side under test.
trait Side {
    /// Takes what is on the ring and completes it.
    fn turn(&mut self);

    /// How long the last turn took, if that is not all of it.
    fn took(&self) -> Option<Duration> {
        None
    }
}

struct Bare(Ring, Vec<Fetched>);

impl Side for Bare {
    fn turn(&mut self) {
        let mut taken = 0;
        for fetched in &mut self.1 {
            let Ok(Next::Command) = self.0.next(fetched) else { break };
            black_box(fetched);
            taken += 1;
        }
        for fetched in &self.1[..taken] {
            let _ = self.0.complete(fetched.id, &Completion { status: 0, sense: &[], read_len: None });
        }
        self.0.publish();
    }
}

/// The bare `preadv` of the bytes that commands want to where they want them, which `file` is held against: nothing else of a turn counts.
struct Preadv {
    ring: Ring,
    fetched: Vec<Fetched>,
    file: std::fs::File,
    took: Duration,
}

impl Side for Preadv {
    fn turn(&mut self) {
        let mut taken = 0;
        for fetched in &mut self.fetched {
            let Ok(Next::Command) = self.ring.next(fetched) else { break };
            taken += 1;
        }
        let start = Instant::now();
        for fetched in &self.fetched[..taken] {
            let (segments, lba) = (fetched.data(), u32::from_be_bytes(*fetched.cdb()[2..].first_chunk().expect("READ(10)")));
            // SAFETY: the segments are those of a command that nobody has completed.
            let read =
                unsafe { libc::preadv(self.file.as_raw_fd(), segments.as_ptr(), segments.len() as i32, i64::from(lba) * 512) };
            assert_eq!(read, 4096, "within the file");
        }
        self.took = start.elapsed();
        for fetched in &self.fetched[..taken] {
            let _ = self.ring.complete(fetched.id, &Completion { status: 0, sense: &[], read_len: None });
        }
        self.ring.publish();
    }

    fn took(&self) -> Option<Duration> {
        Some(self.took)
    }
}

struct Served(Solo);

impl Side for Served {
    fn turn(&mut self) {
        self.0.turn().expect("the simulated kernel does not lie");
    }
}

fn served(plugins: &Path, plugin: &str, config: &str, batch: usize) -> (SimKernel, Box<dyn Side>) {
    let (kernel, map, fd) = sim(batch);
    let plugin = Plugin::load(&plugins.join(plugin), Server::services()).unwrap_or_else(|error| panic!("{plugin}: {error}"));
    let spec = OpenSpec { name: "user_0/t", config, take_over: false, info: DeviceInfo::new(SIZE, 512) };
    let device = plugin.open(spec, Arc::new(Quiet)).unwrap_or_else(|error| panic!("{config}: {error}"));
    let attach = Attach::new("user_0/t", fd, map.len(), device);
    (kernel, Box::new(Served(Solo::mapped(map, attach, 2).expect("attached"))))
}

fn sim(batch: usize) -> (SimKernel, Arc<Mapping>, std::os::fd::OwnedFd) {
    let config = SimConfig { pages: batch.max(64) * 2, ..SimConfig::default() };
    SimKernel::new(config).expect("memory")
}

fn ring(_: &Path, batch: usize) -> (SimKernel, Box<dyn Side>) {
    let (kernel, map, _) = sim(batch);
    let fetched = (0..=batch).map(|_| Fetched::default()).collect();
    (kernel, Box::new(Bare(Ring::attach(map).expect("a sound mailbox"), fetched)))
}

fn null(plugins: &Path, batch: usize) -> (SimKernel, Box<dyn Side>) {
    // Without clearing the buffers, which would be all that is measured.
    served(plugins, "libhandler_null.so", "x;fill=off", batch)
}

fn alloc(plugins: &Path, batch: usize) -> (SimKernel, Box<dyn Side>) {
    served(plugins, "libhandler_alloc.so", "a", batch)
}

/// A new file in memory, of the disks' size.
fn image() -> PathBuf {
    let directory = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let path = directory.join(format!("commands-{}.img", std::process::id()));
    std::fs::write(&path, vec![0x5a; SIZE as usize]).expect("room in memory");
    path
}

fn file(plugins: &Path, batch: usize) -> (SimKernel, Box<dyn Side>) {
    let path = image();
    let sides = served(plugins, "libhandler_file.so", &path.display().to_string(), batch);
    let _ = std::fs::remove_file(path);
    sides
}

fn preadv(_: &Path, batch: usize) -> (SimKernel, Box<dyn Side>) {
    let path = image();
    let file = std::fs::File::open(&path).expect("just made");
    let _ = std::fs::remove_file(path);
    let (kernel, map, _) = sim(batch);
    let fetched = (0..=batch).map(|_| Fetched::default()).collect();
    let ring = Ring::attach(map).expect("a sound mailbox");
    (kernel, Box::new(Preadv { ring, fetched, file, took: Duration::ZERO }))
}

type Sides = fn(&Path, usize) -> (SimKernel, Box<dyn Side>);

/// The peer, which is left out where it isn't installed.
const LIBTCMU: &str = "libtcmu ring";

const CASES: &[(&str, Sides, Make)] = &[
    ("ring", ring, read_4k),
    (LIBTCMU, peer::libtcmu, read_4k),
    ("null read", null, read_4k),
    ("null write", null, write_4k),
    ("test unit ready", null, test_unit_ready),
    ("alloc read", alloc, read_4k),
    ("alloc write", alloc, write_4k),
    ("file read", file, read_4k),
    ("file write", file, write_4k),
    ("preadv alone", preadv, read_4k),
];

/// Runs batches until `enough`; nanoseconds per command of each.
fn run(kernel: &mut SimKernel, side: &mut dyn Side, make: Make, batch: usize, mut enough: impl FnMut(usize) -> bool) -> Vec<f64> {
    let (mut times, mut n) = (Vec::new(), 0);
    while !enough(times.len()) {
        for _ in 0..batch {
            let (cdb, data) = make(n);
            n += 1;
            let length = if cdb[0] == 0 { 6 } else { 10 };
            kernel.queue_quietly(&cdb[..length], data).expect("room");
        }
        kernel.ring_bell();
        let start = Instant::now();
        timed(side);
        let whole = start.elapsed();
        let time = side.took().unwrap_or(whole);
        times.push(time.as_nanos() as f64 / batch as f64);
        let mut done = kernel.reap().expect("a sound ring");
        while done.len() < batch {
            std::thread::yield_now();
            side.turn();
            done.extend(kernel.reap().expect("a sound ring"));
        }
        assert!(done.iter().all(|done| done.status == 0), "{done:?}");
    }
    times
}

/// What an instruction count is of.
#[inline(never)]
fn timed(side: &mut dyn Side) {
    side.turn();
}

/// The two system calls that a batch may cost besides the wait, on the descriptor that stands in for a UIO device's: telling of
/// completions, which a batch always does, and reading the count of events, which is left out while batches come one after the other.
/// For each command of a batch; they are in the figures of all served cases.
fn system_calls(batch: usize, seconds: f64) -> [(String, f64); 2] {
    let (mut kernel, _map, fd) = sim(batch);
    let bell = Doorbell::new(fd);
    let (mut kicks, mut reads, end) = (Vec::new(), Vec::new(), Instant::now() + Duration::from_secs_f64(seconds));
    while Instant::now() < end {
        kernel.ring_bell();
        let start = Instant::now();
        bell.clear().expect("nobody removes it");
        let between = Instant::now();
        bell.kick().expect("nobody removes it");
        kicks.push(between.elapsed().as_nanos() as f64 / batch as f64);
        reads.push(between.duration_since(start).as_nanos() as f64 / batch as f64);
        kernel.reap().expect("a sound ring");
    }
    [("kick alone".into(), median(&mut kicks)), ("event count alone".into(), median(&mut reads))]
}

/// Two devices at once, each served by a thread of its own: nanoseconds for a command of either. As many as for one where nothing is shared.
fn two_devices(plugins: &Path, batch: usize, seconds: f64) -> f64 {
    let one = || {
        let (mut kernel, mut side) = null(plugins, batch);
        run(&mut kernel, &mut *side, read_4k, batch, |done| done == 100);
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        median(&mut run(&mut kernel, &mut *side, read_4k, batch, |_| Instant::now() >= end))
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(one), scope.spawn(one)];
        both.map(|thread| thread.join().expect("it ran alone before")).iter().sum::<f64>() / 2.0
    })
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let (mut batch, mut seconds, mut count, mut json, mut names) = (32, 1.0, None, false, Vec::new());
    let mut plugins = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--batch" => batch = value().parse().expect("a number"),
            "--seconds" => seconds = value().parse().expect("a number"),
            "--count" => count = Some(value().parse::<usize>().expect("a number")),
            "--plugins" => plugins = value().into(),
            "--json" => json = true,
            "--bench" => {} // cargo's
            _ => names.push(argument),
        }
    }
    let mut lines = Vec::new();
    for (name, sides, make) in CASES.iter().filter(|(name, ..)| names.is_empty() || names.iter().any(|wanted| wanted == name)) {
        if *name == LIBTCMU && !peer::is_there() {
            continue;
        }
        let (mut kernel, mut side) = sides(&plugins, batch);
        if let Some(count) = count {
            run(&mut kernel, &mut *side, *make, batch, |done| done == count);
            continue;
        }
        run(&mut kernel, &mut *side, *make, batch, |done| done == 100); // chunks, slots and caches are there after this
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        lines.push(((*name).to_owned(), median(&mut run(&mut kernel, &mut *side, *make, batch, |_| Instant::now() >= end))));
    }
    if count.is_none() && names.is_empty() {
        lines.push(("null read, two devices".into(), two_devices(&plugins, batch, seconds)));
        lines.extend(system_calls(batch, seconds));
    }
    if json {
        let fields: Vec<String> = lines.iter().map(|(name, ns)| format!("\"{name}\": {ns:.2}")).collect();
        println!("{{\"batch\": {batch}, \"nanoseconds\": {{{}}}}}", fields.join(", "));
        return;
    }
    for (name, ns) in lines {
        println!("{name:<18} {ns:>8.1} ns  {:>6.2} million/s", 1000.0 / ns);
    }
}
