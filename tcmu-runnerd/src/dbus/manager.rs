//! `org.kernel.TCMUService1.HandlerManager1`: programs that serve a subtype themselves. Each owns a name on the bus that ends in its subtype,
//! and is a handler for as long as it does.
use futures_channel::oneshot;
use futures_lite::StreamExt;
use tcmu_dbus::service::{MANAGER_INTERFACE, MANAGER_PATH, program_name};
use zbus::{
    Connection, MatchRule, MessageStream,
    connection::Builder,
    fdo::DBusProxy,
    interface,
    message::{Header, Type},
    names::{BusName, OwnedUniqueName, UniqueName},
};

use super::{
    Question, Registration, Supervisor,
    service::{self, Handler},
};
use crate::supervisor::Happening;

/// Most bytes of a description of config strings.
const LONGEST_DESCRIPTION: usize = 16 << 10;
/// Longest subtype: with the rest of the name it has to fit into what the bus allows.
const LONGEST_SUBTYPE: usize = 64;

pub(super) fn serve<'a>(builder: Builder<'a>, supervisor: &Supervisor) -> zbus::Result<Builder<'a>> {
    builder.serve_at(MANAGER_PATH, HandlerManager(supervisor.clone()))
}

struct HandlerManager(Supervisor);

#[interface(name = "org.kernel.TCMUService1.HandlerManager1")]
impl HandlerManager {
    /// Registers the caller as the handler of a subtype. It owns the name `org.kernel.TCMUService1.HandlerManager1.<subtype>`, and has an
    /// object `/org/kernel/TCMUService1/HandlerManager1/<subtype>` with `CheckConfig`.
    #[zbus(out_args("succeeded", "message"))]
    async fn register_handler(
        &self,
        subtype: &str,
        cfgstr_desc: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> (bool, String) {
        match register(connection, &self.0, header.sender(), subtype, cfgstr_desc).await {
            Ok(()) => (true, "succeeded".into()),
            Err(reason) => (false, reason),
        }
    }
}

async fn register(
    connection: &Connection,
    supervisor: &Supervisor,
    sender: Option<&UniqueName<'_>>,
    subtype: &str,
    description: &str,
) -> Result<(), String> {
    check(subtype, description)?;
    let bus = DBusProxy::new(connection).await.map_err(|error| error.to_string())?;
    let name = program_name(subtype);
    let owner = owner_of(&bus, &name).await.ok_or_else(|| format!("nobody owns the bus name {name}"))?;
    if sender.is_none_or(|sender| sender.as_str() != owner.as_str()) {
        return Err(format!("the caller does not own the bus name {name}"));
    }
    let program = Registration {
        subtype: subtype.to_owned(),
        config_desc: Some(description.to_owned()),
        owner: owner.to_string(),
        pid: pid_of(&bus, &owner).await,
    };
    supervisor.ask(|reply| Question::Register { program, reply }).await.map_err(|error| error.to_string())??;
    // It may have registered before, with another description.
    let put = async {
        service::remove(connection, subtype).await?;
        service::add(connection, Handler::of_program(supervisor, subtype, description, &owner)).await
    };
    put.await.map_err(|error| error.to_string())?;
    // Its end may have been seen before all of this was done.
    if owner_of(&bus, &name).await.is_none_or(|now| now != owner) {
        gone(connection, supervisor, subtype, &owner).await;
        return Err(format!("the program does not own the bus name {name} any more"));
    }
    Ok(())
}

/// Whether that can be a subtype and its description.
fn check(subtype: &str, description: &str) -> Result<(), String> {
    let right = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if subtype.is_empty()
        || subtype.len() > LONGEST_SUBTYPE
        || !subtype.chars().all(right)
        || subtype.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!(
            "the subtype {subtype:?} cannot be a name: letters, digits and _ are needed, at most {LONGEST_SUBTYPE}, and no digit first"
        ));
    }
    if subtype == "HandlerManager1" {
        return Err(format!("the subtype {subtype:?} is the name of something else"));
    }
    if description.len() > LONGEST_DESCRIPTION {
        return Err(format!("a description has at most {LONGEST_DESCRIPTION} bytes, this one has {}", description.len()));
    }
    Ok(())
}

