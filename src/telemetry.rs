//! Logs, and what happens on a panic.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::exit::{Exit, Failure};

/// Dependencies that tell more than an operator wants; `log.level` can raise each again. rustls warns
/// of what any stranger can send it, as often as it is sent.
const QUIET: &str = "openraft=warn,h2=warn,hyper=warn,hyper_util=warn,reqwest=warn,rustls=error";

/// Starts logging to standard error. Standard output belongs to the commands' results.
///
/// # Errors
/// When `log.level` is no filter, or logging was started before.
pub fn start(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{}", log.level))
        .map_err(|error| Failure::new(Exit::Config, format!("log.level: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| Failure::new(Exit::Software, format!("cannot start logging: {error}")))
}

/// A panic in any thread ends the process: what it left half done is in memory only, and a replica
/// that starts again is in a known state.
pub fn exit_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(location, message, "panic: this is a defect in Tercet; the process ends");
        print(panic);
        std::process::exit(Exit::Software as i32);
    }));
}
