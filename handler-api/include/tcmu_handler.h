/*
 * The C ABI between a host and a handler plugin of tcmu-runnerd, version 1.
 * Generated from handler-api/src/abi.rs; what it means is written there and in docs/writing-a-handler.md.
 */

#ifndef TCMU_HANDLER_H
#define TCMU_HANDLER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

// The version of this ABI. A host refuses a plugin with another one, and names both.
#define TCMU_HANDLER_ABI 1

// Size in bytes of the sense buffer behind `tcmu_request::sense`.
#define TCMU_SENSE_SIZE 96

// Read `length` bytes at `offset` into `iov`.
#define TCMU_OP_READ 1

// Write `length` bytes at `offset` from `iov`. With `TCMU_REQ_FUA`: complete only when they are on stable storage.
#define TCMU_OP_WRITE 2

// Bring every write that was completed before this request was submitted to stable storage.
#define TCMU_OP_FLUSH 3

// Deallocate `length` bytes at `offset`. Afterwards they read as zeros if `TCMU_DEV_UNMAP_ZEROES` is set, else as anything stable.
#define TCMU_OP_UNMAP 4

// Make `length` bytes at `offset` read as zeros. With `TCMU_REQ_MAY_UNMAP` by deallocation, if that gives zeros.
#define TCMU_OP_WRITE_ZEROES 5

// Write the pattern in `iov` (one logical block) over and over to `length` bytes at `offset`.
#define TCMU_OP_WRITE_SAME 6

// Compare the first `length` bytes of `iov` with those at `offset`; if equal write the second `length` bytes of `iov` there, with no
// other write in between. If not: `TCMU_STATUS_MISCOMPARE`, with the offset of the first differing byte in `result`.
#define TCMU_OP_COMPARE_AND_WRITE 7

// Copy `length` bytes from `source_offset` to `offset` within the device. The ranges may overlap.
#define TCMU_OP_COPY 8

// Fill the array of `tcmu_extent` that `iov[0]` holds with what is known of `length` bytes from `offset` on, in order and without
// gaps; `result` is the number of entries written (at least one).
#define TCMU_OP_EXTENTS 9

// `length` bytes at `offset` will be read soon. Completing it at once is right.
#define TCMU_OP_PREFETCH 10

// A whole SCSI command: `cdb`, data in `iov`, Data-In of a bidirectional command in `bidi_iov`. `result` holds the size of the data
// buffer; set it to the number of Data-In bytes that are valid. Completed with a status, `TCMU_STATUS_SENSE`, a SCSI status byte
// by `TCMU_STATUS_SCSI`, or `TCMU_STATUS_NOT_HANDLED` to leave this command to the host's own SCSI engine.
#define TCMU_OP_SCSI 11

// Request flag: complete only when the data is on stable storage.
#define TCMU_REQ_FUA (1 << 0)

// Request flag: the data is unlikely to be used again soon (DPO).
#define TCMU_REQ_DPO (1 << 1)

// Request flag: a `TCMU_OP_WRITE_ZEROES` may deallocate.
#define TCMU_REQ_MAY_UNMAP (1 << 2)

// Request flag: all of it or nothing survives a crash. Only sent to a device that announces `max_atomic`.
#define TCMU_REQ_ATOMIC (1 << 3)

// Done. A negative `errno` is a failure, which the host turns into sense data by the kind of operation: `ENOSPC`, `EDQUOT`, `EFBIG` space
// allocation failed; `EROFS`, and of what changes something `EPERM` and `EACCES`, write protected; `EIO`, `ENODATA`, `EILSEQ`, `EUCLEAN`,
// `EBADMSG` unrecovered read or write error; `ENOMEDIUM` medium not present; `EBADE` reservation conflict; `EINVAL` invalid field;
// `EOPNOTSUPP` invalid opcode; `ENOMEM`, `EAGAIN`, `EBUSY`, `ETIMEDOUT` busy, the initiator tries again; all others internal target
// failure.
#define TCMU_STATUS_OK 0

// Try again later (SAM-5 BUSY).
#define TCMU_STATUS_BUSY 1

// Too many commands (SAM-5 TASK SET FULL).
#define TCMU_STATUS_TASK_SET_FULL 2

// The data differ; `result` is the offset of the first differing byte from the start of the compared range.
#define TCMU_STATUS_MISCOMPARE 3

// CHECK CONDITION with the sense data that the handler wrote to `sense`, `sense_length` bytes of it.
#define TCMU_STATUS_SENSE 4

