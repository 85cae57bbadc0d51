//! `tercet-chaos`: runs named faults against real replicas and reports what held.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
