//! POPULATE TOKEN, WRITE USING TOKEN (SBC-4 5.10, 5.48), and the tokens of a unit.
//!
//! A token stands for ranges of the unit, not for a copy of them: it is revoked when one of them changes, and the initiator then reads and
//! writes as it would without tokens. Tokens do not outlive the process that made them.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tcmu_handler_api::scsi::{
    AdditionalSense, Sense,
    token::{self, RodType, TOKEN, TokenStatus},
    vpd,
};

use super::{
    Begun, Unit,
    copy::{self, Range, Whose, ZEROS},
    nothing_to_do,
};

/// How many tokens a unit has at a time; the oldest makes room.
const MAX_TOKENS: usize = 64;

/// Tokens that were made, and how commands about them ended.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    tokens: VecDeque<Token>,
    statuses: VecDeque<TokenStatus>,
    next: u64,
}

#[derive(Debug)]
struct Token {
    number: u64,
    rod: RodType,
    /// Offset and length in bytes.
    ranges: Vec<(u64, u64)>,
    timeout: Duration,
    used: Instant,
    revoked: bool,
}

impl Tokens {
    /// A range changes: what stood for it as it was does so no more.
    pub(super) fn changing(&mut self, offset: u64, length: u64) {
        for token in self.tokens.iter_mut().filter(|token| token.rod == RodType::ChangeVulnerable) {
            token.revoked |= token.ranges.iter().any(|(start, bytes)| offset < start + bytes && *start < offset + length);
        }
    }

    /// Another medium: none of them stands for anything on it.
    pub(super) fn revoke(&mut self) {
        self.tokens.iter_mut().for_each(|token| token.revoked = true);
    }

    /// Whether it matters to a token that something changes.
    pub(super) fn watches_changes(&self) -> bool {
        self.tokens.iter().any(|token| token.rod == RodType::ChangeVulnerable)
    }

    pub(super) fn record(
        &mut self,
        list: u32,
        action: u8,
        outcome: Option<Result<(), Sense>>,
        blocks: u64,
        token: Option<Box<[u8; TOKEN]>>,
    ) {
        self.statuses.retain(|status| status.list != list);
        self.statuses.truncate(MAX_TOKENS - 1);
        self.statuses.push_front(TokenStatus { list, action, outcome, blocks, token });
    }

    /// What became of a list.
    pub(super) fn status(&self, list: u32) -> Option<&TokenStatus> {
        self.statuses.iter().find(|status| status.list == list)
    }

    fn make(&mut self, rod: RodType, ranges: Vec<(u64, u64)>, timeout: Duration) -> u64 {
        if self.next == 0 {
            // Numbers of an earlier process must not mean tokens of this one.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            self.next = now.as_nanos() as u64;
        }
        self.next += 1;
        self.tokens.truncate(MAX_TOKENS - 1);
        let token = Token { number: self.next, rod, ranges, timeout, used: Instant::now(), revoked: false };
        self.tokens.push_front(token);
        self.next
    }

    fn find(&mut self, number: u64) -> Result<&mut Token, Sense> {
        let token = self.tokens.iter_mut().find(|token| token.number == number);
        let token = token.ok_or(Sense::illegal(AdditionalSense::INVALID_TOKEN_UNKNOWN))?;
        if token.revoked {
            return Err(Sense::illegal(AdditionalSense::INVALID_TOKEN_REVOKED));
        }
        if token.used.elapsed() > token.timeout {
            return Err(Sense::illegal(AdditionalSense::INVALID_TOKEN_EXPIRED));
        }
        token.used = Instant::now();
        Ok(token)
    }
}

pub(super) fn populate(unit: &mut Unit, list: u32, parameters: &[u8]) -> Begun {
    if parameters.is_empty() {
        return Ok(nothing_to_do());
    }
    let populate = token::parse_populate(parameters)?;
    let mut ranges = Vec::new();
    for (lba, blocks) in &populate.ranges {
        ranges.push(unit.bytes(*lba, *blocks)?);
    }
    let bytes = ranges.iter().map(|(_, length)| length).sum();
    let number = unit.tokens.make(populate.rod, ranges, Duration::from_secs(populate.timeout.into()));
    let naa = vpd::naa(&unit.identity().serial);
    let block = unit.block_size().bytes();
    let token = token::make(populate.rod, number, &naa, bytes, block);
    unit.tokens.record(list, 0x10, Some(Ok(())), bytes / u64::from(block), Some(Box::new(token)));
    Ok(nothing_to_do())
}

pub(super) fn write_using(unit: &mut Unit, list: u32, parameters: &[u8]) -> Begun {
    if parameters.is_empty() {
        return Ok(nothing_to_do());
    }
    let command = token::parse_write_using(parameters)?;
    unit.check_writable()?;
    let (rod, number) = token::read(&command.token)?;
    let block = u64::from(unit.block_size().bytes());
    let skip = command.offset.checked_mul(block).ok_or(Sense::invalid_parameter(8, None))?;
    let mut targets = Vec::new();
    for (lba, blocks) in &command.ranges {
        targets.push(unit.bytes(*lba, *blocks)?);
    }
    let ranges = match rod {
        RodType::Zeros => targets
            .iter()
            .map(|(to, length)| Range { from: ZEROS, to: *to, length: *length, source: None, target: None })
            .collect(),
        _ => {
            let token = unit.tokens.find(number)?;
            let ranges = pair(&token.ranges, skip, &targets).ok_or(Sense::invalid_parameter(8, None))?;
            if command.delete {
                unit.tokens.tokens.retain(|token| token.number != number);
            }
            ranges
        }
    };
    copy::start(unit, Whose::Token(list), ranges)
}

/// What goes where: the token's data from `skip` on, in order, to the targets, in order. `None` if there is not enough of it.
fn pair(sources: &[(u64, u64)], skip: u64, targets: &[(u64, u64)]) -> Option<Vec<Range>> {
    let mut sources = sources.iter().copied();
    let mut source = (0, 0);
    let mut skip = skip;
    let mut ranges = Vec::new();
    for &(mut to, mut length) in targets {
        while length > 0 {
            while source.1 == 0 || skip > 0 {
                if source.1 == 0 {
                    source = sources.next()?;
                }
                let skipped = skip.min(source.1);
                (source, skip) = ((source.0 + skipped, source.1 - skipped), skip - skipped);
            }
            let part = length.min(source.1);
            ranges.push(Range { from: source.0, to, length: part, source: None, target: None });
            (source, to, length) = ((source.0 + part, source.1 - part), to + part, length - part);
        }
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn data_goes_where_it_belongs(
            sources in proptest::collection::vec(0u64..5, 0..5),
            targets in proptest::collection::vec(0u64..5, 0..5),
            skip in 0u64..8,
        ) {
            let place = |lengths: &[u64]| lengths.iter().enumerate().map(|(n, l)| (n as u64 * 100, *l)).collect::<Vec<_>>();
            let bytes = |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(o, l)| *o..o + l).collect::<Vec<_>>();
            let (sources, targets) = (place(&sources), place(&targets));
            let expected: Vec<_> = bytes(&sources).into_iter().skip(skip as usize).zip(bytes(&targets)).collect();
            match pair(&sources, skip, &targets) {
                Some(ranges) => {
                    let copied: Vec<_> =
                        ranges.iter().flat_map(|r| (r.from..r.from + r.length).zip(r.to..r.to + r.length)).collect();
                    prop_assert_eq!(copied, expected);
                }
                None => prop_assert!(expected.len() < bytes(&targets).len()),
            }
        }
    }
}
