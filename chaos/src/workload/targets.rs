//! The replicas that a workload may ask, which change while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use rand::{RngExt as _, rngs::StdRng};

use crate::client::RegistryClient;

/// One client for each replica; clones share the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    clients: Arc<RwLock<Vec<RegistryClient>>>,
}

impl Targets {
    /// Replaces the list.
    pub(crate) fn set(&self, clients: Vec<RegistryClient>) {
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    /// All of them, in a random order: a client that is refused by one goes on to the next.
    pub(crate) fn shuffled(&self, random: &mut StdRng) -> Vec<RegistryClient> {
        let mut all = self.all();
        for index in (1..all.len()).rev() {
            all.swap(index, random.random_range(0..=index));
        }
        all
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<RegistryClient> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Any of them.
    pub(crate) fn any(&self, random: &mut StdRng) -> Option<RegistryClient> {
        self.shuffled(random).into_iter().next()
    }

    /// The one with a number, around and around.
    pub(crate) fn numbered(&self, number: usize) -> Option<RegistryClient> {
        let all = self.all();
        all.get(number.checked_rem(all.len())?).cloned()
    }
}
