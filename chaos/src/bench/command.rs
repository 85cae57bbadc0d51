//! A load as the command that does the same.

use crate::load::{Bodies, LoadOptions, Pace, PushUnit, Rest, Source, Workload};

/// `tercet-chaos load …`; without the processes, which have other numbers each time.
pub(super) fn of(options: &LoadOptions) -> String {
    let mut words = vec![format!("tercet-chaos load {}", options.workload.word())];
    let mut flag = |name: &str, value: String| words.push(format!("--{name} {value}"));
    let targets = options.targets.iter();
    let targets = targets.map(|target| format!("{}={}", target.name, target.urls.join("+")));
    flag("target", targets.collect::<Vec<_>>().join(","));
    match &options.source {
        Source::Made(sizes) => {
            flag("layers", sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        }
        Source::Existing { repository, tag } => flag("existing", format!("{repository}:{tag}")),
        Source::Paths(paths) => {
            flag("path", format!("'{}'", paths.first().map_or("", String::as_str)));
        }
    }
    if matches!(options.source, Source::Made(_)) {
        flag("repository", options.repository.clone());
    }
    flag("clients", options.clients.to_string());
    if let Pace::Open { per_second } = options.pace {
        flag("rate", per_second.to_string());
    }
    flag("seconds", options.time.as_secs_f64().ceil().to_string());
    if let Some(most) = options.operations_max {
        flag("requests", most.to_string());
    }
    flag("warm-up", options.warm_up.as_secs_f64().ceil().to_string());
    flag("rounds", options.rounds.to_string());
    flag("deadline", options.deadline.as_secs().to_string());
    if let Some(tags) = options.tags {
        flag("tags", tags.to_string());
    }
    if let Some(chunk) = options.chunk {
        flag("chunk", chunk.to_string());
    }
    if options.workload == Workload::Mixed {
        flag("mix", options.mix.to_string());
    }
    if options.ca.is_some() {
        flag("ca", "ca.pem".to_owned());
    }
    flag("seed", options.seed.to_string());
    for (is_so, name) in [
        (options.unit == PushUnit::Image, "--images"),
        (options.bodies == Bodies::Hashed, "--verify"),
        (options.rest == Rest::Synced, "--sync"),
    ] {
        if is_so {
            words.push(name.to_owned());
        }
    }
    if let Source::Paths(paths) = &options.source
        && paths.len() > 1
    {
        words.push(format!("# and {} other paths", paths.len() - 1));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Mix;

    #[test]
    fn the_command_says_what_the_load_was() {
        let options = LoadOptions {
            workload: Workload::Push,
            targets: ["a=http://127.0.0.1:1+http://127.0.0.1:2", "b=http://127.0.0.1:3"]
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            rounds: 3,
            ca: None,
            repository: "bench/push".to_owned(),
            source: Source::Made(vec![1_024, 2_048]),
            unit: PushUnit::Image,
            chunk: None,
            tags: None,
            mix: Mix::default(),
            bodies: Bodies::Counted,
            pace: Pace::Closed,
            clients: 32,
            threads: 2,
            time: Duration::from_millis(1_500),
            operations_max: Some(1_000),
            warm_up: Duration::ZERO,
            deadline: Duration::from_secs(30),
            seed: 1,
            rest: Rest::Synced,
        };
        assert_eq!(
            of(&options),
            "tercet-chaos load push --target a=http://127.0.0.1:1+http://127.0.0.1:2,\
             b=http://127.0.0.1:3 --layers 1024,2048 --repository bench/push --clients 32 \
             --seconds 2 --requests 1000 --warm-up 0 --rounds 3 --deadline 30 --seed 1 --images --sync"
        );
    }
}
