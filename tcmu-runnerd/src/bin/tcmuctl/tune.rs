//! `tcmuctl tune`: the kernel's limits of each TCMU device, what they cost, and how they are changed.
//!
//! All of them are fixed when a device is enabled (`tcmu_configure_device`, drivers/target/target_core_user.c), so that the way to
//! change one is in the words of whoever creates the device. Reads configfs; the daemon need not run.
use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use serde_json::{Value, json};
use tcmu::{BackstoreId, Roots, configfs::Backstore};

use super::table;

/// A limit of one device.
struct Limit {
    name: &'static str,
    value: u64,
    shown: String,
    /// What would be better, if it would.
    better: Option<String>,
    effect: String,
    how: String,
}

const MIB: u64 = 1 << 20;

/// Sectors of 512 bytes that `tcmuctl` and libtcmu ask for: requests of 1 MiB stay whole.
const SECTORS: u64 = 2048;

/// Shows all limits of the devices that are named, or of all.
pub(crate) fn run(names: &[String], as_json: bool) -> anyhow::Result<()> {
    let roots = Roots::default();
    let core = &roots.target.join("core");
    let mut devices: Vec<BackstoreId> = match names {
        [] => present(core)?,
        names => names
            .iter()
            .map(|name| name.parse().map_err(|_| anyhow::anyhow!("{name:?} is no device: user_<number>/<name> is needed")))
            .collect::<Result<_, _>>()?,
    };
    devices.sort_by_key(ToString::to_string);
    let mut rows: Vec<BTreeMap<String, Value>> = Vec::new();
    let mut advice = Vec::new();
    for id in &devices {
        let device = Backstore::at(&roots, id);
        anyhow::ensure!(device.path().exists(), "there is no device {id} in {}", core.display());
        for limit in limits(&|name| device.attribute(name).ok()) {
            let mut row = BTreeMap::from([
                ("device".to_owned(), json!(id.to_string())),
                ("limit".into(), json!(limit.name)),
                ("value".into(), if as_json { json!(limit.value) } else { json!(limit.shown) }),
                ("better".into(), json!(limit.better)),
                ("effect".into(), json!(limit.effect)),
            ]);
            if as_json {
                row.insert("how".into(), json!(limit.how));
            }
            if limit.better.is_some() {
                advice.push(format!("{id}, {}: {}", limit.name, limit.how));
            }
            rows.push(row);
        }
    }
    if as_json {
        outln!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if rows.is_empty() {
        outln!("no TCMU devices");
        return Ok(());
    }
    out!("{}", table::of(&rows, &["device", "limit", "value", "better", "effect"]));
    if advice.is_empty() {
        outln!("\nNothing to change.");
    } else {
        outln!("\nLimits are fixed when a device is enabled. To change one, create the device anew:");
        advice.iter().for_each(|line| outln!("  {line}"));
    }
    Ok(())
}

/// The limits of a device that throttle it: which, what that costs, and how it is changed.
pub(crate) fn throttled(attribute: &dyn Fn(&str) -> Option<u64>) -> Vec<(String, String, String)> {
    let throttling = limits(attribute).into_iter().filter(|limit| limit.better.is_some());
    throttling.map(|limit| (format!("{} {}", limit.name, limit.shown), limit.effect, limit.how)).collect()
}

fn present(core: &Path) -> anyhow::Result<Vec<BackstoreId>> {
    if !core.exists() {
        anyhow::bail!(
            "{} is not there: is target_core_user loaded (modprobe target_core_user) and configfs mounted?",
            core.display()
        );
    }
    let names = |path: &Path| -> anyhow::Result<Vec<String>> {
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        Ok(entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect())
    };
    let mut found = Vec::new();
    for hba in names(core)?.iter().filter(|name| name.starts_with("user_")) {
        found.extend(names(&core.join(hba))?.iter().filter_map(|name| format!("{hba}/{name}").parse().ok()));
    }
    Ok(found)
}

/// What is to be said of a device; limits that its kernel has not are left out.
fn limits(attribute: &dyn Fn(&str) -> Option<u64>) -> Vec<Limit> {
    let mut found = Vec::new();
    let area = attribute("max_data_area_mb");
    if let Some(sectors) = attribute("hw_max_sectors") {
        let pieces = SECTORS.div_ceil(sectors.max(1));
        let low = sectors < SECTORS;
        found.push(Limit {
            name: "hw_max_sectors",
            value: sectors,
            shown: format!("{sectors} ({} KiB)", sectors / 2),
            better: low.then(|| SECTORS.to_string()),
            effect: if low {
                format!("a request of 1 MiB becomes {pieces} commands")
            } else {
                "requests of 1 MiB stay whole".into()
            },
            how: format!(
                "hw_max_sectors={SECTORS} to `control` before `enable`; in targetcli: create ... hw_max_sectors={SECTORS}"
            ),
        });
    }
    if let Some(area) = area {
        let low = area < 64;
        found.push(Limit {
            name: "max_data_area_mb",
            value: area,
            shown: format!("{area} MiB"),
            better: low.then(|| "64 or more".into()),
            effect: format!("at most {area} commands of 1 MiB at a time; memory is taken only while it is used"),
            how: "max_data_area_mb=256 to `control` before `enable`; in targetcli: the backstore's control string".into(),
        });
    }
    if let Some(pages) = attribute("data_pages_per_blk") {
        found.push(Limit {
            name: "data_pages_per_blk",
            value: pages,
            shown: format!("{pages} ({} KiB)", pages * 4),
            better: None,
            effect: "data is cut in segments of at least so much; more wastes memory with small requests".into(),
            how: "data_pages_per_blk=N to `control` before `enable`".into(),
        });
    }
    if let Some(ring) = attribute("cmd_ring_size_mb") {
        found.push(Limit {
            name: "cmd_ring_size_mb",
            value: ring,
            shown: format!("{ring} MiB"),
            better: None,
            effect: format!("room for some {} commands; the memory is taken at once", ring * MIB / 256),
            how: "cmd_ring_size_mb=1 to `control` before `enable`, where there are many devices".into(),
        });
    }
    if let Some(seconds) = attribute("cmd_time_out") {
        found.push(Limit {
            name: "cmd_time_out",
            value: seconds,
            shown: if seconds == 0 { "none".into() } else { format!("{seconds} s") },
            better: None,
            effect: "a command that takes longer is failed by the kernel; it must be above what the backing store may take"
                .into(),
            how: "echo SECONDS >attrib/cmd_time_out, while nothing is exported".into(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &'static [(&'static str, u64)]) -> Vec<Limit> {
        limits(&|name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn what_throttles_is_told_with_what_it_costs() {
        let found = of(&[("hw_max_sectors", 128), ("max_data_area_mb", 1024)]);
        assert_eq!(found.len(), 2, "limits that a kernel has not are left out");
        assert_eq!(found[0].better.as_deref(), Some("2048"));
        assert!(found[0].effect.contains("becomes 16 commands"), "{}", found[0].effect);
        assert_eq!(found[1].better, None);
        assert_eq!(of(&[("hw_max_sectors", 4096)])[0].better, None);
    }
}
