//! The C ABI between a host (the daemon, the test bench, an embedding program, a filter) and a handler plugin, version 1.
//!
//! This is the only file that defines it; `include/tcmu_handler.h` is generated from it and a test fails when the two differ.
//!
//! # In one page
//!
//! A plugin is a shared object that exports one symbol, [`tcmu_handler_entry`](tcmu_handler_entry_fn). It returns a static
//! [`tcmu_handler`]: facts and functions. The host calls `init` once and hands over a [`tcmu_host`]: the services the other way.
//! `open` makes a *device*, an opaque pointer of the plugin, from a config string, and tells in a [`tcmu_device_info`] what that
//! device is and can do. The host then *submits* batches of [`tcmu_request`]s. Each request is completed **exactly once** by a call of
//! its own `complete` pointer: inside `submit` or later, from any thread.
//!
//! ```text
//! tcmu_handler_entry ─ init ─┬─ check_config*
//!                            └─ open ─┬─ submit* (→ complete*, cancel*)
//!                                     ├─ reconfigure* / lock* / unlock* / lock_state*
//!                                     └─ close
//! ```
//!
//! # Rules that hold everywhere
//!
//! * **Versions.** [`TCMU_HANDLER_ABI`] changes only when an old plugin could not run any more. Everything else is appended: each
//!   struct that may grow starts with its own `struct_size`, and whoever receives a struct touches a field only if `struct_size`
//!   covers it. A host takes a shorter [`tcmu_handler`] and treats the missing functions as absent; a plugin that needs a service
//!   which the [`tcmu_host`] is too short for refuses in `init` and says so. [`tcmu_request`] and [`tcmu_io`] carry no size of their
//!   own (they are on the fast path): their sizes stand in the [`tcmu_host`].
//! * **Memory.** Whoever allocates, frees. Strings the host passes are valid during the call only; strings in a [`tcmu_handler`] and
//!   the table itself live for ever (a plugin is never unloaded). All strings are NUL-terminated UTF-8.
//! * **Errors.** Functions return 0 or a negative `errno`. Where a [`tcmu_text`] is passed, the plugin writes one line there: what is
//!   wrong, where, what would be right.
//! * **Threads.** `init`, `check_config`, `open`, `close`, `reconfigure`, `lock`, `unlock`, `lock_state` and `describe` are *control calls*: they
//!   may block, they never run on a thread that serves I/O, and for one device they come one after the other (`check_config` and
//!   `open` of different devices may run at the same time). Control calls and I/O overlap, except that no request is outstanding
//!   during `open` and `close`. `submit` runs as [`tcmu_handler::threads`] says.
//! * **Unwinding** must not leave a plugin. A host may `abort` when it does.
#![allow(non_camel_case_types)]

use core::ffi::{c_char, c_void};

use libc::iovec;

/// The version of this ABI. A host refuses a plugin with another one, and names both.
pub const TCMU_HANDLER_ABI: u32 = 1;

/// Size in bytes of the sense buffer behind [`tcmu_request::sense`].
pub const TCMU_SENSE_SIZE: u32 = 96;

// ---- operations ------------------------------------------------------------------------------------------------------------------

