//! Looks every second whether the htpasswd file or the configuration file has changed, and uses what has.
//!
//! By content, not by time stamps or notifications: Kubernetes swaps symbolic links, editors write new
//! files, network file systems notify nobody. A change counts when two looks in a row have seen it, since
//! `htpasswd` writes into the file that is being read. What cannot be used changes nothing, is told once,
//! and is tried again at every look: what was wrong may have been a third file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::AccessControl;
use super::accounts::{self, Accounts};
use super::rules::Rules;
use crate::config::{self, Access, Sources};
use crate::ops::Metrics;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the largest configuration file that is compared.
const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The worker.
pub(super) struct Reload {
    control: Arc<AccessControl>,
    sources: Sources,
    metrics: Arc<Metrics>,
    /// What was seen by the last look.
    seen: Option<Content>,
    /// What was last used.
    used: Option<Content>,
    /// What could not be used, and why, as it was last told.
    told: Option<(Content, String)>,
    /// Where the configuration that was last read has its users, used or not.
    htpasswd: Option<PathBuf>,
}

/// Both files, or why one cannot be read.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    config: Option<Result<Vec<u8>, String>>,
    htpasswd_path: Option<PathBuf>,
    htpasswd: Option<Result<String, String>>,
}

/// What came of a content.
enum Applied {
    Used,
    /// The configuration names another htpasswd file than the one that was read with it; it is looked at
    /// from the next look on.
    ElsewhereNow,
}

impl Reload {
    pub(super) fn new(
        control: Arc<AccessControl>,
        sources: Sources,
        metrics: Arc<Metrics>,
    ) -> Self {
        let htpasswd = control.authenticator.access().htpasswd.clone();
        Self { control, sources, metrics, seen: None, used: None, told: None, htpasswd }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(this) => self = this,
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
    }

    /// One look. Reads files: not for a thread of the runtime.
    fn look(&mut self) {
        let content = self.read();
        let settled = self.seen.as_ref() == Some(&content);
        if settled && self.used.as_ref() != Some(&content) {
            match self.apply(&content) {
                Ok(Applied::Used) => {
                    self.used = Some(content.clone());
                    self.told = None;
                }
                Ok(Applied::ElsewhereNow) => {}
                Err(problem) => self.tell((content.clone(), problem)),
            }
        }
        self.seen = Some(content);
    }

    /// Once for each content and what is wrong with it.
    fn tell(&mut self, told: (Content, String)) {
        if self.told.as_ref() != Some(&told) {
            self.metrics.access_reload_failures.inc();
            tracing::error!(error = told.1, "access control goes on as it was");
        }
        self.told = Some(told);
    }

    fn read(&self) -> Content {
        Content {
            config: self.sources.file.as_deref().map(bytes_of),
            htpasswd_path: self.htpasswd.clone(),
            htpasswd: self.htpasswd.as_deref().map(text_of),
        }
    }

    fn apply(&mut self, content: &Content) -> Result<Applied, String> {
        let now = self.control.authenticator.access();
        let next = match &content.config {
            None => Access::clone(&now),
            Some(Err(problem)) => return Err(problem.clone()),
            Some(Ok(_)) => {
                let loaded = config::load(&self.sources).map_err(|error| error.to_string())?;
                Self::allowed_change(&now, loaded.access)?
            }
        };
        if next.htpasswd != content.htpasswd_path {
            self.htpasswd = next.htpasswd;
            return Ok(Applied::ElsewhereNow);
        }
        let htpasswd = content.htpasswd.clone().transpose()?;
        let accounts =
            Accounts::of(&next, htpasswd.as_deref()).map_err(|error| error.to_string())?;
        let rules = Rules::compile(&next.rules).map_err(|problems| problems.join("; "))?;
        let authenticator = &self.control.authenticator;
        if next == *now && accounts == *authenticator.accounts() {
            return Ok(Applied::Used);
        }
        let (users, robots) = accounts.count();
        tracing::info!(users, robots, rules = next.rules.len(), "access control reloaded");
        // Rules last: who is new gets rights when there is a way to show who they are.
        authenticator.set_accounts(accounts);
        authenticator.set_access(next);
        self.control.rules.store(Arc::new(rules));
        Ok(Applied::Used)
    }

    /// What of a new `[access]` can be used without a restart.
    fn allowed_change(now: &Access, mut next: Access) -> Result<Access, String> {
        if next.rules.is_empty() && !now.rules.is_empty() {
            return Err(
                "the last access rule is gone, which would let everybody do everything; if \
                        that is meant, restart the replica"
                    .to_owned(),
            );
        }
        if next.kubernetes != now.kubernetes {
            tracing::warn!("access.kubernetes has changed; that needs a restart");
            next.kubernetes = now.kubernetes.clone();
        }
        Ok(next)
    }
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let told = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(told)?;
    file.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes).map_err(told)?;
    Ok(bytes)
}

fn text_of(path: &Path) -> Result<String, String> {
    accounts::read(path).map_err(|error| error.to_string())
}
