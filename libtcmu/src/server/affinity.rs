//! The processors that a reactor's thread may be run on: all that are its own, or the one it is on.
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Of the thread that made it.
#[derive(Debug)]
pub(super) struct Affinity {
    /// What it had before it stayed, and has while it does.
    stays: Option<(CpuSet, CpuSet)>,
    /// It can stay, and move again.
    changes: bool,
}

impl Affinity {
    /// To be called on the thread whose affinity it is. `may`: it may be changed.
    pub(super) fn new(may: bool) -> Affinity {
        Affinity { stays: None, changes: may && sched_getaffinity(None).is_ok_and(|own| own.count() > 1) }
    }

    /// Whether it can be changed.
    pub(super) fn changes(&self) -> bool {
        self.changes
    }

    pub(super) fn stays(&self) -> bool {
        self.stays.is_some()
    }

    /// Keeps it on the processor it is on now, or lets it go again.
    #[inline]
    pub(super) fn set_stays(&mut self, stays: bool) {
        if stays != self.stays() && self.changes {
            self.change(stays);
        }
    }

    #[cold]
    fn change(&mut self, stays: bool) {
        if let Err(error) = if stays { self.stay() } else { self.let_go() } {
            tracing::warn!(%error, stays, "the processors of a reactor cannot be changed any more");
            self.changes = false;
        }
    }

    fn stay(&mut self) -> io::Result<()> {
        let own = sched_getaffinity(None)?;
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here)?;
        self.stays = Some((own, here));
        Ok(())
    }

    fn let_go(&mut self) -> io::Result<()> {
        if let Some((own, here)) = self.stays.take()
            // Somebody else has given it other ones since.
            && sched_getaffinity(None)? == here
        {
            sched_setaffinity(None, &own)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    fn mine() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    /// One of the processors in it.
    fn one_of(all: &CpuSet) -> CpuSet {
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|processor| all.is_set(*processor)).unwrap());
        one
    }

    #[test]
    fn it_stays_and_moves_again() {
        on_a_thread(|| {
            let own = mine();
            let mut affinity = Affinity::new(true);
            // On a machine with one processor there is nothing to change.
            assert_eq!(affinity.changes(), own.count() > 1);
            affinity.set_stays(true);
            assert_eq!(mine().count(), 1);
            affinity.set_stays(false);
            assert_eq!(mine(), own);
        });
    }

    #[test]
    fn off_is_off() {
        on_a_thread(|| {
            let own = mine();
            let mut affinity = Affinity::new(false);
            affinity.set_stays(true);
            assert!(mine() == own && !affinity.stays() && !affinity.changes());
        });
    }

    #[test]
    fn who_has_one_processor_stays_there_anyway() {
        on_a_thread(|| {
            sched_setaffinity(None, &one_of(&mine())).unwrap();
            assert!(!Affinity::new(true).changes());
        });
    }

    #[test]
    fn what_somebody_else_set_meanwhile_counts() {
        on_a_thread(|| {
            let all = mine();
            let mut affinity = Affinity::new(true);
            affinity.set_stays(true);
            let here = mine();
            let elsewhere = (0..CpuSet::MAX_CPU).find(|processor| all.is_set(*processor) && !here.is_set(*processor));
            let Some(elsewhere) = elsewhere else { return assert!(!affinity.changes()) };
            let mut theirs = CpuSet::new();
            theirs.set(elsewhere);
            sched_setaffinity(None, &theirs).unwrap();
            affinity.set_stays(false);
            assert_eq!(mine(), theirs);
        });
    }
}
