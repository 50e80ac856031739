//! Replays the corpus, and random inputs that are the same each time.
use std::{fs, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    inputs.iter().for_each(|input| run(&fs::read(input).unwrap()));
}

fn random(count: u64, longest: u64, run: fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 20
    };
    for _ in 0..count {
        let length = next() % longest;
        let input: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        run(&input);
    }
}

#[test]
fn the_corpus_of_cdbs_is_decoded_or_refused() {
    replay("decode", tcmu_fuzz::decode);
}

#[test]
fn random_cdbs_are_decoded_or_refused() {
    random(20_000, 20, tcmu_fuzz::decode);
}

#[test]
fn the_corpus_of_parameter_lists_is_taken_or_refused() {
    replay("parameters", tcmu_fuzz::parameters);
}

#[test]
fn random_parameter_lists_are_taken_or_refused() {
    random(1_000, 120, tcmu_fuzz::parameters);
}

#[test]
fn the_corpus_of_commands_leads_to_what_the_model_has() {
    replay("engine", tcmu_fuzz::engine);
}

#[test]
fn random_commands_lead_to_what_the_model_has() {
    random(1_000, 600, tcmu_fuzz::engine);
}

#[test]
fn the_corpus_of_nonsense_of_plugins_is_refused_or_survived() {
    replay("plugin", tcmu_fuzz::plugin);
}

#[test]
fn random_nonsense_of_plugins_is_refused_or_survived() {
    random(1_000, 400, tcmu_fuzz::plugin);
}

#[test]
fn the_corpus_of_scribbled_rings_is_served_or_refused() {
    replay("ring", tcmu_fuzz::ring);
}

#[test]
fn random_scribbles_over_rings_are_served_or_refused() {
    random(2_000, 600, tcmu_fuzz::ring);
}

#[test]
fn the_corpus_of_datagrams_is_read_or_refused() {
    replay("netlink", tcmu_fuzz::netlink);
}

#[test]
fn random_datagrams_are_read_or_refused() {
    random(20_000, 120, tcmu_fuzz::netlink);
}

#[test]
fn the_corpus_of_names_is_taken_apart_or_refused() {
    replay("names", tcmu_fuzz::names);
}

#[test]
fn random_names_are_taken_apart_or_refused() {
    random(10_000, 60, tcmu_fuzz::names);
}

#[test]
fn the_corpus_of_configurations_is_taken_or_refused_with_a_line() {
    replay("config", tcmu_fuzz::config);
}

#[test]
fn random_configurations_are_refused_with_a_line() {
    random(5_000, 60, tcmu_fuzz::config);
}

#[test]
fn the_corpus_of_messages_is_read_or_refused() {
    replay("messages", tcmu_fuzz::messages);
}

#[test]
fn random_messages_are_refused() {
    random(5_000, 120, tcmu_fuzz::messages);
}
