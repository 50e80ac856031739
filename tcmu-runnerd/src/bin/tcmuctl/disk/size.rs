//! Sizes as people write them.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes; written as `20G`, `512M`, `1.5T` or a number of bytes. Units are binary: 1G is 1024M.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub u64);

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong =
            || format!("{text:?} is no size: a number of bytes, or one with K, M, G, T or P behind it, is needed, as 20G");
        let trimmed = text.trim();
        let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match trimmed[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            unit => {
                let known =
                    |(letter, _): &&(char, u32)| unit.strip_prefix(*letter).is_some_and(|rest| matches!(rest, "" | "IB" | "B"));
                UNITS.iter().find(known).ok_or_else(wrong)?.1
            }
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let number = |digits: &str| -> Result<u64, String> {
            if digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() < 20 {
                digits.parse().map_err(|_| wrong())
            } else {
                Err(wrong())
            }
        };
        let bytes = number(whole)?.checked_mul(1u64 << shift).ok_or_else(wrong)?;
        if part.is_empty() {
            return if digits.ends_with('.') || bytes == 0 { Err(wrong()) } else { Ok(Size(bytes)) };
        }
        // Parts must be whole bytes, as 1.5G is and 1.1G is not.
        let scale = 10u128.checked_pow(part.len() as u32).ok_or_else(wrong)?;
        let scaled = u128::from(number(part)?) << shift;
        if !scaled.is_multiple_of(scale) {
            return Err(format!("{text:?} is no whole number of bytes"));
        }
        Ok(Size(bytes.checked_add((scaled / scale) as u64).ok_or_else(wrong)?))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().rev().find(|(_, shift)| self.0 >= 1u64 << *shift && self.0.is_multiple_of(1u64 << *shift)) {
            Some((letter, shift)) => write!(f, "{}{letter}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a size is needed: \"20G\", \"512M\" or a number of bytes")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Size(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("512", 512), ("20G", 20 << 30), ("20GiB", 20 << 30), ("4k", 4096), ("1.5M", 3 << 19), ("1T", 1 << 40), ("7B", 7)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in
            ["", "G", "-1", "1X", "1.1K", "1.", "0", "99999999999999999999", "18014398509481984K", "1 G 2", "0x10", "1e3"]
        {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_so_that_they_read_back() {
        for (bytes, text) in [(20 << 30, "20G"), (1 << 20, "1M"), (1000, "1000"), (3 << 19, "1536K")] {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
    }
}
