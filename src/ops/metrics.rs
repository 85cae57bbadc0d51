//! Every metric of the process. Made once in `app`, handed down; nothing is global.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The handles that the rest of the process counts with, and the registry that renders them.
///
/// Names follow the Prometheus conventions: `tercet_` first, the unit and `_total` last.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests by `listener`, `route`, `method` and `status` (`2xx`, ...).
    pub http_requests: IntCounterVec,
    /// Seconds from the end of a request's header to the start of its response, by `listener` and
    /// `route`.
    pub http_response_seconds: HistogramVec,
    /// Connections that are open, by `listener`.
    pub connections_open: IntGaugeVec,
    /// Connections that were turned away because the cap was reached, by `listener`.
    pub connections_refused: IntCounterVec,
    /// Connections that missed a deadline, by `listener` and `reason`.
    pub connections_cut: IntCounterVec,
    /// TLS handshakes that failed, by `listener`.
    pub tls_handshake_failures: IntCounterVec,
    /// Changed TLS files that came into use, by `listener`.
    pub tls_reloads: IntCounterVec,
    /// Changed TLS files that could not be used, by `listener`.
    pub tls_reload_failures: IntCounterVec,
    /// When the certificate in use expires, in seconds since 1970, by `listener`.
    pub tls_certificate_expiry: IntGaugeVec,
    /// Blob bytes sent to clients.
    pub blob_bytes_served: IntCounter,
    /// Blob bytes received from clients.
    pub blob_bytes_received: IntCounter,
    /// Blob bytes sent to other replicas.
    pub peer_bytes_sent: IntCounter,
    /// Blob bytes received from other replicas.
    pub peer_bytes_received: IntCounter,
    /// Pulls of blobs that were not here and came through from a peer.
    pub pulled_through: IntCounter,
    /// Blobs that this replica should hold and does not.
    pub missing_blobs: IntGauge,
    /// Blobs that this replica knows to have fewer copies than there should be.
    pub under_replicated: IntGauge,
    /// How long the blob that is missing here for the longest time has been so.
    pub oldest_missing_seconds: IntGauge,
    /// What was applied when the last complete comparison of catalogue and disk began.
    pub repair_compared_applied: IntGauge,
    /// The feature level of the cluster; read at scrape.
    pub feature_level: IntGauge,
    /// Blobs that no replica has any more.
    pub unrecoverable_blobs: IntGauge,
    /// Blob bytes that scrub has read.
    pub scrub_bytes: IntCounter,
    /// Blobs that scrub found to be wrong.
    pub scrub_corrupt: IntCounter,
    /// When scrub last had read everything, in seconds since 1970; 0 before the first time.
    pub scrub_completed: IntGauge,
    /// Blobs of which the local copy could not be read to its end and a peer's was served.
    pub read_failovers: IntCounter,
    /// Blobs that this edge gave up to make room for others.
    pub edge_evicted: IntCounter,
    /// Blobs that repair brought here.
    pub repair_fetched: IntCounter,
    /// Blob bytes that repair read from other replicas.
    pub repair_bytes: IntCounter,
    /// Copies removed here because they are placed elsewhere.
    pub surplus_removed: IntCounter,
    /// Attempts of repair that failed and will be made again.
    pub repair_failed: IntCounter,
    /// Holders that a push went on without.
    pub holder_dropped: IntCounter,
    /// Upload sessions that are open.
    pub uploads_open: IntGauge,
    /// Metadata reads that were answered without the leader's word, and said so.
    pub stale_reads: IntCounter,
    /// Checks of credentials, by `method` and `result`.
    pub logins: IntCounterVec,
    /// Changes of the htpasswd file or of `[access]` that could not be used.
    pub access_reload_failures: IntCounter,
    /// Tags and manifests that retention removed, by `kind`.
    pub retention_expired: IntCounterVec,
    /// Tags and manifests that the retention rules let go of and that are still there, by `kind`.
    pub retention_candidates: IntGaugeVec,
    /// When retention last looked at every repository, in seconds since 1970.
    pub retention_completed: IntGauge,
    /// Blobs that were collected while this replica led.
    pub gc_collected: IntCounter,
    /// Their bytes.
    pub gc_collected_bytes: IntCounter,
    /// Blobs without a reference when this replica last looked, as the leader.
    pub gc_candidates: IntGauge,
    /// Files of collected blobs that were removed here.
    pub gc_unlinked: IntCounter,
    /// Files that were removed here and that no record knew.
    pub gc_orphans_removed: IntCounter,
    /// Bytes that both gave back.
    pub gc_freed_bytes: IntCounter,
    /// Raft term; read at scrape, as are all the gauges below.
    pub raft_term: IntGauge,
    /// Index of the last applied entry.
    pub raft_applied: IntGauge,
    /// Index of the last entry in the log.
    pub raft_last_log: IntGauge,
    /// How long Raft's log takes to sync, a mean over the last seconds, in microseconds.
    pub raft_fsync_microseconds: IntGauge,
    /// 1 on the leader, 0 elsewhere.
    pub raft_is_leader: IntGauge,
    /// 1 while a leader is known.
    pub raft_has_leader: IntGauge,
    /// Bytes in use on the disk of the data directory.
    pub disk_used_bytes: IntGauge,
    /// Size of that disk in bytes.
    pub disk_total_bytes: IntGauge,
    /// Inodes in use on that disk.
    pub disk_inodes_used: IntGauge,
    /// Inodes of that disk; 0 where there is no fixed number of them.
    pub disk_inodes_total: IntGauge,
    /// How full it is, from 0 for plenty to 5 for full: see `ops::disk::DiskLevel`.
    pub disk_level: IntGauge,
    /// Bytes of the reserve that is given up when it is full.
    pub disk_reserve_bytes: IntGauge,
}

