//! What changed and is to be told by a signal. Whoever adds to it never waits: for each thing only the latest is kept until it is told.
use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
};

use super::{Row, lock};

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Thing {
    Handler,
    Device,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is there, and is this.
    Added(Row),
    /// It is this by now.
    Changed(Row),
    /// It is gone.
    Removed,
}

/// Where changes wait to be told.
#[derive(Default)]
pub(super) struct Announcer {
    due: Mutex<Due>,
    more: Condvar,
}

/// What is to be told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Due {
    things: BTreeMap<(Thing, String), Latest>,
    pub(super) log_level: bool,
}

/// What is to be told of one thing: that the one of before is gone, then what there is now.
#[derive(Debug, Default, PartialEq)]
struct Latest {
    gone: bool,
    now: Option<Change>,
}

impl Latest {
    fn add(&mut self, change: Change) {
        match (change, self.now.take()) {
            // Nobody heard of it.
            (Change::Removed, Some(Change::Added(_))) => {}
            (Change::Removed, _) => self.gone = true,
            (Change::Changed(row), Some(Change::Added(_))) => self.now = Some(Change::Added(row)),
            (change, _) => self.now = Some(change),
        }
    }
}

impl Due {
    fn add(&mut self, changes: Vec<(Thing, String, Change)>) {
        for (thing, name, change) in changes {
            self.things.entry((thing, name)).or_default().add(change);
        }
        self.things.retain(|_, latest| latest.gone || latest.now.is_some());
    }

    /// All of it in the order in which it is told.
    pub(super) fn changes(self) -> impl Iterator<Item = (Thing, String, Change)> {
        self.things.into_iter().flat_map(|((thing, name), latest)| {
            let gone = latest.gone.then_some(Change::Removed);
            gone.into_iter().chain(latest.now).map(move |change| (thing, name.clone(), change))
        })
    }
}

impl Announcer {
    pub(super) fn add(&self, changes: Vec<(Thing, String, Change)>) {
        if !changes.is_empty() {
            lock(&self.due).add(changes);
            self.more.notify_one();
        }
    }

    pub(super) fn log_level(&self) {
        lock(&self.due).log_level = true;
        self.more.notify_one();
    }

    /// Waits until there is something.
    pub(super) fn wait(&self) -> Due {
        let empty = |due: &mut Due| *due == Due::default();
        let mut due = self.more.wait_while(lock(&self.due), empty).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *due)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Field, *};

    fn row(n: u64) -> Row {
        vec![("size".into(), Field::Number(n))]
    }

    /// What is told of one device after some changes.
    fn told(changes: &[Change]) -> Vec<Change> {
        let mut due = Due::default();
        due.add(changes.iter().map(|change| (Thing::Device, "user_0/a".to_owned(), change.clone())).collect());
        due.changes().map(|(_, _, change)| change).collect()
    }

    #[test]
    fn of_many_changes_the_last_is_told() {
        use Change::{Added, Changed, Removed};
        assert_eq!(told(&[Changed(row(1)), Changed(row(2))]), [Changed(row(2))]);
        assert_eq!(told(&[Added(row(1)), Changed(row(2))]), [Added(row(2))]);
        assert_eq!(told(&[Added(row(1)), Changed(row(2)), Removed]), [], "nobody heard of it");
        assert_eq!(told(&[Changed(row(1)), Removed]), [Removed]);
        assert_eq!(told(&[Removed, Added(row(1)), Changed(row(2))]), [Removed, Added(row(2))], "another one of that name");
        assert_eq!(told(&[Removed, Added(row(1)), Removed]), [Removed]);
    }

    #[test]
    fn who_waits_gets_all_that_came_and_then_nothing_old() {
        let announcer = Announcer::default();
        announcer.add(vec![(Thing::Handler, "file".into(), Change::Removed)]);
        announcer.log_level();
        let due = announcer.wait();
        assert!(due.log_level);
        assert_eq!(due.changes().count(), 1);
        announcer.add(vec![(Thing::Device, "user_0/a".into(), Change::Removed)]);
        assert_eq!(announcer.wait().changes().count(), 1);
    }
}