/// Read `length` bytes at `offset` into `iov`.
pub const TCMU_OP_READ: u32 = 1;
/// Write `length` bytes at `offset` from `iov`. With [`TCMU_REQ_FUA`]: complete only when they are on stable storage.
pub const TCMU_OP_WRITE: u32 = 2;
/// Bring every write that was completed before this request was submitted to stable storage.
pub const TCMU_OP_FLUSH: u32 = 3;
/// Deallocate `length` bytes at `offset`. Afterwards they read as zeros if [`TCMU_DEV_UNMAP_ZEROES`] is set, else as anything stable.
pub const TCMU_OP_UNMAP: u32 = 4;
/// Make `length` bytes at `offset` read as zeros. With [`TCMU_REQ_MAY_UNMAP`] by deallocation, if that gives zeros.
pub const TCMU_OP_WRITE_ZEROES: u32 = 5;
/// Write the pattern in `iov` (one logical block) over and over to `length` bytes at `offset`.
pub const TCMU_OP_WRITE_SAME: u32 = 6;
/// Compare the first `length` bytes of `iov` with those at `offset`; if equal write the second `length` bytes of `iov` there, with no
/// other write in between. If not: [`TCMU_STATUS_MISCOMPARE`], with the offset of the first differing byte in `result`.
pub const TCMU_OP_COMPARE_AND_WRITE: u32 = 7;
/// Copy `length` bytes from `source_offset` to `offset` within the device. The ranges may overlap.
pub const TCMU_OP_COPY: u32 = 8;
/// Fill the array of [`tcmu_extent`] that `iov[0]` holds with what is known of `length` bytes from `offset` on, in order and without
/// gaps; `result` is the number of entries written (at least one).
pub const TCMU_OP_EXTENTS: u32 = 9;
/// `length` bytes at `offset` will be read soon. Completing it at once is right.
pub const TCMU_OP_PREFETCH: u32 = 10;
/// A whole SCSI command: `cdb`, data in `iov`, Data-In of a bidirectional command in `bidi_iov`. `result` holds the size of the data
/// buffer; set it to the number of Data-In bytes that are valid. Completed with a status, [`TCMU_STATUS_SENSE`], a SCSI status byte
/// by [`TCMU_STATUS_SCSI`], or [`TCMU_STATUS_NOT_HANDLED`] to leave this command to the host's own SCSI engine.
pub const TCMU_OP_SCSI: u32 = 11;

/// Request flag: complete only when the data is on stable storage.
pub const TCMU_REQ_FUA: u32 = 1 << 0;
/// Request flag: the data is unlikely to be used again soon (DPO).
pub const TCMU_REQ_DPO: u32 = 1 << 1;
/// Request flag: a [`TCMU_OP_WRITE_ZEROES`] may deallocate.
pub const TCMU_REQ_MAY_UNMAP: u32 = 1 << 2;
/// Request flag: all of it or nothing survives a crash. Only sent to a device that announces `max_atomic`.
pub const TCMU_REQ_ATOMIC: u32 = 1 << 3;

// ---- status ----------------------------------------------------------------------------------------------------------------------

/// Done. A negative `errno` is a failure, which the host turns into sense data by the kind of operation: `ENOSPC`, `EDQUOT`, `EFBIG` space
/// allocation failed; `EROFS`, and of what changes something `EPERM` and `EACCES`, write protected; `EIO`, `ENODATA`, `EILSEQ`, `EUCLEAN`,
/// `EBADMSG` unrecovered read or write error; `ENOMEDIUM` medium not present; `EBADE` reservation conflict; `EINVAL` invalid field;
/// `EOPNOTSUPP` invalid opcode; `ENOMEM`, `EAGAIN`, `EBUSY`, `ETIMEDOUT` busy, the initiator tries again; all others internal target
/// failure.
pub const TCMU_STATUS_OK: i32 = 0;
/// Try again later (SAM-5 BUSY).
pub const TCMU_STATUS_BUSY: i32 = 1;
/// Too many commands (SAM-5 TASK SET FULL).
pub const TCMU_STATUS_TASK_SET_FULL: i32 = 2;
/// The data differ; `result` is the offset of the first differing byte from the start of the compared range.
pub const TCMU_STATUS_MISCOMPARE: i32 = 3;
/// CHECK CONDITION with the sense data that the handler wrote to `sense`, `sense_length` bytes of it.
pub const TCMU_STATUS_SENSE: i32 = 4;
/// Only for [`TCMU_OP_SCSI`]: the host's SCSI engine shall answer; nothing was done.
pub const TCMU_STATUS_NOT_HANDLED: i32 = 5;
/// The exclusive lock is held by another node: this port is in standby.
pub const TCMU_STATUS_FENCED: i32 = 6;
/// The exclusive lock is on its way: asymmetric access state transition.
pub const TCMU_STATUS_TRANSITION: i32 = 7;
/// The request was cancelled before it had any effect.
pub const TCMU_STATUS_ABORTED: i32 = 8;
/// Add a SCSI status byte (SAM-5 5.3.1) to complete a [`TCMU_OP_SCSI`] with exactly that.
pub const TCMU_STATUS_SCSI: i32 = 0x100;

