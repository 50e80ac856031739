//! The whole engine against a model of a disk: random commands, alone and several at a time, over handlers of many kinds. A failure
//! names the command; `PROPTEST_CASES` makes it search longer.
#[path = "model/mod.rs"]
mod model;

use std::sync::Mutex;

use model::{Choose, Rig, Shape, Tally};
use proptest::{prelude::*, test_runner::TestCaseError};
use tcmu_handler_api::scsi::opcode::TABLE;

/// What decides about the commands of a case.
fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..36), 1..30)
}

fn run(shape: Shape, seed: u64, records: &[Vec<u8>]) -> Result<Tally, String> {
    let mut rig = Rig::new(shape, seed)?;
    rig.run(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok(rig.tally)
}

/// Cases for each kind of device; all of them together take some seconds.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

fn try_it(shape: Shape, large: bool, seed: u64, records: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let shape = shape.with_large_blocks(large);
    run(shape, seed, records).map(drop).map_err(|why| TestCaseError::fail(format!("{why}\n  {shape:?}")))
}

macro_rules! disks {
    ($($name:ident: $shape:expr;)*) => {
        proptest! {
            #![proptest_config(cases())]
            $(#[test]
            fn $name(large: bool, seed: u64, records in records()) {
                try_it($shape, large, seed, &records)?;
            })*
        }
    };
}

disks! {
    a_handler_with_all_operations_makes_a_disk: Shape::SKILLED;
    a_handler_that_only_reads_and_writes_makes_a_disk: Shape::PLAIN;
    a_write_cache_loses_nothing_that_was_to_be_durable: Shape { cache: true, ..Shape::PLAIN };
    a_handler_that_honours_fua_is_asked_to: Shape { fua: true, ..Shape::SKILLED };
    a_large_physical_block_changes_no_data: Shape { physical: true, thin: true, zeroes: true, ..Shape::PLAIN };
    a_thin_disk_whose_holes_read_as_anything_writes_what_it_is_told: Shape { zeroes: false, ..Shape::SKILLED };
    a_read_only_disk_never_changes: Shape { read_only: true, ..Shape::SKILLED };
    a_limit_on_transfers_is_kept: Shape { limited: true, ..Shape::PLAIN };
    a_handler_that_completes_later_and_elsewhere_makes_a_disk: Shape { later: true, ..Shape::SKILLED };
    emulation_is_atomic_for_a_handler_that_completes_later: Shape { later: true, cache: true, ..Shape::PLAIN };
    a_handler_that_fails_leaves_no_wrong_data_and_a_usable_disk: Shape { failing: true, ..Shape::SKILLED };
    emulation_over_a_handler_that_fails_leaves_no_wrong_data: Shape { failing: true, cache: true, ..Shape::PLAIN };
}

proptest! {
    #![proptest_config(cases())]
    #[test]
    fn devices_of_every_kind_are_disks(bits: u16, seed: u64, records in records()) {
        try_it(Shape::from_bits(bits), false, seed, &records)?;
    }
}

/// The same bytes each time.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn every_command_that_the_model_knows_is_executed_well() {
    let tally = Mutex::new(Tally::new());
    for (n, shape) in [Shape::SKILLED, Shape::PLAIN, Shape { thin: true, zeroes: true, ..Shape::PLAIN }].iter().enumerate() {
        for round in 0..8u64 {
            let records: Vec<_> = (0..60).map(|record| bytes(1 + record + 100 * round + 10_000 * n as u64, 32)).collect();
            let done = run(*shape, round, &records).unwrap_or_else(|why| panic!("{why}\n  {shape:?}"));
            for (code, (good, bad)) in done {
                let mut tally = tally.lock().unwrap();
                let sum = tally.entry(code).or_default();
                *sum = (sum.0 + good, sum.1 + bad);
            }
        }
    }
    let tally = tally.into_inner().unwrap();
    let mut never = Vec::new();
    for code in model::KNOWN {
        let in_table = TABLE.iter().any(|entry| (entry.code, entry.service_action) == *code);
        let (good, bad) = tally.get(code).copied().unwrap_or_default();
        println!("{code:02x?}: {good} GOOD, {bad} not{}", if in_table { "" } else { "; not in the table" });
        if in_table && good == 0 {
            never.push(code);
        }
    }
    assert!(never.is_empty(), "never GOOD: {never:02x?}");
}

#[test]
fn decisions_are_the_first_choice_when_the_bytes_are_used_up() {
    let mut choose = Choose::new(&[7, 200]);
    assert_eq!((choose.below(5), choose.seldom(60), choose.below(9), choose.seldom(255)), (2, true, 0, false));
}
