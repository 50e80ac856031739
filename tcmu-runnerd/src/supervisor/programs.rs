//! Programs that serve a subtype themselves, and are registered on the bus.
use std::collections::BTreeMap;

use super::{Supervisor, machine::Input};
use crate::dbus::{Field, Registration, Row};

/// By subtype.
pub(super) type Programs = BTreeMap<String, Registration>;

impl Supervisor {
    /// Leaves a subtype to a program, unless it is taken.
    pub(super) fn register(&mut self, program: Registration) -> Result<(), String> {
        let subtype = program.subtype.clone();
        let mut hosts = self.hosts.values().filter(|host| host.unloadable.is_none());
        if let Some(host) = hosts.find(|host| host.subtype() == subtype) {
            return Err(format!("the subtype {subtype:?} is taken by the plugin {}", host.plugin.display()));
        }
        if let Some(other) = self.programs.get(&subtype).filter(|other| other.owner != program.owner) {
            return Err(format!("the subtype {subtype:?} is taken by the program {}", other.pid));
        }
        // Of one that only owns its name nothing is shown yet.
        let pid = program.pid;
        match &program.config_desc {
            Some(_) => tracing::info!(handler = subtype, pid, "served by a program that registered itself"),
            None => tracing::info!(handler = subtype, pid, "left to the program that owns its name on the bus"),
        }
        self.machine.add_program(&subtype);
        self.programs.insert(subtype, program);
        Ok(())
    }

    /// A program is gone from the bus. Whether it was registered.
    pub(super) fn unregister(&mut self, subtype: &str, owner: &str) -> bool {
        if self.programs.get(subtype).is_none_or(|program| program.owner != owner) {
            return false;
        }
        let Some(program) = self.programs.remove(subtype) else { return false };
        tracing::info!(handler = subtype, pid = program.pid, "the program that served it is gone from the bus");
        self.input(Input::ProgramGone { subtype: subtype.to_owned() });
        true
    }

    /// The bus is gone, and the programs' names with it.
    pub(super) fn unregister_all(&mut self) {
        for (subtype, program) in self.programs.clone() {
            self.unregister(&subtype, &program.owner);
        }
    }
}

pub(super) fn program_row(program: &Registration) -> Row {
    let description = program.config_desc.clone();
    let state = if description.is_some() { "running" } else { "owns its name, but did not register" };
    vec![
        ("subtype".into(), Field::Text(program.subtype.clone())),
        ("config_desc".into(), Field::Text(description.unwrap_or_default())),
        ("external".into(), Field::Flag(true)),
        ("running".into(), Field::Flag(state == "running")),
        ("state".into(), Field::Text(state.into())),
        ("pid".into(), Field::Number(u64::from(program.pid))),
    ]
}
