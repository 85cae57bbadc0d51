//! What all clients of a load have in common.

use super::{
    content::Payloads,
    options::{Kind, LoadOptions, Workload},
};
use crate::content::split_mix;

/// A load, and what was made for it before it began.
pub(super) struct Plan {
    pub(super) options: LoadOptions,
    pub(super) payloads: Payloads,
    /// Sizes of the layers that are pushed.
    pub(super) layers: Vec<usize>,
}

impl Plan {
    pub(super) fn new(options: LoadOptions) -> Self {
        let layers = options.layers();
        let payloads = Payloads::new(options.seed, &layers);
        Self { options, payloads, layers }
    }

    /// What the operation of this number is. Drawn from the seed and the number alone, so that it is the same whichever
    /// client comes to it.
    pub(super) fn kind(&self, number: u64) -> Kind {
        match self.options.workload {
            Workload::Pull => Kind::Pull,
            Workload::Manifest => Kind::Manifest,
            Workload::Push => Kind::Push,
            Workload::Tags => Kind::Tag,
            Workload::Mixed => {
                let mut state = self.options.seed.wrapping_add(number);
                self.options.mix.draw(split_mix(&mut state))
            }
            Workload::Storm => Kind::Storm,
        }
    }

    /// The size of the blob that the operation of this number pushes.
    pub(super) fn layer_size(&self, number: u64) -> usize {
        let index = number.checked_rem(self.layers.len() as u64).unwrap_or_default();
        let index = usize::try_from(index).unwrap_or_default();
        self.layers.get(index).copied().unwrap_or_default()
    }

    /// The tag that the operation of this number sets.
    pub(super) fn tag(&self, number: u64) -> String {
        match self.options.tags {
            Some(names) => format!("moved-{}", number % names.max(1)),
            None => self.payloads.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::options::tests::options, *};

    #[test]
    fn the_same_seed_draws_the_same_kinds_in_about_their_shares() {
        let plan = |seed| Plan::new(LoadOptions { workload: Workload::Mixed, seed, ..options() });
        let kinds = |seed| {
            let plan = plan(seed);
            (0..1_000).map(|number| plan.kind(number)).collect::<Vec<_>>()
        };
        let one = kinds(1);
        assert_eq!(one, kinds(1));
        assert_ne!(one, kinds(2));
        let manifests = one.iter().filter(|kind| **kind == Kind::Manifest).count();
        assert!((500..700).contains(&manifests), "{manifests} of 600");
    }

    #[test]
    fn tags_are_new_or_go_round() {
        let plan = Plan::new(LoadOptions { tags: Some(2), ..options() });
        assert_eq!([plan.tag(0), plan.tag(1), plan.tag(2)], ["moved-0", "moved-1", "moved-0"]);
        let plan = Plan::new(options());
        assert_ne!(plan.tag(0), plan.tag(0));
    }
}
