//! `tcmuctl device show`, and what is said of a disk that was just made.
use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tcmu::configfs::{Backstore, Export, Fabric};
use tcmu_handler_api::scsi::alua::AccessState;

use super::{
    daemon::{Of, rows},
    disk::{Machine, find, steps},
    table,
};

/// How long the disk of a loopback may take to appear, before it is told without its name.
const APPEAR: Duration = Duration::from_secs(5);

/// Everything that is known of a disk.
pub(crate) fn show(name: &str, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    let disk = find::disk(&machine, name)?;
    let mut facts = facts(&machine, &disk)?;
    // The daemon's view, if it runs; another program may serve the disk.
    let id = disk.id().to_string();
    let row = rows(Of::Devices).map(|rows| rows.into_iter().find(|row| row.get("device").and_then(Value::as_str) == Some(&id)));
    match row {
        Ok(Some(row)) => row.into_iter().filter(|(key, _)| key != "device").for_each(|(key, value)| {
            facts.insert(key, value);
        }),
        Ok(None) => drop(facts.insert("state".into(), json!("not served by tcmu-runnerd"))),
        Err(error) => drop(facts.insert("state".into(), json!(format!("not known: {error}")))),
    }
    if json {
        outln!("{}", serde_json::to_string_pretty(&facts)?);
        return Ok(());
    }
    let lists = ["attributes", "exports", "alua"];
    out!("{}", table::facts(facts.iter().filter(|(key, _)| !lists.contains(&key.as_str())).map(|(k, v)| (k.as_str(), v))));
    outln!("exports");
    let exports = disk.exports(&machine.roots);
    if exports.is_empty() {
        outln!("  none");
    }
    for export in &exports {
        outln!("  {}", line(&machine, export));
    }
    for group in facts.get("alua").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| group.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        outln!("alua\n  group {}: {}", text("group").unwrap_or_default(), text("state").unwrap_or_default());
    }
    outln!("attributes");
    let attributes = facts.get("attributes").and_then(Value::as_object);
    for (name, value) in attributes.into_iter().flatten() {
        outln!("  {name} = {}", value.as_str().unwrap_or_default());
    }
    Ok(())
}

/// What the kernel knows.
fn facts(machine: &Machine, disk: &Backstore) -> anyhow::Result<Map<String, Value>> {
    let facts = disk.facts()?;
    let dev_config = disk.dev_config()?;
    let (handler, config) = tcmu::identity::split_config(&dev_config);
    let attributes: Map<String, Value> = disk
        .attributes()
        .into_iter()
        .filter(|name| !["dev_config", "dev_size"].contains(&name.as_str()))
        .filter_map(|name| Some((name.clone(), disk.attribute_text(&name).ok()?.into())))
        .collect();
    let groups: Vec<Value> = tcmu::engine::Target::port_groups(disk)
        .unwrap_or_default()
        .iter()
        .map(|group| {
            json!({ "group": group.id, "state": access(group.state), "ports": group.ports, "preferred": group.preferred })
        })
        .collect();
    let exports: Vec<Value> = disk.exports(&machine.roots).iter().map(|export| export_facts(machine, export)).collect();
    let Value::Object(map) = json!({
        "device": disk.id().to_string(),
        "handler": handler,
        "config": config,
        "size": facts.size,
        "block_size": facts.block_size,
        "serial": disk.serial(),
        "enabled": disk.is_enabled().unwrap_or(false),
        "exports": exports,
        "alua": groups,
        "attributes": attributes,
    }) else {
        return Ok(Map::new());
    };
    Ok(map)
}

fn access(state: AccessState) -> String {
    format!("{state:?}")
}

fn export_facts(machine: &Machine, export: &Export) -> Value {
    let mut facts = json!({
        "fabric": export.fabric.to_string(), "target": export.target, "tag": export.tag, "lun": export.lun,
        "user": steps::user_of(machine, export),
    });
    match export.fabric {
        Fabric::Loopback => facts["block_device"] = json!(export.block_device(&machine.roots).map(|name| format!("/dev/{name}"))),
        Fabric::Iscsi => {
            facts["portals"] = json!(export.portals());
            facts["initiators"] = json!(export.initiators());
            facts["admits_all"] = json!(export.is_open());
            facts["chap_user"] = json!(export.chap().map(|chap| chap.user));
            facts["sessions"] = json!(export.sessions());
        }
        Fabric::Vhost | Fabric::Other(_) => {}
    }
    facts
}

/// An export for people.
fn line(machine: &Machine, export: &Export) -> String {
    match &export.fabric {
        Fabric::Loopback => match export.block_device(&machine.roots) {
            Some(block) => format!("loopback /dev/{block}"),
            None => format!("loopback {}, no disk yet", export.target),
        },
        Fabric::Iscsi => {
            let who = if export.is_open() { "any initiator".into() } else { export.initiators().join(", ") };
            let chap = export.chap().map(|chap| format!(" as {}", chap.user)).unwrap_or_default();
            let who = if who.is_empty() { "nobody".into() } else { who };
            format!("iscsi {} LUN {} at {}, for {who}{chap}", export.target, export.lun, export.portals().join(", "))
        }
        Fabric::Vhost => format!("vhost {} (QEMU: -device vhost-scsi-pci,wwpn={})", export.target, export.target),
        Fabric::Other(_) => export.to_string(),
    }
}

/// Says what was made and how it is reached. Waits a moment for disks of this machine to appear.
pub(crate) fn made(machine: &Machine, disk: &Backstore, json: bool) -> anyhow::Result<()> {
    let exports = disk.exports(&machine.roots);
    let end = Instant::now() + APPEAR;
    let appeared =
        || exports.iter().all(|export| export.fabric != Fabric::Loopback || export.block_device(&machine.roots).is_some());
    while !appeared() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    if json {
        outln!("{}", serde_json::to_string_pretty(&facts(machine, disk)?)?);
        return Ok(());
    }
    outln!("{}, {}, serial {}", disk.id(), table::size(disk.facts()?.size), disk.serial().unwrap_or_else(|| "none".into()));
    exports.iter().for_each(|export| outln!("  {}", line(machine, export)));
    Ok(())
}
