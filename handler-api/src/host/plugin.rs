//! Loading a plugin and judging its table.
use std::{
    ffi::{CStr, CString, c_char},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::{
    abi,
    host::{Events, OpenDevice, OpenSpec, device::Text},
    plugin::{Refusal, Threads},
};

/// Why a shared object is no handler for this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The dynamic linker refused it.
    #[error("{}: cannot be loaded: {reason}", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// The linker's words.
        reason: String,
    },
    /// It has no entry symbol.
    #[error("{}: is no handler: it does not export `tcmu_handler_entry`{}", path.display(), hint)]
    NoEntry {
        /// The file.
        path: PathBuf,
        /// What it seems to be instead.
        hint: &'static str,
    },
    /// The table is for another version of the ABI.
    #[error(
        "{what}: was built for version {plugin} of the handler ABI, this host speaks version {host}: rebuild the plugin for it"
    )]
    Abi {
        /// The file or subtype.
        what: String,
        /// The plugin's version.
        plugin: u32,
        /// Ours.
        host: u32,
    },
    /// The table has something missing or wrong in it.
    #[error("{what}: broken handler table: {fault}")]
    Table {
        /// The file or subtype.
        what: String,
        /// What is wrong.
        fault: String,
    },
    /// `init` refused.
    #[error("{what}: refused to start: {reason}")]
    Init {
        /// The file or subtype.
        what: String,
        /// The handler's words.
        reason: Refusal,
    },
}

/// Whether a string can be a handler's subtype: 1 to 64 of `A-Z a-z 0-9 _` (it becomes a D-Bus object path element).
pub fn is_subtype(subtype: &str) -> bool {
    (1..=64).contains(&subtype.len()) && subtype.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Most bytes of a table's `name` and `version`.
const LONGEST_NAME: usize = 256;
/// Most bytes of a table's `config_desc` and `needs`.
const LONGEST_TEXT: usize = 4096;

/// A handler, loaded and initialised. Never unloaded: a plugin's threads and thread-local destructors may outlive its devices.
#[derive(Clone, Copy)]
pub struct Plugin {
    table: &'static abi::tcmu_handler,
    subtype: &'static str,
    name: &'static str,
    version: &'static str,
    config_desc: &'static str,
    needs: &'static str,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("subtype", &self.subtype).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Loads a shared object, checks its table and initialises it with `host`. Runs code of the plugin.
    pub fn load(path: &Path, host: &'static abi::tcmu_host) -> Result<Plugin, LoadError> {
        Loaded::load(path)?.start(host)
    }

    /// A handler that is linked into this program.
    pub fn linked(table: &'static abi::tcmu_handler, host: &'static abi::tcmu_host) -> Result<Plugin, LoadError> {
        Loaded::linked(table)?.start(host)
    }

    /// What devices are routed by.
    pub fn subtype(&self) -> &'static str {
        self.subtype
    }
    /// The name for people.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The plugin's version.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// What config strings look like.
    pub fn config_desc(&self) -> &'static str {
        self.config_desc
    }

    /// What it asks of the system: [`needs`](abi::tcmu_handler::needs).
    pub fn needs(&self) -> &'static str {
        self.needs
    }

    /// On which threads it is called.
    pub fn threads(&self) -> Threads {
        threads_of(self.table)
    }

    /// How many calls at a time one device can use; 0: the host decides.
    pub fn concurrency(&self) -> u32 {
        self.table.concurrency
    }

    /// The table, normalised to this host's size.
    pub fn table(&self) -> &'static abi::tcmu_handler {
        self.table
    }

    /// Judges a config string (the part behind `<subtype>/`). May block.
    pub fn check_config(&self, config: &str) -> Result<(), Refusal> {
        let config = c_string(config)?;
        let Some(check_config) = self.table.check_config else { return Ok(()) };
        let mut error = Text::new();
        // SAFETY: a string and a text buffer that live during the call.
        let status = unsafe { check_config(config.as_ptr(), error.raw()) };
        error.check(status)
    }

    /// Opens a device. May block.
    pub fn open(&self, spec: OpenSpec<'_>, events: Arc<dyn Events>) -> Result<OpenDevice, Refusal> {
        OpenDevice::open(self.table, spec, events)
    }
}

/// A handler whose table was read and found sound, and which was not called yet: what it needs is known before it does anything.
#[derive(Clone, Debug)]
pub struct Loaded {
    what: String,
    plugin: Plugin,
}