// Only for `TCMU_OP_SCSI`: the host's SCSI engine shall answer; nothing was done.
#define TCMU_STATUS_NOT_HANDLED 5

// The exclusive lock is held by another node: this port is in standby.
#define TCMU_STATUS_FENCED 6

// The exclusive lock is on its way: asymmetric access state transition.
#define TCMU_STATUS_TRANSITION 7

// The request was cancelled before it had any effect.
#define TCMU_STATUS_ABORTED 8

// Add a SCSI status byte (SAM-5 5.3.1) to complete a `TCMU_OP_SCSI` with exactly that.
#define TCMU_STATUS_SCSI 256

// `submit` never blocks. It runs on the thread that serves the device's ring, one call at a time.
#define TCMU_THREADS_INLINE 0

// `submit` may block. It runs on pool threads, several at the same time for one device, with one request each.
#define TCMU_THREADS_POOL 1

// `submit` may block. It runs on a pool thread, never two calls at a time for one device, requests in the order of the ring.
#define TCMU_THREADS_SERIAL 2

// The device can't be written.
#define TCMU_DEV_READ_ONLY (1 << 0)

// A completed write may be lost in a crash until a flush.
#define TCMU_DEV_WRITE_CACHE (1 << 1)

// `TCMU_REQ_FUA` is honoured by the handler. Without it the host flushes after such a write.
#define TCMU_DEV_FUA (1 << 2)

// Deallocated bytes read as zeros.
#define TCMU_DEV_UNMAP_ZEROES (1 << 3)

// The device is thinly provisioned.
#define TCMU_DEV_THIN (1 << 4)

// The medium can be removed or changed.
#define TCMU_DEV_REMOVABLE (1 << 5)

// The medium is absent at the moment.
#define TCMU_DEV_NO_MEDIUM (1 << 6)

// The device wants the lock calls around access (ALUA with an exclusive lock).
#define TCMU_DEV_LOCKED_ACCESS (1 << 7)

// Every CDB goes to the handler first, as `TCMU_OP_SCSI`.
#define TCMU_DEV_SCSI (1 << 8)

// Known to hold data.
#define TCMU_EXTENT_MAPPED 0

// Known to be deallocated.
#define TCMU_EXTENT_DEALLOCATED 1

// Anchored: space is reserved, no data is stored.
#define TCMU_EXTENT_ANCHORED 2

// What changes: a new config string in `tcmu_change::config`.
#define TCMU_CHANGE_CONFIG 1

// What changes: the size, `tcmu_change::value` bytes.
#define TCMU_CHANGE_SIZE 2

// What changes: the volatile write cache, `tcmu_change::value` 0 or 1.
#define TCMU_CHANGE_WRITE_CACHE 3

// What changes: the medium; `config` and `value` (bytes) describe the new one, an empty `config` means none. No request is outstanding, and
// none comes before the call returns.
#define TCMU_CHANGE_MEDIUM 4

// `tcmu_open::flags`: the device existed before; an earlier process served it.
#define TCMU_OPEN_TAKE_OVER (1 << 0)

// The capacity became `value` bytes.
#define TCMU_EVENT_SIZE 1

// The exclusive lock was lost to another node.
#define TCMU_EVENT_LOCK_LOST 2

// The backing store can't be reached (`value` 0) or can be reached again (`value` 1).
#define TCMU_EVENT_CONNECTION 3

// The medium was changed or removed by the handler's own doing.
#define TCMU_EVENT_MEDIUM 4

// The device is locked by nobody.
#define TCMU_LOCK_FREE 0

// This process holds the lock.
#define TCMU_LOCK_OWN 1

// Another node holds the lock.
#define TCMU_LOCK_OTHER 2

// Severity for `tcmu_host::log`.
#define TCMU_LOG_ERROR 1

// Severity for `tcmu_host::log`.
#define TCMU_LOG_WARN 2

// Severity for `tcmu_host::log`.
#define TCMU_LOG_INFO 3

// Severity for `tcmu_host::log`.
#define TCMU_LOG_DEBUG 4

// Severity for `tcmu_host::log`.
#define TCMU_LOG_TRACE 5

// Read `length` bytes at `offset` of the descriptor. The end of the file before `length` is an `EIO`.
#define TCMU_IO_READ 1

// Write `length` bytes at `offset` of the descriptor.
#define TCMU_IO_WRITE 2

