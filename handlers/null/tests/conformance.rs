//! The handler passes the bench.
use tcmu_handler_api::{
    bench::{Options, conformance},
    host::{Plugin, blocking_services},
    plugin::handler_table,
};

#[test]
fn it_conforms_with_every_block_size() {
    let plugin = Plugin::linked(handler_table::<handler_null::Null>(), blocking_services()).unwrap();
    for block_size in [512, 4096] {
        let report = conformance(&plugin, "x", &Options { block_size, ..Options::default() });
        assert_eq!(report.exit_status(), 0, "{report}");
    }
}
