//! D-Bus: the bus, its policy, and who owns the name.
use std::{fs, path::PathBuf};

use tcmu_runnerd::dbus::BUS_NAME;

use super::{Finding, Places};

/// Looks at all of it.
pub(super) fn look(places: &Places<'_>) -> Vec<Finding> {
    let mut found = policy(places);
    found.extend(owner(places));
    found
}

/// The policies that speak of our name: one must let root own it, and none may let everybody in.
pub(super) fn policy(places: &Places<'_>) -> Vec<Finding> {
    let about = "D-Bus policy";
    let dirs = [places.machine.etc.join("dbus-1/system.d"), places.usr.join("share/dbus-1/system.d")];
    let files: Vec<(PathBuf, String)> = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text)))
        .filter(|(_, text)| text.contains(BUS_NAME))
        .collect();
    if files.is_empty() {
        return vec![Finding::wrong(
            about,
            format!("no policy lets root own {BUS_NAME}: targetcli and tcmuctl cannot reach the daemon"),
            format!(
                "install dist/dbus/tcmu-runnerd.conf in {}, then: busctl call org.freedesktop.DBus /org/freedesktop/DBus \
                 org.freedesktop.DBus ReloadConfig",
                dirs[0].display()
            ),
        )];
    }
    let open: Vec<Finding> = files
        .iter()
        .filter(|(_, text)| lets_everybody_in(text))
        .map(|(path, _)| {
            let what = format!("{} lets every user call the daemon, which looks at files with root's rights", path.display());
            Finding::wrong(about, what, format!("rm {}", path.display()))
        })
        .collect();
    if open.is_empty() { vec![Finding::fine(about, format!("{} is installed", files[0].0.display()))] } else { open }
}

/// Whether a policy's default part allows something with our name.
fn lets_everybody_in(text: &str) -> bool {
    let quoted = text.replace('\'', "\"");
    quoted.split("<policy ").skip(1).filter(|part| part.trim_start().starts_with("context=\"default\"")).any(|part| {
        let body = part.split("</policy>").next().unwrap_or_default();
        body.split("<allow").skip(1).any(|allow| allow.split('>').next().is_some_and(|tag| tag.contains(BUS_NAME)))
    })
}

/// Who has the name.
fn owner(places: &Places<'_>) -> Vec<Finding> {
    let about = "D-Bus";
    let asked = zbus::block_on(async {
        let connection = zbus::Connection::system().await?;
        let bus = zbus::fdo::DBusProxy::new(&connection).await?;
        let name = zbus::names::BusName::try_from(BUS_NAME)?;
        if !bus.name_has_owner(name.clone()).await? {
            return Ok(None);
        }
        zbus::Result::Ok(Some(bus.get_connection_unix_process_id(name).await?))
    });
    match asked {
        Err(error) => vec![Finding::wrong(about, format!("the system bus cannot be reached: {error}"), "systemctl start dbus")],
        Ok(None) => vec![Finding::wrong(about, format!("nobody owns {BUS_NAME}"), "systemctl restart tcmu-runnerd")],
        Ok(Some(pid)) => {
            let comm = fs::read_to_string(places.machine.proc.join(pid.to_string()).join("comm")).unwrap_or_default();
            if comm.trim() == "tcmu-runner" {
                let mend = "systemctl disable --now tcmu-runner && systemctl restart tcmu-runnerd";
                vec![Finding::wrong(about, format!("tcmu-runner (pid {pid}) owns {BUS_NAME}"), mend)]
            } else {
                vec![Finding::fine(about, format!("{} (pid {pid}) owns {BUS_NAME}", comm.trim()))]
            }
        }
    }
}
