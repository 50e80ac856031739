//! Compares two answers to one command. Says what differs in words that are the same for the same kind of difference.
use crate::{
    answer::Answer,
    command::{Format, Kind},
    request::Request,
    structure,
};

/// What differs, one text for each class: outcome, field pointer, INFORMATION, residual, data, structure.
pub fn differences(request: &Request, ours: &Answer, peer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    for (whose, answer) in [("ours", ours), ("peer", peer)] {
        found.extend(structure_of(request, answer).map(|complaint| format!(" structure: {whose}: {complaint}")));
    }
    if ours.outcome() != peer.outcome() {
        found.push(format!(": ours {}, peer {}", ours.outcome(), peer.outcome()));
        return found;
    }
    if let (Some(ours), Some(peer)) = (ours.sense(), peer.sense()) {
        if ours.field != peer.field {
            let text = |field: Option<_>| field.map_or("none".to_string(), |f: crate::answer::Pointer| f.to_string());
            found.push(format!(" field pointer: ours {}, peer {}", text(ours.field), text(peer.field)));
        }
        if ours.information != peer.information {
            // The values are random.
            let text = |ours: bool, information: Option<u64>| match information {
                Some(_) if ours => "one",
                Some(_) => "another",
                None => "none",
            };
            found.push(format!(" INFORMATION: ours {}, peer {}", text(true, ours.information), text(false, peer.information)));
        }
    }
    if ours.good() && peer.good() {
        found.extend(data(request, ours, peer));
    }
    found
}

fn structure_of(request: &Request, answer: &Answer) -> Option<String> {
    match request.definition()?.kind {
        Kind::Describe(format) if answer.good() => structure::complaint(format, &request.cdb, &answer.data, request.room),
        _ => None,
    }
}

fn data(request: &Request, ours: &Answer, peer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    // Data that says what the unit is has the length that the unit has to say.
    let kind = request.definition().map(|definition| definition.kind);
    let same_data = matches!(kind, Some(Kind::Read | Kind::Describe(Format::Capacity10)));
    if !matches!(kind, Some(Kind::Describe(_))) && ours.residual != peer.residual {
        let text = |residual: i32| match residual {
            0 => "0",
            1.. => "positive",
            _ => "negative",
        };
        let other = if text(ours.residual) == text(peer.residual) { "another " } else { "" };
        found.push(format!(" residual: ours {}, peer {other}{}", text(ours.residual), text(peer.residual)));
    }
    let shared = ours.data.len().min(peer.data.len());
    if same_data && ours.data[..shared] != peer.data[..shared] {
        found.push(" data: differs".to_string());
    }
    if kind == Some(Kind::Describe(Format::Capacity16)) && shared >= 12 && ours.data[..12] != peer.data[..12] {
        found.push(" data: capacity or block length differs".to_string());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answer::tests::check, request::Payload};

    fn read() -> Request {
        Request { cdb: vec![0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], out: Payload::None, room: 4 }
    }

    fn good(data: &[u8], residual: i32) -> Answer {
        Answer { data: data.to_vec(), residual, ..Answer::default() }
    }

    #[test]
    fn the_same_answers_have_no_differences() {
        assert_eq!(differences(&read(), &good(&[1, 2], 0), &good(&[1, 2], 0)), Vec::<String>::new());
        assert_eq!(differences(&read(), &check(5, 0x24, Some(1)), &check(5, 0x24, Some(1))), Vec::<String>::new());
    }

    #[test]
    fn another_outcome_is_one_difference() {
        let found = differences(&read(), &good(&[1], 0), &check(5, 0x24, Some(1)));
        assert_eq!(found, [": ours GOOD, peer ILLEGAL REQUEST/INVALID FIELD IN CDB"]);
    }

    #[test]
    fn field_pointers_and_information_are_classes_of_their_own() {
        let found = differences(&read(), &check(5, 0x24, Some(1)), &check(5, 0x24, None));
        assert_eq!(found, [" field pointer: ours CDB byte 1, peer none"]);
        let mut with = check(14, 0x1d, None);
        (with.sense[0], with.sense[6]) = (0xf0, 7);
        let mut other = with.clone();
        other.sense[6] = 8;
        assert_eq!(differences(&read(), &with, &check(14, 0x1d, None)), [" INFORMATION: ours one, peer none"]);
        assert_eq!(differences(&read(), &with, &other), [" INFORMATION: ours one, peer another"]);
    }

    #[test]
    fn data_and_residual_are_compared_where_both_define_them() {
        assert_eq!(differences(&read(), &good(&[1, 2], 0), &good(&[1, 3], 0)), [" data: differs"]);
        assert_eq!(differences(&read(), &good(&[1], 3), &good(&[1, 3, 1, 1], 0)), [" residual: ours positive, peer 0"]);
        assert_eq!(differences(&read(), &good(&[1], 3), &good(&[1, 3], 2)), [" residual: ours positive, peer another positive"]);
        let inquiry = Request { cdb: vec![0x12, 1, 0x80, 0, 8, 0], out: Payload::None, room: 8 };
        assert_eq!(
            differences(&inquiry, &good(&[0, 0x80, 0, 1, 65], 3), &good(&[0, 0x80, 0, 2, 66, 67], 2)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_units_structure_is_judged() {
        let inquiry = Request { cdb: vec![0x12, 1, 0x80, 0, 8, 0], out: Payload::None, room: 8 };
        let found = differences(&inquiry, &good(&[0, 0x83, 0, 0], 4), &good(&[0, 0x80, 0, 0], 4));
        assert_eq!(found, [" structure: ours: the PAGE CODE is another one"]);
    }
}