// ---- threads ---------------------------------------------------------------------------------------------------------------------

/// `submit` never blocks. It runs on the thread that serves the device's ring, one call at a time.
pub const TCMU_THREADS_INLINE: u32 = 0;
/// `submit` may block. It runs on pool threads, several at the same time for one device, with one request each.
pub const TCMU_THREADS_POOL: u32 = 1;
/// `submit` may block. It runs on a pool thread, never two calls at a time for one device, requests in the order of the ring.
pub const TCMU_THREADS_SERIAL: u32 = 2;

// ---- device --------------------------------------------------------------------------------------------------------------------

/// The device can't be written.
pub const TCMU_DEV_READ_ONLY: u32 = 1 << 0;
/// A completed write may be lost in a crash until a flush.
pub const TCMU_DEV_WRITE_CACHE: u32 = 1 << 1;
/// [`TCMU_REQ_FUA`] is honoured by the handler. Without it the host flushes after such a write.
pub const TCMU_DEV_FUA: u32 = 1 << 2;
/// Deallocated bytes read as zeros.
pub const TCMU_DEV_UNMAP_ZEROES: u32 = 1 << 3;
/// The device is thinly provisioned.
pub const TCMU_DEV_THIN: u32 = 1 << 4;
/// The medium can be removed or changed.
pub const TCMU_DEV_REMOVABLE: u32 = 1 << 5;
/// The medium is absent at the moment.
pub const TCMU_DEV_NO_MEDIUM: u32 = 1 << 6;
/// The device wants the lock calls around access (ALUA with an exclusive lock).
pub const TCMU_DEV_LOCKED_ACCESS: u32 = 1 << 7;
/// Every CDB goes to the handler first, as [`TCMU_OP_SCSI`].
pub const TCMU_DEV_SCSI: u32 = 1 << 8;

/// Known to hold data.
pub const TCMU_EXTENT_MAPPED: u32 = 0;
/// Known to be deallocated.
pub const TCMU_EXTENT_DEALLOCATED: u32 = 1;
/// Anchored: space is reserved, no data is stored.
pub const TCMU_EXTENT_ANCHORED: u32 = 2;

/// What changes: a new config string in [`tcmu_change::config`].
pub const TCMU_CHANGE_CONFIG: u32 = 1;
/// What changes: the size, [`tcmu_change::value`] bytes.
pub const TCMU_CHANGE_SIZE: u32 = 2;
/// What changes: the volatile write cache, [`tcmu_change::value`] 0 or 1.
pub const TCMU_CHANGE_WRITE_CACHE: u32 = 3;
/// What changes: the medium; `config` and `value` (bytes) describe the new one, an empty `config` means none. No request is outstanding, and
/// none comes before the call returns.
pub const TCMU_CHANGE_MEDIUM: u32 = 4;

/// [`tcmu_open::flags`]: the device existed before; an earlier process served it.
pub const TCMU_OPEN_TAKE_OVER: u32 = 1 << 0;

/// The capacity became `value` bytes.
pub const TCMU_EVENT_SIZE: u32 = 1;
/// The exclusive lock was lost to another node.
pub const TCMU_EVENT_LOCK_LOST: u32 = 2;
/// The backing store can't be reached (`value` 0) or can be reached again (`value` 1).
pub const TCMU_EVENT_CONNECTION: u32 = 3;
/// The medium was changed or removed by the handler's own doing.
pub const TCMU_EVENT_MEDIUM: u32 = 4;

/// The device is locked by nobody.
pub const TCMU_LOCK_FREE: i32 = 0;
/// This process holds the lock.
pub const TCMU_LOCK_OWN: i32 = 1;
/// Another node holds the lock.
pub const TCMU_LOCK_OTHER: i32 = 2;

