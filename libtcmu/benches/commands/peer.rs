//! tcmu-runner's libtcmu, as the package `libtcmu2` has it, on the same ring: it fetches each command into memory of its own and completes
//! it, without a look at what it says.
use std::{
    ffi::{c_int, c_void},
    path::Path,
    ptr,
    sync::Arc,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tcmu::{mapping::Mapping, sim::SimKernel};

use crate::{Side, sim};

/// The first fields of libtcmu's `struct tcmu_device` (1.5 and 1.6, 64 bits), which are those that the two functions look at; behind them
/// is room for the rest.
#[repr(C)]
struct Device {
    fd: c_int,
    map: *mut c_void,
    map_len: usize,
    cmd_tail: u32,
    rest: [u64; 1024],
}

/// `tcmulib_get_next_command`
type Next = unsafe extern "C" fn(*mut Device, c_int) -> *mut c_void;
/// `tcmulib_command_complete`
type Complete = unsafe extern "C" fn(*mut Device, *mut c_void, c_int);

struct Libtcmu {
    device: Box<Device>,
    next: Next,
    complete: Complete,
    taken: Vec<*mut c_void>,
    _map: Arc<Mapping>,
}

impl Side for Libtcmu {
    fn turn(&mut self) {
        self.taken.clear();
        let device = ptr::from_mut(&mut *self.device);
        // SAFETY: the device describes a ring that a mapping holds; each command is completed once.
        unsafe {
            loop {
                let command = (self.next)(device, 0);
                if command.is_null() {
                    break;
                }
                self.taken.push(command);
            }
            for command in &self.taken {
                (self.complete)(device, *command, 0);
            }
        }
    }
}

/// Whether the package is there.
pub(crate) fn is_there() -> bool {
    library().is_ok()
}

fn library() -> Result<Library, libloading::Error> {
    // SAFETY: a library without constructors of its own.
    unsafe { Library::open(Some("libtcmu.so.2"), RTLD_NOW | RTLD_LOCAL) }
}

/// Both sides.
pub(crate) fn libtcmu(_: &Path, batch: usize) -> (SimKernel, Box<dyn Side>) {
    let (kernel, map, _) = sim(batch);
    let library = library().expect("libtcmu2");
    // SAFETY: the functions have these types since libtcmu 1.3.
    let (next, complete) = unsafe {
        let next = *library.get::<Next>(b"tcmulib_get_next_command").expect("libtcmu's function");
        (next, *library.get::<Complete>(b"tcmulib_command_complete").expect("libtcmu's function"))
    };
    std::mem::forget(library);
    let start = map.at(0, map.len() as u64).expect("the whole mapping").as_ptr().cast();
    let device = Box::new(Device { fd: -1, map: start, map_len: map.len(), cmd_tail: 0, rest: [0; 1024] });
    (kernel, Box::new(Libtcmu { device, next, complete, taken: Vec::with_capacity(batch), _map: map }))
}
