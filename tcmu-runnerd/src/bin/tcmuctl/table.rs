//! Rows for people.
use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde_json::Value;
use tcmu::server::counters::Histogram;

/// A table with a heading; numbers stand right, sizes are told in binary units.
pub(crate) fn of(rows: &[BTreeMap<String, Value>], columns: &[&str]) -> String {
    let text = |row: &BTreeMap<String, Value>, column: &str| match row.get(column) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if column == "size" || column.starts_with("bytes") => size(number.as_u64().unwrap_or(0)),
        Some(other) => other.to_string(),
    };
    let width = |column: &&str| {
        let longest = rows.iter().map(|row| text(row, column).chars().count()).max().unwrap_or(0);
        longest.max(column.len())
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let mut table = String::new();
    let mut line = |cells: Vec<(String, bool)>| {
        let mut line = String::new();
        for ((cell, right), width) in cells.into_iter().zip(&widths) {
            let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        table.push_str(line.trim_end());
        table.push('\n');
    };
    let number = |column: &str| rows.iter().any(|row| row.get(column).is_some_and(Value::is_number));
    line(columns.iter().map(|column| (column.to_uppercase(), number(column))).collect());
    for row in rows {
        line(columns.iter().map(|column| (text(row, column), number(column))).collect());
    }
    table
}

/// One fact a line: its name, and what it is.
pub(crate) fn facts<'a>(facts: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let facts: Vec<(&str, &Value)> = facts.collect();
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut lines = String::new();
    for (name, value) in facts {
        let value = match value {
            Value::Null => "-".into(),
            Value::String(text) => text.clone(),
            Value::Number(number) if name == "size" || name.starts_with("bytes") => {
                let bytes = number.as_u64().unwrap_or(0);
                format!("{} ({bytes} bytes)", size(bytes))
            }
            other => other.to_string(),
        };
        let _ = writeln!(lines, "{name:<width$}  {value}");
    }
    lines
}

/// Bytes in binary units.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A table; the first `left` columns and STATE stand left, the others right.
pub(crate) fn aligned(heading: &[&str], rows: Vec<Vec<String>>, left: usize) -> String {
    let heading: Vec<String> = heading.iter().map(|&name| name.to_owned()).collect();
    let width = |column: usize| rows.iter().chain([&heading]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut table = String::new();
    for row in [&heading].into_iter().chain(&rows) {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if column < left || heading[column] == "STATE" { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        table += cells.collect::<Vec<_>>().join("  ").trim_end();
        table.push('\n');
    }
    table
}

pub(crate) fn quantile(latency: &Histogram, part: f64) -> String {
    time(latency.quantile(part))
}

/// A time with a unit, in about three digits.
pub(crate) fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".into() };
    let microseconds = time.as_nanos() as f64 / 1000.0;
    match microseconds {
        us if us < 10.0 => format!("{us:.1} µs"),
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.1} ms", us / 1000.0),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1000.0),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |device: &str, size: u64| {
            BTreeMap::from([("device".to_owned(), Value::from(device)), ("size".to_owned(), Value::from(size))])
        };
        let table = of(&[row("user_0/a", 1 << 30), row("b", 512)], &["device", "size", "state"]);
        assert_eq!(table, "DEVICE       SIZE  STATE\nuser_0/a  1.0 GiB  -\nb           512 B  -\n");
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let told = |micros| time(Some(Duration::from_micros(micros)));
        assert_eq!([1, 12, 1234, 12_345, 1_234_567].map(told), ["1.0 µs", "12 µs", "1.2 ms", "12 ms", "1.2 s"]);
        assert_eq!(time(None), "-");
    }
}
