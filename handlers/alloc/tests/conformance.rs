//! The handler passes the bench.
use tcmu_handler_api::bench::{self, Options, conformance};

#[test]
fn it_conforms_with_every_block_size() {
    let plugin = bench::linked::<handler_alloc::Alloc>().unwrap();
    for block_size in [512, 4096] {
        let report = conformance(&plugin, "x", &Options { block_size, ..Options::default() });
        assert!(report.is_success(), "{report}");
    }
}
