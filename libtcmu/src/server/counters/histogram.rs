//! How long commands took, in powers of two of a microsecond.
use std::time::Duration;

/// The first bucket is below a microsecond, each one after it reaches twice as far as the one before; the last one has all that is longer
/// than 67 seconds.
pub const BUCKETS: usize = 28;

/// How many commands took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Commands by how long they took; see [`Histogram::limit`].
    pub buckets: [u64; BUCKETS],
    /// Sum of all times.
    pub nanoseconds: u64,
}

/// The bucket of a time.
#[inline]
pub(super) fn bucket(nanoseconds: u64) -> usize {
    let microseconds = nanoseconds / 1000;
    ((u64::BITS - microseconds.leading_zeros()) as usize).min(BUCKETS - 1)
}

impl Histogram {
    /// What all times of a bucket are below; the last one has no limit.
    pub fn limit(bucket: usize) -> Option<Duration> {
        (bucket < BUCKETS - 1).then(|| Duration::from_micros(1 << bucket))
    }

    /// Commands.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket))
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Histogram) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum = sum.wrapping_add(more);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }

    /// What was counted since an earlier reading. All of it, if the counters began anew meanwhile.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        if self.buckets.iter().zip(earlier.buckets).any(|(now, then)| *now < then) {
            return *self;
        }
        Histogram {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket] - earlier.buckets[bucket]),
            nanoseconds: self.nanoseconds.wrapping_sub(earlier.nanoseconds),
        }
    }

    /// About how long the given part of commands took at most: evenly spread within a bucket. `None` without commands.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let wanted = part.clamp(0.0, 1.0) * self.count() as f64;
        let mut below = 0.0;
        let last = self.buckets.iter().rposition(|commands| *commands > 0)?;
        for (bucket, commands) in self.buckets.iter().enumerate().take(last + 1).filter(|(_, commands)| **commands > 0) {
            let commands = *commands as f64;
            if below + commands >= wanted || bucket == last {
                let from = bucket.checked_sub(1).and_then(Histogram::limit).unwrap_or_default();
                let Some(to) = Histogram::limit(bucket) else { return Some(from) };
                return Some(from + (to - from).mul_f64(((wanted - below) / commands).clamp(0.0, 1.0)));
            }
            below += commands;
        }
        None
    }

    /// The mean, if there were commands.
    pub fn mean(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.nanoseconds.checked_div(self.count())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_below_the_limit_of_its_bucket_and_not_of_the_one_before() {
        for nanoseconds in
            (0..62).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([999, 1000, 1999, 2000, u64::MAX])
        {
            let (bucket, time) = (bucket(nanoseconds), Duration::from_nanos(nanoseconds));
            assert!(Histogram::limit(bucket).is_none_or(|limit| time < limit), "{nanoseconds} in {bucket}");
            assert!(bucket == 0 || Histogram::limit(bucket - 1).is_some_and(|limit| time >= limit), "{nanoseconds} in {bucket}");
        }
        assert_eq!(Histogram::limit(BUCKETS - 1), None);
        assert_eq!(Histogram::limit(10), Some(Duration::from_micros(1024)));
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_has_them() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.buckets[4] = 98; // 8 to 16 µs
        histogram.buckets[11] = 2; // 1024 to 2048 µs
        let micros = |part| histogram.quantile(part).unwrap().as_micros();
        assert!((8..=16).contains(&micros(0.0)) && (8..=16).contains(&micros(0.5)) && (8..=16).contains(&micros(0.98)));
        assert!((1024..=2048).contains(&micros(0.99)) && micros(1.0) == 2048);
        histogram.buckets[BUCKETS - 1] = 1000;
        assert_eq!(histogram.quantile(0.99), Histogram::limit(BUCKETS - 2), "nothing more is known");
    }

    #[test]
    fn the_difference_of_two_readings_is_what_was_done_between_them() {
        let mut before = Histogram::default();
        (before.buckets[3], before.nanoseconds) = (5, 20_000);
        let mut after = before;
        (after.buckets[3], after.buckets[5], after.nanoseconds) = (6, 1, 50_000);
        let between = after.since(&before);
        assert_eq!((between.count(), between.nanoseconds, between.mean()), (2, 30_000, Some(Duration::from_micros(15))));
        assert_eq!(before.since(&after), before, "another device in the same place");
    }
}
