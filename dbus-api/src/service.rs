//! `org.kernel.TCMUService1`, as tcmu-runner's clients know it.
//!
//! Each handler is an object `/org/kernel/TCMUService1/<subtype>`. The standard's `ObjectManager` at [`PATH`] lists them, and nothing
//! else ([`zbus::fdo::ObjectManagerProxy`]).
use zbus::proxy;

/// Where the handlers are.
pub const PATH: &str = "/org/kernel/TCMUService1";
/// A handler's interface.
pub const INTERFACE: &str = "org.kernel.TCMUService1";
/// Where programs register themselves.
pub const MANAGER_PATH: &str = "/org/kernel/TCMUService1/HandlerManager1";
/// The interface for that; the names of such programs begin with it.
pub const MANAGER_INTERFACE: &str = "org.kernel.TCMUService1.HandlerManager1";

/// The bus name that a program must own to serve a subtype.
pub fn program_name(subtype: &str) -> String {
    format!("{MANAGER_INTERFACE}.{subtype}")
}

/// Where such a program has an object with `CheckConfig`.
pub fn program_path(subtype: &str) -> String {
    format!("{MANAGER_PATH}/{subtype}")
}

/// A handler.
#[proxy(interface = "org.kernel.TCMUService1", default_service = "org.kernel.TCMUService1", assume_defaults = false)]
pub trait Handler {
    /// What config strings look like.
    #[zbus(property(emits_changed_signal = "const"))]
    fn config_desc(&self) -> zbus::Result<String>;

    /// Judges a config string, `<subtype>/` included: whether it is right, and why not.
    fn check_config(&self, cfgstring: &str) -> zbus::Result<(bool, String)>;

    /// Exchanges the medium of a removable disk: its name, the new size in bytes and the new config string, `<subtype>/` included. Nothing
    /// behind that takes the medium out. 0, or a negative `errno` and why.
    fn change_medium(&self, name: &str, size: u64, config: &str) -> zbus::Result<(i32, String)>;
}

/// For programs that serve a subtype themselves.
#[proxy(
    interface = "org.kernel.TCMUService1.HandlerManager1",
    default_service = "org.kernel.TCMUService1",
    default_path = "/org/kernel/TCMUService1/HandlerManager1"
)]
pub trait HandlerManager {
    /// Registers the caller, which must own [`program_name`], for as long as it does: whether that was done, and why not.
    fn register_handler(&self, subtype: &str, cfgstr_desc: &str) -> zbus::Result<(bool, String)>;
}
