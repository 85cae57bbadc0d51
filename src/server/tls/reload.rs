//! Follows the files of a listener while it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::files::Contents;
use super::source::TlsSource;
use crate::ops::Metrics;

/// How often the files are looked at. Their content is compared, because nothing cheaper is sure:
/// Kubernetes replaces a mounted Secret by moving a symbolic link two folders above, which neither
/// a watch on the file nor its modification time would tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl TlsSource {
    /// Uses changed files from the next connection on, until `stop`. Files that cannot be used
    /// change nothing but the log and the metrics.
    pub async fn follow(self: Arc<Self>, metrics: Arc<Metrics>, stop: CancellationToken) {
        let mut follower = Follower::new(self, metrics);
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            follower.look().await;
        }
    }
}

struct Follower {
    source: Arc<TlsSource>,
    metrics: Arc<Metrics>,
    /// The contents that could not be used when they were last looked at.
    refused: Option<Refused>,
    expiry_told: bool,
}

struct Refused {
    contents: Contents,
    told: bool,
}

impl Follower {
    fn new(source: Arc<TlsSource>, metrics: Arc<Metrics>) -> Self {
        let follower = Self { source, metrics, refused: None, expiry_told: false };
        let listener = [follower.source.spec.listener];
        // Present from the start, so that an alert on it has something to compare with.
        follower.metrics.tls_reloads.with_label_values(&listener);
        follower.metrics.tls_reload_failures.with_label_values(&listener);
        follower.show_expiry();
        follower
    }

    async fn look(&mut self) {
        let source = Arc::clone(&self.source);
        let read = tokio::task::spawn_blocking(move || Contents::read(&source.spec)).await;
        // Fails only if reading panicked, which ends the process.
        let Ok(contents) = read else { return };
        self.judge(contents, SystemTime::now());
    }

    fn judge(&mut self, contents: Contents, now: SystemTime) {
        if self.source.uses(&contents) {
            self.refused = None;
        } else {
            self.try_new(contents, now);
        }
        self.mind_expiry(now);
    }

    /// Contents that were refused are tried again each time: their certificate may become valid.
    fn try_new(&mut self, contents: Contents, now: SystemTime) {
        let listener = self.source.spec.listener;
        let error = match self.source.take(contents.clone(), now) {
            Ok(()) => {
                self.refused = None;
                self.expiry_told = false;
                self.metrics.tls_reloads.with_label_values(&[listener]).inc();
                self.show_expiry();
                tracing::info!(listener, "new TLS files are in use");
                return;
            }
            Err(error) => error,
        };
        match &mut self.refused {
            Some(refused) if refused.contents == contents => {
                if !refused.told {
                    refused.told = true;
                    self.metrics.tls_reload_failures.with_label_values(&[listener]).inc();
                    tracing::error!(
                        listener,
                        %error,
                        "new TLS files cannot be used; the old ones stay in use"
                    );
                }
            }
            // Nothing is said of what is seen for the first time: whoever replaces two files may be
            // between them.
            _ => self.refused = Some(Refused { contents, told: false }),
        }
    }

    fn mind_expiry(&mut self, now: SystemTime) {
        if self.source.validity().expired(now) && !self.expiry_told {
            self.expiry_told = true;
            tracing::error!(
                listener = self.source.spec.listener,
                certificate = %self.source.spec.certificate.display(),
                "the TLS certificate in use has expired; clients refuse it until it is renewed"
            );
        }
    }

    fn show_expiry(&self) {
        let gauge = &self.metrics.tls_certificate_expiry;
        gauge.with_label_values(&[self.source.spec.listener]).set(self.source.validity().expires());
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
