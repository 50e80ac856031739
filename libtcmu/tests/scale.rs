//! Two thousand devices in one server, of the simulated kernel.
mod common;

use std::{sync::Arc, time::Duration};

use common::{Quiet, memory, run, rw10};
use tcmu::{
    server::{Attach, Server, ServerOptions},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::host::OpenDevice;

const DEVICES: usize = 2000;

/// A number of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// Processor time of this process.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn many_idle_devices_cost_few_threads_little_memory_and_no_time() {
    // Two descriptors for each.
    let wanted = 2 * DEVICES as u64 + 100;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|now| now < wanted) {
        let raised = rustix::process::Rlimit { current: Some(wanted), maximum: limit.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("descriptors for 2000 devices");
    }
    let server = Server::start(ServerOptions::default()).unwrap();
    let (threads, resident) = (status("Threads"), status("VmRSS"));
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let (kernel, map, fd) = SimKernel::new(SimConfig { ring: 4096, pages: 2, ..SimConfig::default() }).unwrap();
        let mut info = common::info();
        info.0.size = 512 * 64;
        let mut disk = memory().0;
        disk.0 = vec![n as u8; 512 * 64].into();
        let attach = Attach::new(
            format!("user_0/d{n}"),
            fd,
            map.len(),
            OpenDevice::embed(disk, info, Arc::new(Quiet), Server::services()).unwrap(),
        );
        devices.push((kernel, server.attach_mapped(map, attach, |error| panic!("{error}")).unwrap()));
    }
    // What 2000 disks of 32 KiB hold is theirs; the rest is what serving them takes, the simulated kernels included.
    let taken = status("VmRSS") - resident - (DEVICES as u64 * 32);
    assert_eq!(status("Threads"), threads, "no thread belongs to a device");
    assert!(threads < 64, "{threads} threads");
    assert!(taken < 200 * 1024, "{taken} KiB");
    // Every one is served.
    for (n, (kernel, _)) in devices.iter_mut().enumerate() {
        let done = run(kernel, &rw10(0x28, 0, 3, 1), Data::In(512));
        assert_eq!((done.status, done.data), (0, vec![n as u8; 512]), "device {n}");
    }
    // And then nothing is done for any.
    std::thread::sleep(Duration::from_millis(100));
    let before = processor_time();
    std::thread::sleep(Duration::from_secs(2));
    let spent = processor_time() - before;
    assert!(spent < Duration::from_millis(20), "idle devices took {spent:?} of 2 s");
    for (_, attached) in devices {
        attached.stop(Duration::from_secs(5)).unwrap();
    }
}
