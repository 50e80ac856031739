//! A disk that is there, by the name that people give.
use anyhow::bail;
use tcmu::{BackstoreId, configfs::Backstore};

use super::Machine;

/// A disk by `user_<hba>/<name>`, or by its name alone where that is clear.
pub(crate) fn disk(machine: &Machine, name: &str) -> anyhow::Result<Backstore> {
    if let Ok(id) = name.parse::<BackstoreId>() {
        let backstore = Backstore::at(&machine.roots, &id);
        anyhow::ensure!(backstore.exists(), "there is no disk {id}");
        return Ok(backstore);
    }
    match find(machine, name, None)? {
        Some(backstore) => Ok(backstore),
        None => {
            let there: Vec<String> = Backstore::all(&machine.roots).iter().map(|disk| disk.id().to_string()).collect();
            bail!("there is no disk {name:?}; there are: {}", if there.is_empty() { "none".into() } else { there.join(", ") })
        }
    }
}

/// A disk by name and, if it is said, the number of its HBA.
pub(crate) fn find(machine: &Machine, name: &str, hba: Option<u32>) -> anyhow::Result<Option<Backstore>> {
    let mut found: Vec<Backstore> = Backstore::all(&machine.roots)
        .into_iter()
        .filter(|disk| disk.id().name == name && hba.is_none_or(|hba| disk.id().hba == hba))
        .collect();
    if found.len() > 1 {
        let ids: Vec<String> = found.iter().map(|disk| disk.id().to_string()).collect();
        bail!("{name:?} could be {}: say which", ids.join(" or "));
    }
    Ok(found.pop())
}
