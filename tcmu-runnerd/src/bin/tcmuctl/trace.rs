//! `tcmuctl trace`.
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use tcmu_handler_api::scsi::describe;
use tcmu_runnerd::trace::{Header, Reader, Record};

use super::statistics::with_daemon;

/// What `tcmuctl trace` is asked.
#[derive(Subcommand)]
pub(crate) enum Trace {
    /// Writes each command of a device to a file, until `stop` or the limit. Its commands take a little longer meanwhile.
    Start {
        /// As user_0/name.
        device: String,
        /// The file; one that is there already is not written to.
        file: PathBuf,
        /// Most bytes, such as 100M; a command takes 48.
        #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
        limit: u64,
    },
    /// Ends that.
    Stop {
        /// As user_0/name.
        device: String,
    },
    /// Prints such a file: each command in words, or with --json as an object on a line of its own.
    Print {
        /// The file.
        file: PathBuf,
    },
}

fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err("a number of bytes is needed, with K, M, G or without".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a number of bytes is needed, with K, M, G or without".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".into())
}

pub(crate) fn run(trace: &Trace, json: bool) -> anyhow::Result<()> {
    match trace {
        Trace::Start { device, file, limit } => start(device, file, *limit),
        Trace::Stop { device } => with_daemon(async |daemon| daemon.stop_trace(device).await),
        Trace::Print { file } => match print(file, json) {
            // `tcmuctl trace print FILE | head`
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => Ok(()),
            outcome => outcome,
        },
    }
}

fn start(device: &str, path: &Path, limit: u64) -> anyhow::Result<()> {
    // Handler hosts are confined: it is we who open the file.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    let begun = with_daemon(async |daemon| daemon.start_trace(device, file.as_fd().into(), limit).await);
    if begun.is_err() {
        let _ = std::fs::remove_file(path);
    }
    begun
}

fn print(path: &Path, json: bool) -> anyhow::Result<()> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let (header, mut reader) = Reader::new(BufReader::new(file)).with_context(place)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if !json {
        writeln!(out, "{}, blocks of {} bytes", header.device, header.block_size)?;
    }
    let (mut commands, mut missing) = (0u64, 0u64);
    while let Some(record) = reader.record().with_context(place)? {
        match record.missing() {
            Some(gap) => missing = missing.saturating_add(gap),
            None => commands += 1,
        }
        writeln!(out, "{}", if json { object(&header, &record) } else { line(&record) })?;
    }
    if !json {
        writeln!(out, "{commands} commands, {missing} missing")?;
    }
    out.flush()?;
    Ok(())
}

fn line(record: &Record) -> String {
    let (second, microsecond) = (record.time / 1_000_000_000 % 86_400, record.time / 1000 % 1_000_000);
    let time = format!("{:02}:{:02}:{:02}.{microsecond:06}", second / 3600, second / 60 % 60, second % 60);
    match record.missing() {
        Some(missing) => format!("{time} {missing} commands are missing: they came faster than the file was written"),
        None => {
            let (command, outcome) = (describe(record.cdb()), record.outcome());
            format!("{time} {command}, {} bytes, {} µs: {outcome}", record.length, record.latency / 1000)
        }
    }
}

fn object(header: &Header, record: &Record) -> String {
    if let Some(missing) = record.missing() {
        return json!({ "device": header.device, "time_nanoseconds": record.time, "missing": missing }).to_string();
    }
    let command = describe(record.cdb());
    let cdb: String = record.cdb().iter().map(|byte| format!("{byte:02x}")).collect();
    let outcome = record.outcome();
    json!({
        "device": header.device,
        "time_nanoseconds": record.time,
        "latency_nanoseconds": record.latency,
        "command": command.name(),
        "lba": command.lba,
        "blocks": command.blocks,
        "bytes": record.length,
        "cdb": cdb,
        "status": describe::status(record.status),
        "sense_key": outcome.sense.map(|sense| describe::sense_key(sense.key)),
        "sense": outcome.sense.map(|sense| sense.code.to_string()),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut cdb = [0; 16];
        cdb[..10].copy_from_slice(&[0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0]);
        Record { time: 3_723_000_004_000, latency: 5000, cdb, cdb_length: 10, length: 512, status: 2, sense: [3, 0x0c, 0] }
    }

    #[test]
    fn commands_are_told_in_words() {
        assert_eq!(
            line(&record()),
            "01:02:03.000004 WRITE(10) lba 8 blocks 1, 512 bytes, 5 µs: CHECK CONDITION: MEDIUM ERROR, WRITE ERROR"
        );
        assert!(line(&Record::gap(0, 7)).contains("7 commands are missing"));
        let header = Header { began: 0, block_size: 512, device: "user_0/a".into() };
        let object: serde_json::Value = serde_json::from_str(&object(&header, &record())).unwrap();
        assert_eq!(
            (&object["command"], &object["lba"], &object["sense_key"]),
            (&json!("WRITE(10)"), &json!(8), &json!("MEDIUM ERROR"))
        );
    }

    #[test]
    fn limits_have_units() {
        assert_eq!([bytes("48"), bytes("64M"), bytes("1g")], [Ok(48), Ok(64 << 20), Ok(1 << 30)]);
        assert!(["", "M", "1X", "-1", "99999999999999G"].iter().all(|text| bytes(text).is_err()));
    }
}
