//! `tercet dev`: a whole cluster on this machine.
//!
//! The replicas are real processes, so that one can be killed and started again like a pod.

mod layout;
mod ready;
mod replica;
mod settings;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use self::layout::{Layout, ReplicaPlan};
use self::replica::{Ended, RunningReplica};
use self::settings::Settings;
use super::print;
use super::signals::StopSignals;
use crate::config::Limits;
use crate::exit::{Exit, Failure, OrExit};

/// Time that a replica may take beyond its own grace before it is killed.
const STOP_EXTRA: Duration = Duration::from_secs(10);

/// Run a whole cluster on this machine, to try it or to test against it
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Number of replicas, 1 to 7 [default: 3, or what DIR was made with]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=7))]
    replicas: Option<u16>,
    /// Directory of the cluster; starting on it again resumes the cluster
    #[arg(long, value_name = "DIR", default_value = "./tercet-data")]
    dir: PathBuf,
    /// First port; replica i takes PORT+10*i and the next three
    /// [default: 5000, or what DIR was made with]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

pub(super) async fn run(args: DevArgs) -> Result<(), Failure> {
    let began = Instant::now();
    let mut signals = StopSignals::listen().or_exit(Exit::Io)?;
    let layout = Layout::prepare(&args.dir)?;
    let settings = Settings::settle(&layout, args.replicas, args.port)?;
    let plans = settings.plan(&layout)?;
    settings::check_ports(&plans)?;
    settings.remember(&layout)?;
    layout.forget_running()?;
    let mut replicas = Vec::new();
    for plan in &plans {
        layout.write_config(plan, &plans)?;
        replicas.push(RunningReplica::start(plan)?);
    }
    let mut stops = Stops::default();
    let mut ends: FuturesUnordered<_> = replicas
        .into_iter()
        .map(|replica| {
            let (stop, ended) = replica.supervise();
            stops.0.push(stop);
            ended
        })
        .collect();

    let started = tokio::select! {
        ready = ready::wait(&plans) => ready.map(|()| Started::Ready),
        Some(ended) = ends.next() => Err(ended.failed_to_start()),
        (name, _) = signals.next() => Ok(Started::Interrupted(name)),
    };
    let outcome = match started {
        Ok(Started::Ready) => {
            layout.write_running(&plans, &stops.pids())?;
            announce(&layout, &plans, began.elapsed());
            supervise(&mut ends, &mut signals).await
        }
        Ok(Started::Interrupted(name)) => {
            print::line(&format!("{name} before the cluster was ready"));
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    stop(stops, ends, &mut signals).await;
    outcome
}

enum Started {
    Ready,
    Interrupted(&'static str),
}

/// The ends by which replicas are stopped.
#[derive(Default)]
struct Stops(Vec<replica::StopHandle>);

impl Stops {
    fn pids(&self) -> Vec<u32> {
        self.0.iter().map(replica::StopHandle::pid).collect()
    }
}

/// Reports replicas that end, until a signal comes or none is left.
async fn supervise(
    ends: &mut FuturesUnordered<impl Future<Output = Ended>>,
    signals: &mut StopSignals,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            (name, _) = signals.next() => {
                print::line(&format!("{name}: draining all replicas; once more stops at once"));
                return Ok(());
            }
            ended = ends.next() => match ended {
                Some(ended) => print::problem(&ended.report()),
                None => return Err(Failure::new(Exit::Unavailable, "no replica is left")),
            },
        }
    }
}

/// Lets every replica drain, and kills what does not end or what a second signal hurries.
async fn stop(
    stops: Stops,
    mut ends: FuturesUnordered<impl Future<Output = Ended>>,
    signals: &mut StopSignals,
) {
    let mut kills = Vec::new();
    for handle in stops.0 {
        kills.push(handle.drain());
    }
    let limit = tokio::time::sleep(Limits::default().drain() + STOP_EXTRA);
    let all_ended = async { while ends.next().await.is_some() {} };
    let hurried = tokio::select! {
        () = all_ended => false,
        () = limit => true,
        _ = signals.next() => true,
    };
    if hurried {
        kills.into_iter().for_each(replica::KillHandle::kill);
        while ends.next().await.is_some() {}
    }
}

fn announce(layout: &Layout, plans: &[ReplicaPlan], took: Duration) {
    let (Some(first), Some(last)) = (plans.first(), plans.last()) else { return };
    let mut text = format!(
        "Tercet is ready after {:.1} s: {} in {}\n",
        took.as_secs_f64(),
        if plans.len() == 1 { "1 replica".to_owned() } else { format!("{} replicas", plans.len()) },
        layout.dir().display()
    );
    for plan in plans {
        text.push_str(&format!(
            "  {}  registry {}  status http://{}/\n",
            plan.name, plan.registry, plan.ops
        ));
    }
    let (to, from) = (&first.registry, &last.registry);
    text.push_str(&format!(
        "\nPush through one replica and pull through another. IMAGE is any image you have.\n\
         \n  docker tag IMAGE {to}/demo/image:1\n  docker push {to}/demo/image:1\n  docker pull \
         {from}/demo/image:1\n\
         \n  podman push --tls-verify=false IMAGE {to}/demo/image:1\n  podman pull \
         --tls-verify=false {from}/demo/image:1\n\
         \n  skopeo copy --dest-tls-verify=false containers-storage:IMAGE \
         docker://{to}/demo/image:1\n  skopeo copy --src-tls-verify=false \
         docker://{from}/demo/image:1 oci:./image:1\n\
         \nSee the replicas:  {} status --ops {}\nCtrl-C stops all; the same command resumes.",
        replica::shown_program(),
        first.ops
    ));
    print::line(&text);
}
