//! The daemon exchanged for the program that is on disk now.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How long the next daemon may take to answer.
const WITHIN: Duration = Duration::from_secs(60);

/// Asks for it, and waits until the next daemon answers: another connection to the bus, by the same process.
pub(crate) fn exec() -> anyhow::Result<()> {
    let before = owner()?;
    super::with_daemon(async |daemon| daemon.reload(true).await)?;
    let end = Instant::now() + WITHIN;
    while Instant::now() < end {
        if owner().is_ok_and(|now| now != before) {
            let version = super::with_daemon(async |daemon| daemon.version().await)?;
            outln!("tcmu-runnerd {version} has taken over");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the daemon did not hand over within {} s; its log says why", WITHIN.as_secs())
}

/// Who has the daemon's name on the bus.
fn owner() -> anyhow::Result<String> {
    zbus::block_on(async {
        let bus = zbus::fdo::DBusProxy::new(&zbus::Connection::system().await?).await?;
        Ok(bus.get_name_owner(tcmu_runnerd::dbus::BUS_NAME.try_into()?).await?.to_string())
    })
}