impl Metrics {
    /// Builds and registers everything.
    ///
    /// # Errors
    /// When two metrics share a name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker { registry: &registry };
        let metrics = Self {
            http_requests: make.counters(
                "tercet_http_requests_total",
                "HTTP requests",
                &["listener", "route", "method", "status"],
            )?,
            http_response_seconds: make.seconds(
                "tercet_http_response_seconds",
                "Time from the end of a request's header to the start of its response",
                &["listener", "route"],
            )?,
            connections_open: make.gauges(
                "tercet_connections_open",
                "Open connections",
                &["listener"],
            )?,
            connections_refused: make.counters(
                "tercet_connections_refused_total",
                "Connections turned away because the cap was reached",
                &["listener"],
            )?,
            connections_cut: make.counters(
                "tercet_connections_cut_total",
                "Connections cut because they missed a deadline",
                &["listener", "reason"],
            )?,
            tls_handshake_failures: make.counters(
                "tercet_tls_handshake_failures_total",
                "TLS handshakes that failed",
                &["listener"],
            )?,
            tls_reloads: make.counters(
                "tercet_tls_reloads_total",
                "Changed TLS files that came into use",
                &["listener"],
            )?,
            tls_reload_failures: make.counters(
                "tercet_tls_reload_failures_total",
                "Changed TLS files that could not be used",
                &["listener"],
            )?,
            tls_certificate_expiry: make.gauges(
                "tercet_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970",
                &["listener"],
            )?,
            blob_bytes_served: make
                .counter("tercet_blob_bytes_served_total", "Blob bytes sent to clients")?,
            blob_bytes_received: make
                .counter("tercet_blob_bytes_received_total", "Blob bytes received from clients")?,
            peer_bytes_sent: make
                .counter("tercet_peer_bytes_sent_total", "Blob bytes sent to other replicas")?,
            peer_bytes_received: make.counter(
                "tercet_peer_bytes_received_total",
                "Blob bytes received from other replicas",
            )?,
            pulled_through: make.counter(
                "tercet_pulled_through_total",
                "Pulls of blobs that came through from a peer",
            )?,
            missing_blobs: make.gauge(
                "tercet_missing_blobs",
                "Blobs that this replica should hold and does not",
            )?,
            under_replicated: make.gauge(
                "tercet_under_replicated_blobs",
                "Blobs that this replica knows to have fewer copies than there should be",
            )?,
            oldest_missing_seconds: make.gauge(
                "tercet_oldest_missing_seconds",
                "How long the blob that is missing here for the longest time has been so",
            )?,
            repair_compared_applied: make.gauge(
                "tercet_repair_compared_applied",
                "Log index applied when the last complete comparison of catalogue and disk began",
            )?,
            feature_level: make
                .gauge("tercet_feature_level", "The feature level of the cluster")?,
            unrecoverable_blobs: make
                .gauge("tercet_unrecoverable_blobs", "Blobs that no replica has any more")?,
            scrub_bytes: make
                .counter("tercet_scrub_bytes_total", "Blob bytes that scrub has read")?,
            scrub_corrupt: make
                .counter("tercet_scrub_corrupt_total", "Blobs that scrub found to be wrong")?,
            scrub_completed: make.gauge(
                "tercet_scrub_last_completed_timestamp_seconds",
                "When scrub last had read everything, in seconds since 1970",
            )?,
            read_failovers: make.counter(
                "tercet_read_failovers_total",
                "Local blob reads that a peer's copy took over",
            )?,
            edge_evicted: make.counter(
                "tercet_edge_evicted_total",
                "Blobs that this edge gave up to make room for others",
            )?,
            repair_fetched: make
                .counter("tercet_repair_fetched_total", "Blobs that repair brought here")?,
            repair_bytes: make.counter(
                "tercet_repair_bytes_total",
                "Blob bytes that repair read from other replicas",
            )?,
            surplus_removed: make.counter(
                "tercet_surplus_removed_total",
                "Copies removed because they are placed elsewhere",
            )?,
            repair_failed: make
                .counter("tercet_repair_failed_total", "Attempts of repair that failed")?,
            holder_dropped: make
                .counter("tercet_holder_dropped_total", "Holders that a push went on without")?,
            uploads_open: make.gauge("tercet_uploads_open", "Open upload sessions")?,
            stale_reads: make.counter(
                "tercet_stale_reads_total",
                "Metadata reads answered without the leader's word",
            )?,
            logins: make.counters(
                "tercet_logins_total",
                "Checks of credentials",
                &["method", "result"],
            )?,
            access_reload_failures: make.counter(
                "tercet_access_reload_failures_total",
                "Changes of the htpasswd file or of [access] that could not be used",
            )?,
            retention_expired: make.counters(
                "tercet_retention_expired_total",
                "Tags and manifests that retention removed",
                &["kind"],
            )?,
            retention_candidates: make.gauges(
                "tercet_retention_candidates",
                "Tags and manifests that the retention rules let go of and that are still there",
                &["kind"],
            )?,
            retention_completed: make.gauge(
                "tercet_retention_last_completed_timestamp_seconds",
                "When retention last looked at every repository, in seconds since 1970",
            )?,
            gc_collected: make.counter(
                "tercet_gc_collected_total",
                "Blobs that were collected while this replica led",
            )?,
            gc_collected_bytes: make.counter(
                "tercet_gc_collected_bytes_total",
                "Bytes of the blobs that were collected while this replica led",
            )?,
            gc_candidates: make.gauge(
                "tercet_gc_candidates",
                "Blobs without a reference when the leader last looked",
            )?,
            gc_unlinked: make.counter(
                "tercet_gc_unlinked_total",
                "Files of collected blobs that were removed here",
            )?,
            gc_orphans_removed: make.counter(
                "tercet_gc_orphans_removed_total",
                "Blob files that no record knew and that were removed here",
            )?,
            gc_freed_bytes: make.counter(
                "tercet_gc_freed_bytes_total",
                "Bytes of the blob files that were removed here",
            )?,
            raft_term: make.gauge("tercet_raft_term", "Raft term")?,
            raft_applied: make.gauge("tercet_raft_applied_index", "Last applied log index")?,
            raft_last_log: make.gauge("tercet_raft_last_log_index", "Last index in the log")?,
            raft_fsync_microseconds: make.gauge(
                "tercet_raft_fsync_microseconds",
                "Mean time of the last fsyncs of the Raft log; 0 while hardly anything is written",
            )?,
            raft_is_leader: make.gauge("tercet_raft_is_leader", "1 on the leader")?,
            raft_has_leader: make.gauge("tercet_raft_has_leader", "1 while a leader is known")?,
            disk_used_bytes: make
                .gauge("tercet_disk_used_bytes", "Bytes in use on the data directory's disk")?,
            disk_total_bytes: make
                .gauge("tercet_disk_total_bytes", "Size of the data directory's disk")?,
            disk_inodes_used: make
                .gauge("tercet_disk_inodes_used", "Inodes in use on the data directory's disk")?,
            disk_inodes_total: make.gauge(
                "tercet_disk_inodes_total",
                "Inodes of the data directory's disk; 0 where there is no fixed number of them",
            )?,
            disk_level: make.gauge(
                "tercet_disk_level",
                "0 plenty, 1 filling, 2 repair stopped, 3 uploads refused, 4 writes refused, 5 full",
            )?,
            disk_reserve_bytes: make.gauge(
                "tercet_disk_reserve_bytes",
                "Size of the file that is given up when the disk is full; 0 once it was",
            )?,
            registry: registry.clone(),
        };
        make.gauges("tercet_build_info", "Version of this binary", &["version"])?
            .with_label_values(&[crate::VERSION])
            .set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// When the encoder refuses a metric, which would be a bug in it.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Makes a metric and registers it in one step, so that none is forgotten.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn seconds(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let metric = HistogramVec::new(HistogramOpts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_metric_registers_and_renders() {
        let metrics = Metrics::new().unwrap();
        metrics.missing_blobs.set(3);
        let text = metrics.render().unwrap();
        assert!(text.contains("tercet_missing_blobs 3"), "{text}");
        assert!(text.contains("tercet_build_info{version="), "{text}");
    }
}
