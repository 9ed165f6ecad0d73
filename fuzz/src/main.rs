//! libFuzzer over the targets of `targets.rs`; `RFLEET_FUZZ` says which. See `README.md`.

#![no_main]

mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{Target, find};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("RFLEET_FUZZ").expect("RFLEET_FUZZ names the target");
        find(&name).unwrap_or_else(|| panic!("there is no target {name}"))
    });
    chosen(data);
});