/// Severity for [`tcmu_host::log`].
pub const TCMU_LOG_ERROR: u32 = 1;
/// Severity for [`tcmu_host::log`].
pub const TCMU_LOG_WARN: u32 = 2;
/// Severity for [`tcmu_host::log`].
pub const TCMU_LOG_INFO: u32 = 3;
/// Severity for [`tcmu_host::log`].
pub const TCMU_LOG_DEBUG: u32 = 4;
/// Severity for [`tcmu_host::log`].
pub const TCMU_LOG_TRACE: u32 = 5;

/// Read `length` bytes at `offset` of the descriptor. The end of the file before `length` is an `EIO`.
pub const TCMU_IO_READ: u32 = 1;
/// Write `length` bytes at `offset` of the descriptor.
pub const TCMU_IO_WRITE: u32 = 2;
/// `fdatasync` the descriptor. When it fails, the kernel may have forgotten data that was written before: every later one for the device
/// fails too, until the device is opened again. The kernel tells each open of a file once: a write with [`TCMU_IO_FLAG_DSYNC`] on the same
/// descriptor may be told in place of this, so give this one an open of its own.
pub const TCMU_IO_DATASYNC: u32 = 3;
/// Punch a hole of `length` bytes at `offset`, keeping the size.
pub const TCMU_IO_PUNCH_HOLE: u32 = 4;
/// Make `length` bytes at `offset` read as zeros, keeping the space.
pub const TCMU_IO_ZERO_RANGE: u32 = 5;
/// Copy `length` bytes from `source_offset` to `offset` of the descriptor, sharing space where the file system can. They may overlap.
pub const TCMU_IO_COPY: u32 = 6;
/// For a [`TCMU_OP_EXTENTS`]: fill its answer with what the file system knows of `length` bytes at `offset` (`SEEK_HOLE`), and set its
/// `result`. The extents are told as if the request's `offset` were at that place.
pub const TCMU_IO_EXTENTS: u32 = 7;

/// [`tcmu_io::flags`]: a write that is on stable storage when it is done (`RWF_DSYNC`).
pub const TCMU_IO_FLAG_DSYNC: u32 = 1 << 0;

/// [`tcmu_io::flags`]: the descriptor has no cache in front of it (`O_DIRECT`), so that every transfer takes its time: the host does not
/// try it on the thread that serves the device.
pub const TCMU_IO_FLAG_UNCACHED: u32 = 1 << 1;

/// A line of text that a plugin returns: at most `capacity` bytes at `data`, the last of them a NUL. The host allocates.
#[repr(C)]
pub struct tcmu_text {
    /// Where to write.
    pub data: *mut c_char,
    /// How many bytes there are, the NUL included; at least 256.
    pub capacity: usize,
}

/// A run of bytes of a device and how it is provisioned (answer of [`TCMU_OP_EXTENTS`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct tcmu_extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// One of `TCMU_EXTENT_*`.
    pub state: u32,
    /// 0.
    pub reserved: u32,
}

/// One thing to do, from [`tcmu_handler::submit`] until its completion. Owned by whoever made it: a handler reads it, writes the
/// fields marked *out*, and touches nothing of it any more once it has called `complete`.
#[repr(C)]
pub struct tcmu_request {
    /// Completes this request with a `TCMU_STATUS_*` or a negative `errno`. Any thread, exactly once, never blocks.
    pub complete: unsafe extern "C" fn(request: *mut tcmu_request, status: i32),
    /// For the maker of the request. A filter copies it to the requests it makes on behalf of this one, so that [`tcmu_host::io`]
    /// finds the right thread.
    pub owner: *mut c_void,
    /// For the handler, from submission to completion. Null at submission.
    pub handler_data: [*mut c_void; 2],
    /// One of `TCMU_OP_*`.
    pub op: u32,
    /// `TCMU_REQ_*`.
    pub flags: u32,
    /// First byte on the device. A multiple of the block size, and `offset + length` is within the device.
    pub offset: u64,
    /// Bytes on the device. A multiple of the block size; 0 only where the operation has no range.
    pub length: u64,
    /// First byte of the source of a [`TCMU_OP_COPY`].
    pub source_offset: u64,
    /// The data: `iov_count` segments, any alignment and length, valid until completion. Never written by the host meanwhile.
    pub iov: *const iovec,
    /// Data-In of a bidirectional SCSI command.
    pub bidi_iov: *const iovec,
    /// Number of segments behind `iov`.
    pub iov_count: u32,
    /// Number of segments behind `bidi_iov`.
    pub bidi_iov_count: u32,
    /// The CDB of a [`TCMU_OP_SCSI`], valid until completion.
    pub cdb: *const u8,
    /// Bytes behind `cdb`.
    pub cdb_length: u32,
    /// *out*: bytes of sense data written to `sense`.
    pub sense_length: u32,
    /// *out*: [`TCMU_SENSE_SIZE`] bytes for sense data (SPC-6 4.4), fixed or descriptor format. Never null.
    pub sense: *mut u8,
    /// *out*: by operation and status, see there.
    pub result: u64,
}

