//! A removable disk's medium is exchanged.
use std::sync::Arc;

use tcmu_handler_api::{
    bench,
    host::{Events, Level, OpenSpec},
    plugin::{Change, DeviceFlags, DeviceInfo},
};

struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

#[test]
fn the_next_medium_is_empty_and_what_it_says_it_is() {
    let plugin = bench::linked::<handler_alloc::Alloc>().unwrap();
    let info = DeviceInfo::new(1 << 20, 512);
    let spec = OpenSpec { config: "x;removable=on", name: "user_0/x", take_over: false, info };
    let device = plugin.open(spec, Arc::new(Quiet)).unwrap();
    let change = |config, size| device.reconfigure(&Change::Medium { config, size }, *device.info());
    let info = change("y;removable=on;ro=on", 2 << 20).unwrap();
    assert_eq!(info.size(), 2 << 20);
    assert!(info.flags().contains(DeviceFlags::READ_ONLY | DeviceFlags::REMOVABLE));
    let refusal = change("y", 2 << 20).unwrap_err();
    assert!(refusal.message().contains("lacks removable=on"), "{refusal:?}");
    assert!(change("y;removable=on;nonsense=1", 2 << 20).is_err());
    assert!(change("", 0).unwrap().flags().contains(DeviceFlags::NO_MEDIUM));
    let info = change("z;removable=on", 1 << 20).unwrap();
    assert!(!info.flags().intersects(DeviceFlags::NO_MEDIUM | DeviceFlags::READ_ONLY));
}