// `fdatasync` the descriptor. When it fails, the kernel may have forgotten data that was written before: every later one for the device
// fails too, until the device is opened again. The kernel tells each open of a file once: a write with `TCMU_IO_FLAG_DSYNC` on the same
// descriptor may be told in place of this, so give this one an open of its own.
#define TCMU_IO_DATASYNC 3

// Punch a hole of `length` bytes at `offset`, keeping the size.
#define TCMU_IO_PUNCH_HOLE 4

// Make `length` bytes at `offset` read as zeros, keeping the space.
#define TCMU_IO_ZERO_RANGE 5

// Copy `length` bytes from `source_offset` to `offset` of the descriptor, sharing space where the file system can. They may overlap.
#define TCMU_IO_COPY 6

// For a `TCMU_OP_EXTENTS`: fill its answer with what the file system knows of `length` bytes at `offset` (`SEEK_HOLE`), and set its
// `result`. The extents are told as if the request's `offset` were at that place.
#define TCMU_IO_EXTENTS 7

// `tcmu_io::flags`: a write that is on stable storage when it is done (`RWF_DSYNC`).
#define TCMU_IO_FLAG_DSYNC (1 << 0)

// `tcmu_io::flags`: the descriptor has no cache in front of it (`O_DIRECT`), so that every transfer takes its time: the host does not
// try it on the thread that serves the device.
#define TCMU_IO_FLAG_UNCACHED (1 << 1)

// One thing to do, from `tcmu_handler::submit` until its completion. Owned by whoever made it: a handler reads it, writes the
// fields marked *out*, and touches nothing of it any more once it has called `complete`.
struct tcmu_request {
  // Completes this request with a `TCMU_STATUS_*` or a negative `errno`. Any thread, exactly once, never blocks.
  void (*complete)(struct tcmu_request *request, int32_t status);
  // For the maker of the request. A filter copies it to the requests it makes on behalf of this one, so that `tcmu_host::io`
  // finds the right thread.
  void *owner;
  // For the handler, from submission to completion. Null at submission.
  void *handler_data[2];
  // One of `TCMU_OP_*`.
  uint32_t op;
  // `TCMU_REQ_*`.
  uint32_t flags;
  // First byte on the device. A multiple of the block size, and `offset + length` is within the device.
  uint64_t offset;
  // Bytes on the device. A multiple of the block size; 0 only where the operation has no range.
  uint64_t length;
  // First byte of the source of a `TCMU_OP_COPY`.
  uint64_t source_offset;
  // The data: `iov_count` segments, any alignment and length, valid until completion. Never written by the host meanwhile.
  const struct iovec *iov;
  // Data-In of a bidirectional SCSI command.
  const struct iovec *bidi_iov;
  // Number of segments behind `iov`.
  uint32_t iov_count;
  // Number of segments behind `bidi_iov`.
  uint32_t bidi_iov_count;
  // The CDB of a `TCMU_OP_SCSI`, valid until completion.
  const uint8_t *cdb;
  // Bytes behind `cdb`.
  uint32_t cdb_length;
  // *out*: bytes of sense data written to `sense`.
  uint32_t sense_length;
  // *out*: `TCMU_SENSE_SIZE` bytes for sense data (SPC-6 4.4), fixed or descriptor format. Never null.
  uint8_t *sense;
  // *out*: by operation and status, see there.
  uint64_t result;
};

// An I/O on a file descriptor that the host shall do for a request: `tcmu_host::io`.
//
// With `done` null the host copies the struct, does the I/O, and completes the request by its outcome. With `done` set the struct
// stays the handler's, must live until `done` was called, and a request may have many of them in flight; `done` runs on the thread
// that serves the device (with `TCMU_THREADS_INLINE`) or any other (else), and goes on with the request.
struct tcmu_io {
  // One of `TCMU_IO_*`.
  uint32_t op;
  // An open descriptor of the handler; stays open until the I/O is done.
  int32_t fd;
  // `TCMU_IO_FLAG_*`.
  uint32_t flags;
  // Number of segments behind `iov`.
  uint32_t iov_count;
  // The data; null means the request's own `iov`. Valid until the I/O is done.
  const struct iovec *iov;
  // First byte in the file.
  uint64_t offset;
  // Bytes.
  uint64_t length;
  // First byte of the source of a `TCMU_IO_COPY`.
  uint64_t source_offset;
  // Called with 0 or a negative `errno`. May be null.
  void (*done)(struct tcmu_io *io, struct tcmu_request *request, int32_t status);
  // For the handler.
  void *handler_data;
  // For the host, from the call of `io` until `done`.
  void *host_data[6];
};

