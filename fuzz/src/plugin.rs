//! A plugin that answers nonsense: in its table, when a device is opened, and of each request.
use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_void},
    ptr,
    sync::Arc,
};

use tcmu::{
    server::Server,
    sim::{Data, SimConfig},
};
use tcmu_handler_api::{
    abi,
    host::{OpenSpec, Plugin, is_subtype},
    plugin::DeviceInfo,
};

use crate::{
    model::Choose,
    unit::{Quiet, Unit, no_data},
};

thread_local! {
    /// What the plugin at hand answers with.
    static ANSWERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The next bytes of the answers; zeros when they are used up.
fn answer<const N: usize>() -> [u8; N] {
    ANSWERS.with_borrow_mut(|bytes| {
        let rest = bytes.split_off(bytes.len().min(N));
        let mut answer = [0; N];
        let taken = std::mem::replace(bytes, rest);
        answer[..taken.len()].copy_from_slice(&taken);
        answer
    })
}

fn status() -> i32 {
    match answer::<1>()[0] {
        0..=200 => 0,
        201..=210 => -libc::EINVAL,
        _ => i32::from_ne_bytes(answer()),
    }
}

/// Text that may lack its end, or not be text.
unsafe fn say(text: *mut abi::tcmu_text) {
    // SAFETY: the host passes a valid buffer.
    let (data, capacity) = unsafe { ((*text).data.cast::<u8>(), (*text).capacity) };
    for at in 0..capacity.min(usize::from(answer::<1>()[0]) * 64) {
        // SAFETY: within the buffer.
        unsafe { data.add(at).write(answer::<1>()[0] | 0x20) };
    }
}

unsafe extern "C" fn init(_: *const abi::tcmu_host, error: *mut abi::tcmu_text) -> i32 {
    // SAFETY: by the ABI.
    unsafe { say(error) };
    status()
}

unsafe extern "C" fn check_config(_: *const c_char, error: *mut abi::tcmu_text) -> i32 {
    // SAFETY: by the ABI.
    unsafe { say(error) };
    status()
}

unsafe extern "C" fn open(
    _: *const abi::tcmu_open,
    info: *mut abi::tcmu_device_info,
    device: *mut *mut c_void,
    error: *mut abi::tcmu_text,
) -> i32 {
    // SAFETY: by the ABI.
    unsafe {
        device.write(no_data());
        say(error);
        scramble(&mut *info);
    }
    status()
}

/// Changes some of what the device says of itself.
fn scramble(info: &mut abi::tcmu_device_info) {
    for _ in 0..answer::<1>()[0] % 8 {
        let value = match answer::<1>()[0] % 8 {
            0..=2 => 1u64 << (answer::<1>()[0] % 64),
            3 => 512 * u64::from(u16::from_ne_bytes(answer())),
            4 => u64::MAX,
            _ => u64::from_ne_bytes(answer()),
        };
        match answer::<1>()[0] % 18 {
            0 => info.struct_size = value as u32,
            1 => info.block_size = value as u32,
            2 => info.size = value,
            3 | 4 => info.ops |= value,
            5 => info.ops = value,
            6 => info.flags = value as u32,
            7 => info.device_type = value as u32,
            8 => info.physical_block_size = value as u32,
            9 => info.rotation_rate = value as u32,
            10 => info.max_transfer = value as u32,
            11 => info.optimal_transfer = value as u32,
            12 => info.unmap_granularity = value as u32,
            13 => info.unmap_alignment = value as u32,
            14 => info.max_unmap = value,
            15 => info.max_atomic = value as u32,
            16 => info.buffer_alignment = value as u32,
            _ => (info.vendor, info.product, info.revision) = (answer(), answer(), answer()),
        }
    }
}

unsafe extern "C" fn close(_: *mut c_void) {}

unsafe extern "C" fn submit(_: *mut c_void, requests: *const *mut abi::tcmu_request, count: u32) {
    for n in 0..count as usize {
        // SAFETY: the host passes so many requests; each is completed once, and the fields marked "out" are ours to write.
        unsafe {
            let request = *requests.add(n);
            if answer::<1>()[0] & 1 != 0 {
                (*request).result = u64::from_ne_bytes(answer());
                (*request).sense_length = u32::from_ne_bytes(answer());
                (*request).sense.copy_from_nonoverlapping(answer::<96>().as_ptr(), 96);
            }
            let status = match answer::<1>()[0] {
                0..=99 => 0,
                100..=199 => i32::from(answer::<1>()[0] % 10),
                200..=230 => -i32::from(answer::<1>()[0]),
                231..=245 => abi::TCMU_STATUS_SCSI + i32::from(answer::<1>()[0]),
                _ => i32::from_ne_bytes(answer()),
            };
            ((*request).complete)(request, status);
        }
    }
}

unsafe extern "C" fn reconfigure(
    _: *mut c_void,
    _: *const abi::tcmu_change,
    info: *mut abi::tcmu_device_info,
    error: *mut abi::tcmu_text,
) -> i32 {
    // SAFETY: by the ABI.
    unsafe {
        say(error);
        scramble(&mut *info);
    }
    status()
}

unsafe extern "C" fn lock(_: *mut c_void, _: u32, error: *mut abi::tcmu_text) -> i32 {
    // SAFETY: by the ABI.
    unsafe { say(error) };
    status()
}

unsafe extern "C" fn lock_state(_: *mut c_void, tag: *mut u32) -> i32 {
    // SAFETY: by the ABI.
    unsafe { tag.write(u32::from_ne_bytes(answer())) };
    status()
}

unsafe extern "C" fn describe(_: *mut c_void, text: *mut abi::tcmu_text) -> i32 {
    // SAFETY: by the ABI.
    unsafe { say(text) };
    status()
}

/// A string that lives for ever, as the ABI wants it. The same few bytes for all inputs are no leak to speak of.
fn string(choose: &mut Choose<'_>, right: &str) -> *const c_char {
    let text = match choose.byte() {
        0..=199 => right.as_bytes().to_vec(),
        200..=210 => return ptr::null(),
        211..=220 => vec![b'x'; usize::from(choose.byte()) * 40],
        length => (200..length).map(|_| choose.byte().max(1)).collect(),
    };
    CString::new(text).map_or(ptr::null(), |text| CString::into_raw(text).cast_const())
}

/// The table, then the answers. A table that is not sound is refused, an `open` that makes no sense too; a device that is opened answers
/// every command, whatever its handler says.
pub fn plugin(data: &[u8]) {
    let mut choose = Choose::new(data);
    let size = size_of::<abi::tcmu_handler>() as u32;
    let absent = choose.byte();
    let table: &'static abi::tcmu_handler = Box::leak(Box::new(abi::tcmu_handler {
        abi: if choose.seldom(16) { u32::from(choose.byte()) } else { abi::TCMU_HANDLER_ABI },
        struct_size: match choose.byte() {
            0..=199 => size,
            200..=240 => u32::from(choose.byte()),
            _ => u32::MAX - u32::from(choose.byte()),
        },
        subtype: string(&mut choose, "fuzz"),
        name: string(&mut choose, "Fuzz"),
        version: string(&mut choose, "1"),
        config_desc: string(&mut choose, "fuzz/"),
        // Pool threads have no answers: what they say is always right.
        threads: if choose.seldom(16) { u32::from(choose.byte()) } else { abi::TCMU_THREADS_INLINE },
        concurrency: u32::from(choose.byte()),
        init: (absent & 1 == 0).then_some(init),
        check_config: (absent & 2 == 0).then_some(check_config),
        open: (!choose.seldom(4)).then_some(open),
        close: (!choose.seldom(4)).then_some(close),
        submit: (!choose.seldom(4)).then_some(submit),
        cancel: None,
        reconfigure: (absent & 4 == 0).then_some(reconfigure),
        lock: (absent & 8 == 0).then_some(lock),
        unlock: None,
        lock_state: (absent & 16 == 0).then_some(lock_state),
        describe: (absent & 32 == 0).then_some(describe),
        needs: string(&mut choose, "network"),
    }));
    ANSWERS.set(choose.rest().to_vec());
    let plugin = match Plugin::linked(table, Server::services()) {
        Ok(plugin) => plugin,
        Err(error) => return one_line(&error.to_string()),
    };
    assert!(is_subtype(plugin.subtype()));
    assert!([plugin.name(), plugin.version()].iter().all(|text| text.len() <= 256));
    assert!([plugin.config_desc(), plugin.needs()].iter().all(|text| text.len() <= 4096));
    if let Err(refusal) = plugin.check_config("x") {
        assert!(refusal.errno() > 0, "{refusal:?}");
    }
    let spec = OpenSpec { config: "x", name: "user_0/fuzz", take_over: false, info: DeviceInfo::new(1 << 20, 512) };
    let device = match plugin.open(spec, Arc::new(Quiet)) {
        Ok(device) => device,
        Err(refusal) => return assert!(refusal.errno() > 0, "{refusal:?}"),
    };
    let _ = (device.describe(), device.lock().acquire(1), device.lock().state());
    let mut unit = Unit::new(SimConfig { pages: 64, ..SimConfig::default() }, |_| device);
    for (cdb, data) in commands() {
        let id = unit.kernel.queue(cdb, data).expect("room on the ring");
        unit.finish(id);
    }
    unit.stop(|| ());
}