/// An I/O on a file descriptor that the host shall do for a request: [`tcmu_host::io`].
///
/// With `done` null the host copies the struct, does the I/O, and completes the request by its outcome. With `done` set the struct
/// stays the handler's, must live until `done` was called, and a request may have many of them in flight; `done` runs on the thread
/// that serves the device (with [`TCMU_THREADS_INLINE`]) or any other (else), and goes on with the request.
#[repr(C)]
pub struct tcmu_io {
    /// One of `TCMU_IO_*`.
    pub op: u32,
    /// An open descriptor of the handler; stays open until the I/O is done.
    pub fd: i32,
    /// `TCMU_IO_FLAG_*`.
    pub flags: u32,
    /// Number of segments behind `iov`.
    pub iov_count: u32,
    /// The data; null means the request's own `iov`. Valid until the I/O is done.
    pub iov: *const iovec,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// First byte of the source of a [`TCMU_IO_COPY`].
    pub source_offset: u64,
    /// Called with 0 or a negative `errno`. May be null.
    pub done: Option<unsafe extern "C" fn(io: *mut tcmu_io, request: *mut tcmu_request, status: i32)>,
    /// For the handler.
    pub handler_data: *mut c_void,
    /// For the host, from the call of `io` until `done`.
    pub host_data: [*mut c_void; 6],
}

/// What a device is and can do. The host fills it before `open` and `reconfigure` with what the kernel was told; the handler changes
/// what it knows better.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tcmu_device_info {
    /// Bytes of this struct that the host knows.
    pub struct_size: u32,
    /// Logical block size in bytes, a power of two of at least 512.
    pub block_size: u32,
    /// Capacity in bytes. A handler whose backing store is smaller lowers it; the host then serves the smaller size and warns.
    pub size: u64,
    /// Bit `1 << TCMU_OP_x` for each operation that `submit` takes. Preset: READ and WRITE. What is missing the host emulates where
    /// that is correct, and refuses where it is not.
    pub ops: u64,
    /// `TCMU_DEV_*`. Preset: `TCMU_DEV_WRITE_CACHE` as configured.
    pub flags: u32,
    /// Peripheral device type (SPC-6 6.7.2): 0 disk, 1 tape, 5 optical, 20 host-managed zoned.
    pub device_type: u32,
    /// Physical block size in bytes, a power of two; 0: as the logical one.
    pub physical_block_size: u32,
    /// Medium rotation rate (SBC-4 6.6.2): 0 not reported, 1 not rotating. Preset: 1.
    pub rotation_rate: u32,
    /// Longest transfer in bytes; 0: no limit of the handler's.
    pub max_transfer: u32,
    /// Transfer size in bytes that suits the backing store best; 0: unknown.
    pub optimal_transfer: u32,
    /// Granularity in bytes in which deallocation has effect; 0: one block.
    pub unmap_granularity: u32,
    /// Offset in bytes of the first unit of that granularity.
    pub unmap_alignment: u32,
    /// Most bytes that one UNMAP or zeroing request may cover; 0: no limit.
    pub max_unmap: u64,
    /// Longest write in bytes that can be [`TCMU_REQ_ATOMIC`]; 0: none.
    pub max_atomic: u32,
    /// Alignment in bytes that data segments need (`O_DIRECT`); 0 or 1: any. A host that cannot align data refuses anything else when
    /// the device is opened.
    pub buffer_alignment: u32,
    /// T10 vendor identification, ASCII padded with blanks; all NUL: the host's.
    pub vendor: [u8; 8],
    /// Product identification, ASCII padded with blanks; all NUL: the host's.
    pub product: [u8; 16],
    /// Product revision level, ASCII padded with blanks; all NUL: the host's.
    pub revision: [u8; 4],
    /// 0.
    pub reserved: u32,
}

