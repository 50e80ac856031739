//! How long commands have been in flight, as somebody sees it who asks at regular intervals.
mod common;

use std::{
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use common::{BLOCKS, Quiet, info, rw10};
use tcmu::{
    server::{Attach, Attached, Server, ServerOptions},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{Batch, Device, Request, Threads},
};

/// Keeps the requests of the first block, and does the others at once; with `stays` it does not return either.
struct Keeper {
    stays: bool,
    kept: Arc<Mutex<Vec<Request>>>,
    go: Arc<(Mutex<bool>, Condvar)>,
}

impl Device for Keeper {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            if request.offset() > 0 {
                request.complete(Ok(()));
                continue;
            }
            self.kept.lock().unwrap().push(request);
            let mut go = self.go.0.lock().unwrap();
            while self.stays && !*go {
                go = self.go.1.wait(go).unwrap();
            }
        }
    }
}

struct Rig {
    kernel: SimKernel,
    server: Server,
    attached: Box<Attached>,
    kept: Arc<Mutex<Vec<Request>>>,
    go: Arc<(Mutex<bool>, Condvar)>,
}

fn rig(stays: bool) -> Rig {
    let (kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let (kept, go) = (Arc::default(), Arc::<(Mutex<bool>, Condvar)>::default());
    let keeper = Keeper { stays, kept: Arc::clone(&kept), go: go.clone() };
    let device = OpenDevice::embed(keeper, info(), Arc::new(Quiet), Server::services()).unwrap();
    let server = Server::start(ServerOptions { reactors: 1, workers: 1, ..ServerOptions::default() }).unwrap();
    let attached = server.attach_mapped(map.clone(), Attach::new("user_0/t", fd, map.len(), device), |_| ()).unwrap();
    Rig { kernel, server, attached, kept, go }
}

/// Asks until the age is `wanted`, at most `calls` times.
fn grows_to(rig: &Rig, wanted: u64, calls: usize) -> bool {
    for _ in 0..calls {
        rig.server.grow_older();
        thread::sleep(Duration::from_millis(5));
        if rig.attached.counters().oldest == wanted {
            return true;
        }
    }
    false
}

#[test]
fn one_command_that_stays_shows_while_others_come_and_go() {
    let mut rig = rig(false);
    assert!(grows_to(&rig, 0, 1), "there is none");
    rig.kernel.queue(&rw10(0x28, 0, 0, 1), Data::In(512)).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let mut seen = 0;
    while seen < 5 {
        assert!(Instant::now() < end, "it grows no older than {seen}");
        let done = rig.kernel.run(&rw10(0x28, 0, BLOCKS as u32 - 1, 1), Data::In(512)).unwrap();
        assert_eq!(done.status, 0);
        rig.server.grow_older();
        let oldest = rig.attached.counters().oldest;
        assert!(oldest >= seen, "it does not grow younger");
        seen = oldest;
    }
    rig.kept.lock().unwrap().drain(..).for_each(|request| request.complete(Ok(())));
    assert!(grows_to(&rig, 0, 1000), "it is gone, and so is its age");
}

#[test]
fn a_handler_that_keeps_the_serving_thread_shows_too() {
    let mut rig = rig(true);
    rig.kernel.queue(&rw10(0x28, 0, 0, 1), Data::In(512)).unwrap();
    assert!(grows_to(&rig, 7, 1000), "nobody else needs to come round");
    *rig.go.0.lock().unwrap() = true;
    rig.go.1.notify_all();
    rig.kept.lock().unwrap().drain(..).for_each(|request| request.complete(Ok(())));
    assert!(grows_to(&rig, 0, 1000));
}