fn one_line(text: &str) {
    assert!(!text.is_empty());
}

/// One command of each kind.
fn commands() -> Vec<(&'static [u8], Data)> {
    vec![
        (&[0x12, 0, 0, 0, 96, 0], Data::In(96)),
        (&[0x12, 1, 0, 1, 0, 0], Data::In(256)),
        (&[0x12, 1, 0x83, 1, 0, 0], Data::In(256)),
        (&[0x12, 1, 0xb0, 1, 0, 0], Data::In(256)),
        (&[0x12, 1, 0xb1, 1, 0, 0], Data::In(256)),
        (&[0x12, 1, 0xb2, 1, 0, 0], Data::In(256)),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(8)),
        (&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Data::In(32)),
        (&[0x1a, 0, 0x3f, 0, 255, 0], Data::In(255)),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::In(4096)),
        (&[0x2a, 8, 0, 0, 0, 1, 0, 0, 1, 0], Data::Out(vec![1; 4096])),
        (&[0x2e, 2, 0, 0, 0, 1, 0, 0, 1, 0], Data::Out(vec![1; 4096])),
        (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None),
        (&[0x34, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::None),
        (&[0x41, 8, 0, 0, 0, 1, 0, 0, 4, 0], Data::Out(vec![0; 4096])),
        (
            &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
            Data::Out([&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0; 8], &[0, 0, 0, 8], &[0; 4]].concat()),
        ),
        (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], Data::Out(vec![1; 8192])),
        (&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Data::In(256)),
        (&[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], Data::Out(vec![1; 4096])),
        (&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0], Data::In(8192)),
        (&[0x4d, 0, 0x4c, 0, 0, 0, 0, 1, 0, 0], Data::In(256)),
        (&[0x85, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], Data::In(4096)),
    ]
}
