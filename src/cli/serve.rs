//! `tercet serve`: one replica.

use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::ConfigArgs;
use super::signals::{StopSignals, stop_with_parent};
use crate::exit::{Exit, Failure, OrExit};
use crate::{app, telemetry};

/// Run one replica
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Stop when standard input ends; `tercet dev` runs its replicas this way
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

pub(super) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let (config, sources) = args.config.load_with_sources()?;
    telemetry::start(&config.log)?;
    let mut signals = StopSignals::listen().or_exit(Exit::Io)?;
    let stop = CancellationToken::new();
    if args.exit_with_parent {
        stop_with_parent(stop.clone()).or_exit(Exit::Io)?;
    }
    raise_descriptor_limit();
    let mut replica = std::pin::pin!(app::run(config, sources, stop.clone()));
    let mut signalled = false;
    loop {
        tokio::select! {
            done = replica.as_mut() => return done,
            (name, code) = signals.next() => {
                if signalled {
                    tracing::warn!(signal = name, "second signal: stopping at once");
                    std::process::exit(code);
                }
                tracing::info!(signal = name, "draining; a second signal stops at once");
                signalled = true;
                stop.cancel();
            }
        }
    }
}

/// The usual soft limit of 1024 is less than `limits.connections_max`.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