/// What `open` is told.
#[repr(C)]
pub struct tcmu_open {
    /// Bytes of this struct that the host knows.
    pub struct_size: u32,
    /// `TCMU_OPEN_*`.
    pub flags: u32,
    /// The config string behind `<subtype>/`.
    pub config: *const c_char,
    /// The kernel's name of the device, `user_<hba>/<name>`.
    pub name: *const c_char,
    /// Tells the host of an event (`TCMU_EVENT_*`), from any thread, until `close` is called. Never blocks.
    pub notify: unsafe extern "C" fn(host_device: *mut c_void, event: u32, value: u64),
    /// To pass to `notify`.
    pub host_device: *mut c_void,
}

/// What `reconfigure` is told.
#[repr(C)]
pub struct tcmu_change {
    /// Bytes of this struct that the host knows.
    pub struct_size: u32,
    /// One of `TCMU_CHANGE_*`.
    pub what: u32,
    /// By `what`.
    pub value: u64,
    /// By `what`; never null.
    pub config: *const c_char,
}

/// The services of a host.
#[repr(C)]
pub struct tcmu_host {
    /// Bytes of this struct that the host knows.
    pub struct_size: u32,
    /// The ABI version of the host.
    pub abi: u32,
    /// Bytes of a [`tcmu_request`] of this host.
    pub request_size: u32,
    /// Bytes of a [`tcmu_io`] that this host uses; a plugin whose `tcmu_io` is shorter must allocate this many.
    pub io_size: u32,
    /// Name and version of the host.
    pub version: *const c_char,
    /// Logs one line. `device` is the `host_device` of [`tcmu_open`], or null. Any thread; never blocks for long.
    pub log: unsafe extern "C" fn(host_device: *mut c_void, level: u32, message: *const c_char),
    /// Does an I/O on a descriptor for `request`; see [`tcmu_io`]. Any thread that owns the request; never blocks.
    pub io: unsafe extern "C" fn(request: *mut tcmu_request, io: *mut tcmu_io),
    /// The table of another handler, loaded and initialised, for filters that stack on it; null if there is none of that subtype (the
    /// log says why). Only in control calls. The caller then plays the host's part: it opens a device, makes requests of its own and
    /// completes its caller's.
    pub find_handler: unsafe extern "C" fn(subtype: *const c_char) -> *const tcmu_handler,
}