impl Loaded {
    /// Loads a shared object and checks its table. Of the plugin, what the dynamic linker calls is run, and `tcmu_handler_entry`.
    pub fn load(path: &Path) -> Result<Loaded, LoadError> {
        // `dlopen` searches the library path for names without a slash: not what a file name means here.
        let file = if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_owned() };
        // SAFETY: whoever loads a plugin trusts its constructors; that is what loading it means.
        let library = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| LoadError::Link { path: path.to_owned(), reason: chain(&error) })?;
        // SAFETY: the symbol's type is fixed by the ABI.
        let entry = unsafe { library.get::<abi::tcmu_handler_entry_fn>(abi::TCMU_HANDLER_ENTRY.to_bytes_with_nul()) }.map(|s| *s);
        let Ok(entry) = entry else {
            // SAFETY: only the presence of the symbol is asked for.
            let tcmur = unsafe { library.get::<*const ()>(b"handler_init\0") }.is_ok();
            let hint =
                if tcmur { " (it looks like a plugin of tcmu-runner, which must be rebuilt against tcmu_handler.h)" } else { "" };
            return Err(LoadError::NoEntry { path: path.to_owned(), hint });
        };
        std::mem::forget(library);
        // SAFETY: the ABI's entry function.
        let table = unsafe { entry() };
        // SAFETY: null or a table that lives for ever (ABI).
        unsafe { Loaded::from_raw(&path.display().to_string(), table) }
    }

    /// A handler that is linked into this program.
    pub fn linked(table: &'static abi::tcmu_handler) -> Result<Loaded, LoadError> {
        // SAFETY: a reference to a table.
        unsafe { Loaded::from_raw("linked-in handler", table) }
    }

    /// # Safety
    /// `raw` is null or points to a table as `tcmu_handler_entry` returns it.
    unsafe fn from_raw(what: &str, raw: *const abi::tcmu_handler) -> Result<Loaded, LoadError> {
        let fault = |fault: String| LoadError::Table { what: what.to_owned(), fault };
        if raw.is_null() {
            return Err(fault("`tcmu_handler_entry` returned a null pointer".into()));
        }
        // SAFETY: these two fields are the ABI's fixed beginning.
        let (version, size) = unsafe { ((*raw).abi, (*raw).struct_size as usize) };
        if version != abi::TCMU_HANDLER_ABI {
            return Err(LoadError::Abi { what: what.to_owned(), plugin: version, host: abi::TCMU_HANDLER_ABI });
        }
        let required = std::mem::offset_of!(abi::tcmu_handler, cancel);
        if size < required {
            return Err(fault(format!("struct_size is {size}, at least {required} are needed")));
        }
        // SAFETY: all-zero is a valid table: null pointers and absent functions.
        let mut table: abi::tcmu_handler = unsafe { std::mem::zeroed() };
        // Whole fields only: after the required part all are pointers.
        let known = size.min(size_of::<abi::tcmu_handler>()) / size_of::<usize>() * size_of::<usize>();
        // SAFETY: `known` bytes are within both tables.
        unsafe { (&raw mut table).cast::<u8>().copy_from_nonoverlapping(raw.cast(), known) };
        let table: &'static abi::tcmu_handler = Box::leak(Box::new(table));

        let text = |field: &str, pointer: *const c_char, longest: usize| {
            // SAFETY: strings of a table live for ever.
            let text = unsafe { static_text(pointer) }.ok_or_else(|| fault(format!("{field} is no UTF-8 string")))?;
            if text.len() > longest {
                return Err(fault(format!("{field} has {} bytes, at most {longest} are allowed", text.len())));
            }
            Ok(text)
        };
        let subtype = text("subtype", table.subtype, LONGEST_NAME)?;
        if !is_subtype(subtype) {
            return Err(fault(format!("subtype {subtype:?} is not 1 to 64 of A-Z a-z 0-9 _")));
        }
        if table.threads > abi::TCMU_THREADS_SERIAL {
            return Err(fault(format!("threads is {}, which this host does not know", table.threads)));
        }
        for (field, missing) in
            [("open", table.open.is_none()), ("close", table.close.is_none()), ("submit", table.submit.is_none())]
        {
            if missing {
                return Err(fault(format!("the required function `{field}` is null")));
            }
        }
        let plugin = Plugin {
            table,
            subtype,
            name: text("name", table.name, LONGEST_NAME)?,
            version: text("version", table.version, LONGEST_NAME)?,
            config_desc: text("config_desc", table.config_desc, LONGEST_TEXT)?,
            needs: if table.needs.is_null() { "" } else { text("needs", table.needs, LONGEST_TEXT)? },
        };
        Ok(Loaded { what: what.to_owned(), plugin })
    }

    /// What devices will be routed by.
    pub fn subtype(&self) -> &'static str {
        self.plugin.subtype
    }

    /// What the handler asks of the system: [`needs`](abi::tcmu_handler::needs).
    pub fn needs(&self) -> &'static str {
        self.plugin.needs
    }

    /// Calls the handler's `init` with `host`. May block.
    pub fn start(self, host: &'static abi::tcmu_host) -> Result<Plugin, LoadError> {
        if let Some(init) = self.plugin.table.init {
            let mut error = Text::new();
            // SAFETY: a valid host table that lives for ever, and a valid text buffer.
            let status = unsafe { init(host, error.raw()) };
            error.check(status).map_err(|reason| LoadError::Init { what: self.what, reason })?;
        }
        Ok(self.plugin)
    }
}

pub(super) fn threads_of(table: &abi::tcmu_handler) -> Threads {
    match table.threads {
        abi::TCMU_THREADS_INLINE => Threads::Inline,
        abi::TCMU_THREADS_POOL => Threads::Pool,
        _ => Threads::Serial,
    }
}

pub(super) fn c_string(text: &str) -> Result<CString, Refusal> {
    CString::new(text).map_err(|_| Refusal::invalid("there is a NUL byte in the config string"))
}

/// # Safety
/// `pointer` is null or a string that lives for ever.
unsafe fn static_text(pointer: *const c_char) -> Option<&'static str> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok()
}

/// An error with all its sources: libloading keeps the linker's words in the source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
