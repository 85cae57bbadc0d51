//! `cargo +nightly fuzz run --fuzz-dir chaos/fuzz --features libfuzzer path`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tercet_fuzz::path(data);
});