/// A handler: what `tcmu_handler_entry` returns.
#[repr(C)]
pub struct tcmu_handler {
    /// [`TCMU_HANDLER_ABI`] that the plugin was built with.
    pub abi: u32,
    /// `sizeof(struct tcmu_handler)` that the plugin was built with.
    pub struct_size: u32,
    /// The subtype that devices are routed by: 1 to 64 of `A-Z a-z 0-9 _`.
    pub subtype: *const c_char,
    /// A name for people.
    pub name: *const c_char,
    /// The plugin's version.
    pub version: *const c_char,
    /// What config strings look like, for people; `targetcli` shows it.
    pub config_desc: *const c_char,
    /// One of `TCMU_THREADS_*`.
    pub threads: u32,
    /// With `TCMU_THREADS_POOL`: how many calls at a time one device can use; 0 leaves it to the host.
    pub concurrency: u32,
    /// Called once before anything else. `host` lives for ever. May be null.
    pub init: Option<unsafe extern "C" fn(host: *const tcmu_host, error: *mut tcmu_text) -> i32>,
    /// Judges a config string (the part behind `<subtype>/`) without opening anything. May be null: all are fine.
    pub check_config: Option<unsafe extern "C" fn(config: *const c_char, error: *mut tcmu_text) -> i32>,
    /// Opens a device and stores its pointer to `*device`. On failure nothing stays behind. Required.
    pub open: Option<
        unsafe extern "C" fn(
            open: *const tcmu_open,
            info: *mut tcmu_device_info,
            device: *mut *mut c_void,
            error: *mut tcmu_text,
        ) -> i32,
    >,
    /// Closes a device. No request is outstanding. Required.
    pub close: Option<unsafe extern "C" fn(device: *mut c_void)>,
    /// Takes `count` requests (at least one). The array is valid during the call only. Required.
    pub submit: Option<unsafe extern "C" fn(device: *mut c_void, requests: *const *mut tcmu_request, count: u32)>,
    /// The initiator gave up on this request: complete it soon, with [`TCMU_STATUS_ABORTED`] if nothing was done. A hint that may
    /// come at the same time as the completion: compare the pointer with what is outstanding, never dereference it. May be null.
    pub cancel: Option<unsafe extern "C" fn(device: *mut c_void, request: *mut tcmu_request)>,
    /// Changes a device while I/O runs. On failure all is as before. May be null: `EOPNOTSUPP`, except that the write cache of a
    /// device that takes FLUSH is switched by the host.
    pub reconfigure: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            change: *const tcmu_change,
            info: *mut tcmu_device_info,
            error: *mut tcmu_text,
        ) -> i32,
    >,
    /// Takes the exclusive lock from whoever has it, fencing that one off, and stores `tag` with it. May be null.
    pub lock: Option<unsafe extern "C" fn(device: *mut c_void, tag: u32, error: *mut tcmu_text) -> i32>,
    /// Gives the exclusive lock back. May be null.
    pub unlock: Option<unsafe extern "C" fn(device: *mut c_void) -> i32>,
    /// Returns `TCMU_LOCK_*` or a negative `errno`, and stores the holder's tag to `*tag`. May be null.
    pub lock_state: Option<unsafe extern "C" fn(device: *mut c_void, tag: *mut u32) -> i32>,
    /// Writes lines of `key=value` about the device's state for people and programs (lock owner, connection, counters). May be null.
    pub describe: Option<unsafe extern "C" fn(device: *mut c_void, text: *mut tcmu_text) -> i32>,
    /// What the handler asks of the system beside files, memory, time and threads: words with blanks between them. May be null: nothing.
    ///
    /// A host may confine the process that it runs a handler in. What is not named here is then refused to the handler's system calls
    /// with `EPERM` or `ENOSYS`, and a log line says so. A word is a group or the name of a system call:
    ///
    /// * `network`: sockets of every kind, and ports below 1024. Without it, there are only those of the Unix domain.
    /// * `processes`: starting other programs, which are confined alike, and signals to them.
    /// * `mount`: mounting and unmounting; includes `admin`.
    /// * `admin`: what asks for `CAP_SYS_ADMIN`, such as some ioctls of block devices.
    /// * `raw_io`: what asks for `CAP_SYS_RAWIO`, such as SCSI commands to real devices (`SG_IO`).
    ///
    /// A host that runs the handler as a user gives it none of those rights that only root has. Words that a host does not know it
    /// ignores, with a log line.
    pub needs: *const c_char,
}

/// The type of the one symbol that a plugin exports, [`TCMU_HANDLER_ENTRY`]. Returns the same static table each time.
pub type tcmu_handler_entry_fn = unsafe extern "C" fn() -> *const tcmu_handler;

/// The name of the one symbol that a plugin exports.
pub const TCMU_HANDLER_ENTRY: &core::ffi::CStr = c"tcmu_handler_entry";

// SAFETY: a handler table is immutable data: strings and functions that live for ever.
unsafe impl Sync for tcmu_handler {}
// SAFETY: as above; all functions of a host may be called from any thread that its field documents.
unsafe impl Sync for tcmu_host {}
