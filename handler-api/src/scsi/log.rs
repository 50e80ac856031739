//! Log pages (SPC-6 7.3): only what is really counted.
use super::{Sense, command::LogSense};

/// What was done for a unit since it is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commands that read the medium.
    pub reads: u64,
    /// Commands that write it.
    pub writes: u64,
    /// Commands that verify it.
    pub verifies: u64,
    /// Blocks read by initiators.
    pub blocks_read: u64,
    /// Blocks written by initiators.
    pub blocks_written: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Verifies that failed, miscompares not counted.
    pub verify_errors: u64,
}

const SUPPORTED: u8 = 0x00;
const WRITE_ERRORS: u8 = 0x02;
const READ_ERRORS: u8 = 0x03;
const VERIFY_ERRORS: u8 = 0x05;
const GENERAL_STATISTICS: u8 = 0x19;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x2f;
const PAGES: [u8; 6] = [SUPPORTED, WRITE_ERRORS, READ_ERRORS, VERIFY_ERRORS, GENERAL_STATISTICS, INFORMATIONAL_EXCEPTIONS];

/// Parameter code, FORMAT AND LINKING bits, value.
type Parameter = (u16, u8, Vec<u8>);

/// A counter that ends at its maximum (FORMAT AND LINKING 00b, SPC-6 7.3.2.2).
fn counter(code: u16, value: u64) -> Parameter {
    (code, 0x00, value.to_be_bytes().to_vec())
}

/// LOG SENSE data.
pub fn sense(request: &LogSense, statistics: &Statistics) -> Result<Vec<u8>, Sense> {
    if request.save {
        return Err(Sense::invalid_cdb_field(1, Some(0))); // nothing can be saved
    }
    if !PAGES.contains(&request.page) {
        return Err(Sense::invalid_cdb_field(2, Some(5)));
    }
    if (request.page, request.subpage) == (SUPPORTED, 0xff) {
        // Supported Log Pages and Subpages
        let mut known = vec![SUPPORTED, 0x00, SUPPORTED, 0xff];
        known.extend(PAGES[1..].iter().flat_map(|page| [*page, 0x00]));
        return Ok(finish(0x40, 0xff, known));
    }
    if request.subpage != 0 {
        return Err(Sense::invalid_cdb_field(3, None));
    }
    if request.page == SUPPORTED {
        return Ok(finish(SUPPORTED, 0, PAGES.to_vec()));
    }
    if request.page_control != 1 {
        // There are cumulative values only: no thresholds, no defaults (SPC-6 6.9.1).
        return Err(Sense::invalid_cdb_field(2, Some(7)));
    }
    let parameters = match request.page {
        WRITE_ERRORS => vec![counter(0x0006, statistics.write_errors)], // total uncorrected errors
        READ_ERRORS => vec![counter(0x0006, statistics.read_errors)],
        VERIFY_ERRORS => vec![counter(0x0006, statistics.verify_errors)],
        GENERAL_STATISTICS => vec![general(statistics)],
        _ => vec![(0x0000, 0x03, vec![0, 0, 0xff, 0])], // no exception is pending, no temperature is known
    };
    let last = parameters.last().map_or(0, |(code, ..)| *code);
    if request.parameter > last {
        return Err(Sense::invalid_cdb_field(5, None));
    }
    let mut body = Vec::new();
    for (code, format, value) in parameters.iter().filter(|(code, ..)| *code >= request.parameter) {
        body.extend(code.to_be_bytes());
        body.extend([*format, value.len() as u8]);
        body.extend(value);
    }
    Ok(finish(request.page, 0, body))
}

/// General Access Statistics and Performance (SPC-6 7.3.9.2): counts of commands and blocks; times are not measured.
fn general(statistics: &Statistics) -> Parameter {
    let mut value = Vec::with_capacity(64);
    for count in [statistics.reads, statistics.writes, statistics.blocks_written, statistics.blocks_read, 0, 0, 0, 0] {
        value.extend(count.to_be_bytes());
    }
    (0x0001, 0x03, value) // binary list
}

fn finish(page: u8, subpage: u8, body: Vec<u8>) -> Vec<u8> {
    let mut data = vec![page, subpage];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(page: u8, subpage: u8) -> LogSense {
        LogSense { save: false, page_control: 1, page, subpage, parameter: 0, allocation: 512 }
    }

    #[test]
    fn the_supported_pages_can_all_be_read() {
        let pages = sense(&request(0, 0), &Statistics::default()).unwrap();
        assert_eq!(pages, [0, 0, 0, 6, 0x00, 0x02, 0x03, 0x05, 0x19, 0x2f]);
        for page in &pages[4..] {
            let data = sense(&request(*page, 0), &Statistics::default()).unwrap();
            assert_eq!((data[0], usize::from(data[3])), (*page, data.len() - 4));
        }
        let all = sense(&request(0, 0xff), &Statistics::default()).unwrap();
        assert_eq!(all[..8], [0x40, 0xff, 0, 14, 0, 0, 0, 0xff]);
    }

    #[test]
    fn counters_are_shown() {
        let statistics = Statistics { reads: 1, writes: 2, blocks_written: 3, blocks_read: 4, ..Statistics::default() };
        let data = sense(&request(0x19, 0), &statistics).unwrap();
        assert_eq!(data[..8], [0x19, 0, 0, 68, 0, 1, 3, 64]);
        let counts: Vec<u64> = data[8..40].chunks(8).map(|c| u64::from_be_bytes(c.try_into().unwrap())).collect();
        assert_eq!(counts, [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        assert!(sense(&request(0x0d, 0), &Statistics::default()).is_err(), "there is no temperature");
        assert!(sense(&request(0x02, 1), &Statistics::default()).is_err());
        let none = Statistics::default();
        assert!(sense(&LogSense { save: true, ..request(0x02, 0) }, &none).is_err());
        assert!(sense(&LogSense { page_control: 0, ..request(0x02, 0) }, &none).is_err());
        assert!(sense(&LogSense { parameter: 7, ..request(0x02, 0) }, &none).is_err());
        assert_eq!(sense(&LogSense { parameter: 6, ..request(0x02, 0) }, &none).unwrap().len(), 16);
    }
}
