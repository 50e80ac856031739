use super::*;
use crate::{answer::tests::check, generate, random::Random};

const BLOCK: usize = 512;
const BLOCKS: usize = 4096;

/// A disk of little knowledge, and with a fault if wanted.
struct Disk {
    medium: Vec<u8>,
    refused: Option<u8>,
    forgets: Option<u8>,
    attention: bool,
}

impl Disk {
    fn new() -> Disk {
        Disk { medium: vec![0; BLOCK * BLOCKS], refused: None, forgets: None, attention: false }
    }
}

impl Target for Disk {
    fn send(&mut self, cdb: &[u8], out: &[u8], room: usize) -> io::Result<Answer> {
        let mut answer = Answer::default();
        let request = Request { cdb: cdb.to_vec(), out: Payload::None, room };
        let geometry = Geometry { block: BLOCK, capacity: BLOCKS as u64 };
        if self.refused == Some(cdb[0]) {
            return Ok(check(5, 0x20, None));
        }
        if std::mem::take(&mut self.attention) {
            return Ok(check(6, 0x29, None));
        }
        let bytes = |lba: u64, blocks: u64| lba as usize * BLOCK..(lba + blocks) as usize * BLOCK;
        match cdb[0] {
            0x25 => answer.data = [&(BLOCKS as u32 - 1).to_be_bytes()[..], &(BLOCK as u32).to_be_bytes()].concat(),
            0x28 | 0x88 => {
                let definition = request.definition().unwrap();
                let range = bytes(definition.lba.unwrap().get(cdb), definition.count(cdb));
                match self.medium.get(range) {
                    Some(data) => answer.data = data[..data.len().min(room)].to_vec(),
                    None => answer = check(5, 0x21, None),
                }
            }
            0x2a | 0x41 | 0x8a | 0x8b | 0x93 => {
                for (lba, blocks) in media::changed(&request, out, &geometry) {
                    let before = self.medium[bytes(lba, blocks)].to_vec();
                    let after = media::defined(&request, out, &before, &geometry).filter(|_| self.forgets != Some(cdb[0]));
                    self.medium[bytes(lba, blocks)].copy_from_slice(&after.unwrap_or(before));
                }
            }
            _ => {}
        }
        Ok(answer)
    }
}

fn keys(ours: &mut Disk, peer: &mut Disk, requests: &[Request]) -> Vec<String> {
    let table = Table::default();
    let mut runner = Runner::new(ours, peer, &table).unwrap();
    for request in requests {
        runner.step(request).unwrap();
    }
    assert_eq!(runner.media_differ().unwrap(), None, "both media are kept the same");
    runner.report.differences.into_keys().collect()
}

fn write(code: u8) -> Request {
    let mut cdb = vec![0; 16];
    (cdb[0], cdb[9], cdb[13]) = (code, 5, 2);
    Request { cdb, out: Payload::Random { seed: u64::from(code), length: 2 * BLOCK }, room: 0 }
}

#[test]
fn two_disks_that_are_the_same_have_no_differences() {
    let mut random = Random::new(9);
    let geometry = Geometry { block: BLOCK, capacity: BLOCKS as u64 };
    // This disk's parameter data has no structure.
    let requests: Vec<Request> = (0..2000).map(|_| generate::request(&mut random, &geometry)).collect();
    let requests: Vec<Request> =
        requests.into_iter().filter(|r| r.definition().is_none_or(|d| !matches!(d.kind, Kind::Describe(_)))).collect();
    assert_eq!(keys(&mut Disk::new(), &mut Disk::new(), &requests), Vec::<String>::new());
}

#[test]
fn a_write_that_only_one_executed_is_reported_and_made_up_for() {
    for (refuses_ours, outcome) in [(true, ": ours ILLEGAL REQUEST/INVALID COMMAND OPERATION CODE, peer GOOD"), (false, "")] {
        let (mut ours, mut peer) = (Disk::new(), Disk::new());
        if refuses_ours {
            ours.refused = Some(0x93);
        } else {
            peer.refused = Some(0x93);
        }
        let found = keys(&mut ours, &mut peer, &[write(0x93), write(0x8b)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("WRITE SAME(16)") && found[0].ends_with(outcome), "{found:?}");
    }
}

#[test]
fn a_write_that_one_forgets_is_found_on_the_medium() {
    let mut ours = Disk { forgets: Some(0x8b), ..Disk::new() };
    assert_eq!(keys(&mut ours, &mut Disk::new(), &[write(0x8b)]), ["ORWRITE(16) medium: differs"]);
}

#[test]
fn a_command_that_the_peer_has_not_is_held_against_its_definition() {
    let mut ours = Disk { forgets: Some(0x8b), ..Disk::new() };
    let mut peer = Disk { refused: Some(0x8b), ..Disk::new() };
    let found = keys(&mut ours, &mut peer, &[write(0x8b)]);
    assert!(found.contains(&"ORWRITE(16) medium: not what the command defines".to_string()), "{found:?}");
}

#[test]
fn a_unit_attention_condition_is_told_and_the_command_sent_again() {
    let (mut ours, mut peer) = (Disk::new(), Disk::new());
    let table = Table::default();
    let mut runner = Runner::new(&mut ours, &mut peer, &table).unwrap();
    runner.step(&write(0x8a)).unwrap();
    assert_eq!(runner.report.differences.len(), 0);
    drop(runner);
    ours.attention = true;
    // The beginning takes it away.
    assert_eq!(keys(&mut ours, &mut peer, &[write(0x8a)]), Vec::<String>::new());
}

#[test]
fn data_that_is_not_read_back_is_found() {
    let (mut ours, mut peer) = (Disk::new(), Disk::new());
    ours.medium[7 * BLOCK] = 1;
    let table = Table::default();
    let mut runner = Runner::new(&mut ours, &mut peer, &table).unwrap();
    assert_eq!(runner.media_differ().unwrap(), Some(7));
    runner.step(&Request { cdb: vec![0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0], out: Payload::None, room: BLOCK }).unwrap();
    assert_eq!(runner.report.differences.into_keys().collect::<Vec<_>>(), ["READ(10) data: differs"]);
}