// The services of a host.
struct tcmu_host {
  // Bytes of this struct that the host knows.
  uint32_t struct_size;
  // The ABI version of the host.
  uint32_t abi;
  // Bytes of a `tcmu_request` of this host.
  uint32_t request_size;
  // Bytes of a `tcmu_io` that this host uses; a plugin whose `tcmu_io` is shorter must allocate this many.
  uint32_t io_size;
  // Name and version of the host.
  const char *version;
  // Logs one line. `device` is the `host_device` of `tcmu_open`, or null. Any thread; never blocks for long.
  void (*log)(void *host_device, uint32_t level, const char *message);
  // Does an I/O on a descriptor for `request`; see `tcmu_io`. Any thread that owns the request; never blocks.
  void (*io)(struct tcmu_request *request, struct tcmu_io *io);
  // The table of another handler, loaded and initialised, for filters that stack on it; null if there is none of that subtype (the
  // log says why). Only in control calls. The caller then plays the host's part: it opens a device, makes requests of its own and
  // completes its caller's.
  const struct tcmu_handler *(*find_handler)(const char *subtype);
};

// A line of text that a plugin returns: at most `capacity` bytes at `data`, the last of them a NUL. The host allocates.
struct tcmu_text {
  // Where to write.
  char *data;
  // How many bytes there are, the NUL included; at least 256.
  size_t capacity;
};

// What `open` is told.
struct tcmu_open {
  // Bytes of this struct that the host knows.
  uint32_t struct_size;
  // `TCMU_OPEN_*`.
  uint32_t flags;
  // The config string behind `<subtype>/`.
  const char *config;
  // The kernel's name of the device, `user_<hba>/<name>`.
  const char *name;
  // Tells the host of an event (`TCMU_EVENT_*`), from any thread, until `close` is called. Never blocks.
  void (*notify)(void *host_device, uint32_t event, uint64_t value);
  // To pass to `notify`.
  void *host_device;
};

// What a device is and can do. The host fills it before `open` and `reconfigure` with what the kernel was told; the handler changes
// what it knows better.
struct tcmu_device_info {
  // Bytes of this struct that the host knows.
  uint32_t struct_size;
  // Logical block size in bytes, a power of two of at least 512.
  uint32_t block_size;
  // Capacity in bytes. A handler whose backing store is smaller lowers it; the host then serves the smaller size and warns.
  uint64_t size;
  // Bit `1 << TCMU_OP_x` for each operation that `submit` takes. Preset: READ and WRITE. What is missing the host emulates where
  // that is correct, and refuses where it is not.
  uint64_t ops;
  // `TCMU_DEV_*`. Preset: `TCMU_DEV_WRITE_CACHE` as configured.
  uint32_t flags;
  // Peripheral device type (SPC-6 6.7.2): 0 disk, 1 tape, 5 optical, 20 host-managed zoned.
  uint32_t device_type;
  // Physical block size in bytes, a power of two; 0: as the logical one.
  uint32_t physical_block_size;
  // Medium rotation rate (SBC-4 6.6.2): 0 not reported, 1 not rotating. Preset: 1.
  uint32_t rotation_rate;
  // Longest transfer in bytes; 0: no limit of the handler's.
  uint32_t max_transfer;
  // Transfer size in bytes that suits the backing store best; 0: unknown.
  uint32_t optimal_transfer;
  // Granularity in bytes in which deallocation has effect; 0: one block.
  uint32_t unmap_granularity;
  // Offset in bytes of the first unit of that granularity.
  uint32_t unmap_alignment;
  // Most bytes that one UNMAP or zeroing request may cover; 0: no limit.
  uint64_t max_unmap;
  // Longest write in bytes that can be `TCMU_REQ_ATOMIC`; 0: none.
  uint32_t max_atomic;
  // Alignment in bytes that data segments need (`O_DIRECT`); 0 or 1: any. A host that cannot align data refuses anything else when
  // the device is opened.
  uint32_t buffer_alignment;
  // T10 vendor identification, ASCII padded with blanks; all NUL: the host's.
  uint8_t vendor[8];
  // Product identification, ASCII padded with blanks; all NUL: the host's.
  uint8_t product[16];
  // Product revision level, ASCII padded with blanks; all NUL: the host's.
  uint8_t revision[4];
  // 0.
  uint32_t reserved;
};

