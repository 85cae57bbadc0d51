//! The `tercet` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tercet::telemetry::exit_on_panic();
    tercet::cli::run()
}
