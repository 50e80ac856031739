//! The data area's pages, handed out first-fit.

/// Which pages are in use.
pub(super) struct Pages(Vec<bool>);

impl Pages {
    pub(super) fn new(count: usize) -> Pages {
        Pages(vec![false; count])
    }

    /// Pages for so many bytes: each with the number of bytes in it.
    pub(super) fn take(&mut self, mut bytes: usize) -> Option<Vec<(u32, usize)>> {
        let mut taken = Vec::new();
        for (page, used) in self.0.iter_mut().enumerate() {
            if bytes == 0 {
                break;
            }
            if !*used {
                *used = true;
                taken.push((page as u32, bytes.min(4096)));
                bytes -= bytes.min(4096);
            }
        }
        if bytes > 0 {
            self.give(&taken);
            return None;
        }
        Some(taken)
    }

    pub(super) fn give(&mut self, pages: &[(u32, usize)]) {
        for (page, _) in pages {
            self.0[*page as usize] = false;
        }
    }
}