// What `reconfigure` is told.
struct tcmu_change {
  // Bytes of this struct that the host knows.
  uint32_t struct_size;
  // One of `TCMU_CHANGE_*`.
  uint32_t what;
  // By `what`.
  uint64_t value;
  // By `what`; never null.
  const char *config;
};

// A handler: what `tcmu_handler_entry` returns.
struct tcmu_handler {
  // `TCMU_HANDLER_ABI` that the plugin was built with.
  uint32_t abi;
  // `sizeof(struct tcmu_handler)` that the plugin was built with.
  uint32_t struct_size;
  // The subtype that devices are routed by: 1 to 64 of `A-Z a-z 0-9 _`.
  const char *subtype;
  // A name for people.
  const char *name;
  // The plugin's version.
  const char *version;
  // What config strings look like, for people; `targetcli` shows it.
  const char *config_desc;
  // One of `TCMU_THREADS_*`.
  uint32_t threads;
  // With `TCMU_THREADS_POOL`: how many calls at a time one device can use; 0 leaves it to the host.
  uint32_t concurrency;
  // Called once before anything else. `host` lives for ever. May be null.
  int32_t (*init)(const struct tcmu_host *host, struct tcmu_text *error);
  // Judges a config string (the part behind `<subtype>/`) without opening anything. May be null: all are fine.
  int32_t (*check_config)(const char *config, struct tcmu_text *error);
  // Opens a device and stores its pointer to `*device`. On failure nothing stays behind. Required.
  int32_t (*open)(const struct tcmu_open *open, struct tcmu_device_info *info, void **device, struct tcmu_text *error);
  // Closes a device. No request is outstanding. Required.
  void (*close)(void *device);
  // Takes `count` requests (at least one). The array is valid during the call only. Required.
  void (*submit)(void *device, struct tcmu_request *const *requests, uint32_t count);
  // The initiator gave up on this request: complete it soon, with `TCMU_STATUS_ABORTED` if nothing was done. A hint that may
  // come at the same time as the completion: compare the pointer with what is outstanding, never dereference it. May be null.
  void (*cancel)(void *device, struct tcmu_request *request);
  // Changes a device while I/O runs. On failure all is as before. May be null: `EOPNOTSUPP`, except that the write cache of a
  // device that takes FLUSH is switched by the host.
  int32_t (*reconfigure)(void *device, const struct tcmu_change *change, struct tcmu_device_info *info, struct tcmu_text *error);
  // Takes the exclusive lock from whoever has it, fencing that one off, and stores `tag` with it. May be null.
  int32_t (*lock)(void *device, uint32_t tag, struct tcmu_text *error);
  // Gives the exclusive lock back. May be null.
  int32_t (*unlock)(void *device);
  // Returns `TCMU_LOCK_*` or a negative `errno`, and stores the holder's tag to `*tag`. May be null.
  int32_t (*lock_state)(void *device, uint32_t *tag);
  // Writes lines of `key=value` about the device's state for people and programs (lock owner, connection, counters). May be null.
  int32_t (*describe)(void *device, struct tcmu_text *text);
  // What the handler asks of the system beside files, memory, time and threads: words with blanks between them. May be null: nothing.
  //
  // A host may confine the process that it runs a handler in. What is not named here is then refused to the handler's system calls
  // with `EPERM` or `ENOSYS`, and a log line says so. A word is a group or the name of a system call:
  //
  // * `network`: sockets of every kind, and ports below 1024. Without it, there are only those of the Unix domain.
  // * `processes`: starting other programs, which are confined alike, and signals to them.
  // * `mount`: mounting and unmounting; includes `admin`.
  // * `admin`: what asks for `CAP_SYS_ADMIN`, such as some ioctls of block devices.
  // * `raw_io`: what asks for `CAP_SYS_RAWIO`, such as SCSI commands to real devices (`SG_IO`).
  //
  // A host that runs the handler as a user gives it none of those rights that only root has. Words that a host does not know it
  // ignores, with a log line.
  const char *needs;
};

// A run of bytes of a device and how it is provisioned (answer of `TCMU_OP_EXTENTS`).
struct tcmu_extent {
  // First byte.
  uint64_t offset;
  // Number of bytes.
  uint64_t length;
  // One of `TCMU_EXTENT_*`.
  uint32_t state;
  // 0.
  uint32_t reserved;
};

#endif  /* TCMU_HANDLER_H */

/* The one symbol that a plugin exports: its table, the same each time. */
#ifdef __cplusplus
extern "C"
#endif
const struct tcmu_handler *tcmu_handler_entry(void);