async fn owner_of(bus: &DBusProxy<'_>, name: &str) -> Option<OwnedUniqueName> {
    bus.get_name_owner(BusName::try_from(name).ok()?).await.ok()
}

async fn pid_of(bus: &DBusProxy<'_>, owner: &OwnedUniqueName) -> u32 {
    bus.get_connection_unix_process_id(BusName::Unique(owner.as_ref())).await.unwrap_or(0)
}

/// The changes of programs' names from now on.
pub(super) async fn watch(connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")?
        .interface("org.freedesktop.DBus")?
        .member("NameOwnerChanged")?
        .arg0ns(MANAGER_INTERFACE)?
        .build();
    MessageStream::for_match_rule(rule, connection, None).await
}

/// Programs that are there already: their devices are left to them before they come round to register with this daemon. Nothing is waited
/// for, since the supervisor may wait for the bus.
pub(super) async fn find(connection: &Connection, supervisor: &Supervisor) -> zbus::Result<()> {
    let bus = DBusProxy::new(connection).await?;
    for name in bus.list_names().await? {
        let Some(subtype) = subtype_of(name.as_str()) else { continue };
        let Some(owner) = owner_of(&bus, name.as_str()).await else { continue };
        let pid = pid_of(&bus, &owner).await;
        let program = Registration { subtype: subtype.to_owned(), config_desc: None, owner: owner.to_string(), pid };
        let (reply, _) = oneshot::channel();
        let _ = supervisor.0.send(Happening::Bus(Question::Register { program, reply }));
    }
    Ok(())
}

/// Takes note of programs that end, for ever.
pub(super) async fn follow(connection: &Connection, supervisor: &Supervisor, mut names: MessageStream) {
    while let Some(message) = names.next().await {
        let Ok(message) = message else { continue };
        let Ok((name, old, _)) = message.body().deserialize::<(String, String, String)>() else { continue };
        if let (Some(subtype), false) = (subtype_of(&name), old.is_empty()) {
            gone(connection, supervisor, subtype, &old).await;
        }
    }
    // The connection's end is for others to notice.
    std::future::pending::<()>().await;
}

fn subtype_of(name: &str) -> Option<&str> {
    let subtype = name.strip_prefix(MANAGER_INTERFACE)?.strip_prefix('.')?;
    check(subtype, "").is_ok().then_some(subtype)
}

async fn gone(connection: &Connection, supervisor: &Supervisor, subtype: &str, owner: &str) {
    let (subtype, owner) = (subtype.to_owned(), owner.to_owned());
    let of = subtype.clone();
    if supervisor.ask(|reply| Question::Unregister { subtype, owner, reply }).await.unwrap_or(false)
        && let Err(error) = service::remove(connection, &of).await
    {
        tracing::warn!("D-Bus: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtypes_are_names() {
        for right in ["foo", "_1", "Foo_2"] {
            assert_eq!(check(right, "d"), Ok(()), "{right}");
        }
        for wrong in ["", "1a", "a-b", "a.b", "a/b", "ä", "HandlerManager1", &"x".repeat(65)] {
            assert!(check(wrong, "").is_err(), "{wrong}");
        }
        assert!(check("a", &"x".repeat(16 << 10)).is_ok());
        assert!(check("a", &"x".repeat((16 << 10) + 1)).is_err());
        assert_eq!(subtype_of("org.kernel.TCMUService1.HandlerManager1.foo"), Some("foo"));
        for other in [
            "org.kernel.TCMUService1.HandlerManager1",
            "org.kernel.TCMUService1.HandlerManager1.foo.bar",
            "org.kernel.TCMUService1",
        ] {
            assert_eq!(subtype_of(other), None, "{other}");
        }
    }
}
