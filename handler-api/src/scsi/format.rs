//! The parameter lists of FORMAT UNIT and SANITIZE (SBC-4 5.4.2, 5.30.2).
use super::{Sense, be, command::FormatUnit};

/// Judges a FORMAT UNIT and its parameter list; whether it is to be completed before it is done.
pub fn parse_format(command: &FormatUnit, list: &[u8]) -> Result<bool, Sense> {
    if command.protection != 0 {
        return Err(Sense::invalid_cdb_field(1, Some(7))); // FMTPINFO: no protection information
    }
    if command.fast > 2 {
        return Err(Sense::invalid_cdb_field(4, Some(1)));
    }
    if !command.format_data {
        // Without a list there is nothing that could be complete, long, or in a format.
        if command.long_list || command.complete_list || command.defect_list_format != 0 {
            return Err(Sense::invalid_cdb_field(1, Some(5)));
        }
        return Ok(false);
    }
    let header = if command.long_list { 8 } else { 4 };
    if list.len() < header {
        return Err(Sense::illegal(super::AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    if list[0] & 0x07 != 0 {
        return Err(Sense::invalid_parameter(0, Some(2))); // PROTECTION FIELD USAGE
    }
    let flags = list[1];
    let valid = flags & 0x80 != 0; // FOV
    // Without FOV the other options must be zero (SBC-4 5.4.2.2).
    if !valid && flags & 0x7c != 0 {
        return Err(Sense::invalid_parameter(1, Some(6)));
    }
    if flags & 0x08 != 0 {
        return Err(Sense::invalid_parameter(1, Some(3))); // IP: no initialization pattern
    }
    let defects = if command.long_list { be::u32(list, 4) } else { u32::from(be::u16(list, 2)) };
    if defects != 0 {
        // A medium without defects has no list of them.
        return Err(Sense::invalid_parameter(if command.long_list { 4 } else { 2 }, None));
    }
    if command.long_list && list[3] != 0 {
        return Err(Sense::invalid_parameter(3, None)); // P_I_INFORMATION, PROTECTION INTERVAL EXPONENT
    }
    Ok(flags & 0x02 != 0)
}

/// What SANITIZE OVERWRITE writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwrite {
    /// Written over and over.
    pub pattern: Vec<u8>,
    /// How many times.
    pub count: u8,
    /// INVERT: every other time its complement.
    pub invert: bool,
}

impl Overwrite {
    /// The pattern of a pass, counted from 0.
    pub fn pass(&self, pass: u8) -> impl Iterator<Item = u8> + '_ {
        // With INVERT the pattern is inverted between consecutive passes.
        let mask = if self.invert && pass % 2 == 1 { 0xff } else { 0 };
        self.pattern.iter().map(move |byte| byte ^ mask)
    }
}

/// Reads a SANITIZE OVERWRITE parameter list of `length` bytes for blocks of `block` bytes.
pub fn parse_overwrite(list: &[u8], length: u32, block: u32) -> Result<Overwrite, Sense> {
    // SBC-4 5.30.2.2: 4 < PARAMETER LIST LENGTH <= block length + 4
    if length <= 4 || length > block + 4 || (list.len() as u64) < u64::from(length) {
        return Err(Sense::invalid_cdb_field(7, None));
    }
    let (count, pattern) = (list[0] & 0x1f, usize::from(be::u16(list, 2)));
    // Errors in this list are invalid fields in the CDB (SBC-4 5.30.2.2), as initiators' tests have it.
    if count == 0 || list[0] & 0x60 != 0 || list[1] != 0 || pattern == 0 || pattern > block as usize {
        return Err(Sense::illegal(super::AdditionalSense::INVALID_FIELD_IN_CDB));
    }
    let pattern = list.get(4..4 + pattern).filter(|pattern| 4 + pattern.len() == length as usize);
    let pattern = pattern.ok_or(Sense::illegal(super::AdditionalSense::INVALID_FIELD_IN_CDB))?;
    Ok(Overwrite { pattern: pattern.to_vec(), count, invert: list[0] & 0x80 != 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHORT: FormatUnit =
        FormatUnit { protection: 0, long_list: false, format_data: true, complete_list: false, defect_list_format: 0, fast: 0 };

    #[test]
    fn format_options_are_judged() {
        assert_eq!(parse_format(&SHORT, &[0, 0x82, 0, 0]), Ok(true));
        assert_eq!(parse_format(&SHORT, &[0, 0x02, 0, 0]), Ok(true), "IMMED is not among those that FOV covers");
        assert_eq!(parse_format(&SHORT, &[0, 0x40, 0, 0]), Err(Sense::invalid_parameter(1, Some(6))));
        assert_eq!(parse_format(&SHORT, &[0, 0x88, 0, 0]), Err(Sense::invalid_parameter(1, Some(3))));
        assert_eq!(parse_format(&SHORT, &[0, 0, 0, 8]), Err(Sense::invalid_parameter(2, None)));
        let long = FormatUnit { long_list: true, ..SHORT };
        assert_eq!(parse_format(&long, &[0; 8]), Ok(false));
        assert!(parse_format(&long, &[0; 4]).is_err());
        assert_eq!(parse_format(&FormatUnit { format_data: false, ..SHORT }, &[]), Ok(false));
        assert!(parse_format(&FormatUnit { protection: 2, ..SHORT }, &[0; 4]).is_err());
    }

    #[test]
    fn an_inverted_overwrite_alternates() {
        let overwrite = parse_overwrite(&[0x82, 0, 0, 2, 0x0f, 0xf0], 6, 512).unwrap();
        assert_eq!(overwrite.count, 2);
        assert_eq!(overwrite.pass(0).collect::<Vec<_>>(), [0x0f, 0xf0]);
        assert_eq!(overwrite.pass(1).collect::<Vec<_>>(), [0xf0, 0x0f]);
    }

    #[test]
    fn lengths_of_an_overwrite_must_fit() {
        for (list, length) in [(vec![1, 0, 0, 4], 4), (vec![1, 0, 0, 8, 0, 0, 0, 0], 8), (vec![0, 0, 0, 4, 0, 0, 0, 0], 8)] {
            assert!(parse_overwrite(&list, length, 512).is_err(), "{list:?}");
        }
        assert!(parse_overwrite(&[1; 600], 517, 512).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(list in proptest::collection::vec(any::<u8>(), 0..40), length in 0u32..600, long: bool, data: bool) {
            let _ = parse_overwrite(&list, length, 512);
            let _ = parse_format(&FormatUnit { long_list: long, format_data: data, ..SHORT }, &list);
        }
    }
}
