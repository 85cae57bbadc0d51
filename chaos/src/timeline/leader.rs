//! Asks the replicas all the time who leads.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::Recorder;
use crate::status::Status;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(300);
/// One that is dead, stopped or cut off must not hold up the others.
const PATIENCE: Duration = Duration::from_secs(1);

/// Goes on until it is dropped. Replicas that do not answer are no trouble.
#[derive(Debug)]
pub(crate) struct LeaderWatch {
    pages: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl LeaderWatch {
    /// Starts to look, with a client that reaches the ops listeners of all replicas.
    pub(crate) fn start(http: reqwest::Client, recorder: Arc<Recorder>) -> Self {
        let pages = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(watch(http, Arc::clone(&pages), recorder));
        Self { pages, task }
    }

    /// Whom to ask from now on: base URLs of ops listeners.
    pub(crate) fn ask(&self, bases: impl IntoIterator<Item = String>) {
        let pages = bases.into_iter().map(|base| format!("{base}/status")).collect();
        *self.pages.lock().unwrap_or_else(PoisonError::into_inner) = pages;
    }
}

impl Drop for LeaderWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(http: reqwest::Client, pages: Arc<Mutex<Vec<String>>>, recorder: Arc<Recorder>) {
    loop {
        let asked = pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = join_all(asked.iter().map(|page| status(&http, page))).await;
        let answers: Vec<Status> = answers.into_iter().flatten().collect();
        if let Some((leader, term)) = newest(&answers) {
            recorder.leader(leader, term);
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn status(http: &reqwest::Client, page: &str) -> Option<Status> {
    let answer = http.get(page).timeout(PATIENCE).send().await.ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

/// What those say who know the newest term: a leader that is cut off does not know that it leads no more.
fn newest(answers: &[Status]) -> Option<(Option<&str>, u64)> {
    let term = answers.iter().map(|status| status.term).max()?;
    let of_term = answers.iter().filter(|status| status.term == term);
    Some((of_term.filter_map(|status| status.leader.as_deref()).next(), term))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(leader: Option<&str>, term: u64) -> Status {
        Status {
            cluster_id: String::new(),
            name: String::new(),
            node_id: 1,
            version: String::new(),
            leader: leader.map(str::to_owned),
            term,
            applied: 0,
            feature_level: 0,
            refused: None,
            members: Vec::new(),
        }
    }

    #[test]
    fn the_newest_term_counts() {
        assert_eq!(newest(&[]), None);
        let cut_off = [status(Some("a"), 3), status(None, 4), status(Some("b"), 4)];
        assert_eq!(newest(&cut_off), Some((Some("b"), 4)));
        assert_eq!(newest(&[status(Some("a"), 3), status(None, 4)]), Some((None, 4)));
    }
}
