//! The UNMAP parameter list (SBC-4 5.35.2).
use super::{AdditionalSense, Blocks, Lba, Sense, be};

/// The ranges of a parameter list of `length` bytes, of which `list` were received. A list shorter than its header is an error, as is
/// one that promises more than it holds; a partial descriptor at its end is ignored.
pub fn ranges(list: &[u8], length: u32, max_descriptors: u32) -> Result<impl Iterator<Item = (Lba, Blocks)> + Clone + '_, Sense> {
    let list = &list[..list.len().min(length as usize)];
    if list.len() < 8 || length as usize > list.len() {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let bytes = usize::from(be::u16(list, 2));
    let descriptors = list
        .get(8..8 + bytes)
        .ok_or(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR))?
        .chunks_exact(16)
        .map(|d| (Lba(be::u64(d, 0)), Blocks(u64::from(be::u32(d, 8)))));
    if descriptors.len() > max_descriptors as usize {
        return Err(Sense::invalid_parameter(2, None));
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(descriptors: &[(u64, u32)]) -> Vec<u8> {
        let bytes = 16 * descriptors.len() as u16;
        let mut list = [(bytes + 6).to_be_bytes(), bytes.to_be_bytes()].concat();
        list.resize(8, 0);
        for (lba, blocks) in descriptors {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    }

    #[test]
    fn descriptors_are_read_in_order() {
        let list = list(&[(1, 2), (1 << 40, 0)]);
        let ranges: Vec<_> = ranges(&list, list.len() as u32, 2).map(Iterator::collect).unwrap();
        assert_eq!(ranges, [(Lba(1), Blocks(2)), (Lba(1 << 40), Blocks(0))]);
    }

    #[test]
    fn a_list_that_promises_more_than_it_holds_is_refused() {
        let mut list = list(&[(1, 2)]);
        assert!(ranges(&list, 7, 8).is_err());
        assert!(ranges(&list, 200, 8).is_err());
        list[3] = 32;
        assert!(ranges(&list, 24, 8).is_err());
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let list = list(&[(1, 2), (3, 4)]);
        assert!(ranges(&list, list.len() as u32, 1).is_err());
    }
}
