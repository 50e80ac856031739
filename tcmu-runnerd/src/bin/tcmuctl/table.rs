//! Rows for people.
use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

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
}
