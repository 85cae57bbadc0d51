//! `[limits]`: every bound of a replica, by name, with its unit last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[limits]`. The table in `docs/src/configuration.md` says what each one is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest manifest, in bytes; more is `413`.
    pub manifest_bytes: usize,
    /// Most descriptors in one manifest.
    pub manifest_descriptors: usize,
    /// Most upload sessions that are open on this replica; more is `429`.
    pub uploads_max: usize,
    /// Age at which an upload session that nobody touches is removed, in seconds.
    pub upload_idle_seconds: u64,
    /// Most connections on one listener; more get `503` and are closed.
    pub connections_max: usize,
    /// Longest time from the first byte of a request to the end of its header, in milliseconds.
    pub header_timeout_ms: u64,
    /// Longest time from accepting a connection to its first byte, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// Longest time that a connection is kept without a request, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Slowest request body, in bytes per second, counted over 30 s of waiting for it.
    pub body_rate_min_bytes: u64,
    /// Longest time that a client may take to accept any byte of a response, in milliseconds.
    pub write_stall_ms: u64,
    /// Largest page of a list.
    pub page_size_max: usize,
    /// Most blob streams between this replica and its peers.
    pub peer_streams_max: usize,
    /// How many missing blobs are fetched at a time.
    pub repair_parallel: usize,
    /// The most that missing blobs are fetched at, in bytes per second; 0 means no bound.
    pub repair_bytes_per_second: u64,
    /// How long a copy is kept on a replica where it is not placed, after it came there, in seconds.
    pub surplus_after_seconds: u64,
    /// What a replica with the role `edge` keeps of the blobs pulled through it, in bytes.
    pub edge_cache_bytes: u64,
    /// Longest time that a push waits for one holder's queue before it goes on without that
    /// holder, in milliseconds.
    pub holder_stall_ms: u64,
    /// Use of the disk from which uploads are refused with `507`, in percent.
    pub disk_refuse_percent: u8,
    /// Use of the disk from which repair stops, in percent.
    pub disk_repair_stop_percent: u8,
    /// Use of the disk from which a warning is logged, in percent.
    pub disk_warn_percent: u8,
    /// Bytes of the disk that are never given to content: Raft and deletes need them.
    pub disk_headroom_bytes: u64,
    /// Bytes of a file that is given up when the disk is full all the same, so that Raft can go on.
    pub raft_reserve_bytes: u64,
    /// Grace for requests in flight when the process is told to stop, in seconds.
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 * 1024 * 1024,
            manifest_descriptors: 10_000,
            uploads_max: 1024,
            upload_idle_seconds: 3_600,
            connections_max: 4_096,
            header_timeout_ms: 10_000,
            first_byte_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            body_rate_min_bytes: 1_024,
            write_stall_ms: 30_000,
            page_size_max: 1_000,
            peer_streams_max: 256,
            repair_parallel: 2,
            repair_bytes_per_second: 64 * 1024 * 1024,
            surplus_after_seconds: 3_600,
            edge_cache_bytes: 10 * 1024 * 1024 * 1024,
            holder_stall_ms: 5_000,
            disk_refuse_percent: 95,
            disk_repair_stop_percent: 90,
            disk_warn_percent: 85,
            disk_headroom_bytes: 256 * 1024 * 1024,
            raft_reserve_bytes: 64 * 1024 * 1024,
            drain_seconds: 25,
        }
    }
}

impl Limits {
    /// [`Limits::upload_idle_seconds`] as a duration.
    #[must_use]
    pub fn upload_idle(&self) -> Duration {
        Duration::from_secs(self.upload_idle_seconds)
    }

    /// [`Limits::header_timeout_ms`] as a duration.
    #[must_use]
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    /// [`Limits::first_byte_timeout_ms`] as a duration.
    #[must_use]
    pub fn first_byte_timeout(&self) -> Duration {
        Duration::from_millis(self.first_byte_timeout_ms)
    }

    /// [`Limits::idle_timeout_ms`] as a duration.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// [`Limits::write_stall_ms`] as a duration.
    #[must_use]
    pub fn write_stall(&self) -> Duration {
        Duration::from_millis(self.write_stall_ms)
    }

    /// [`Limits::holder_stall_ms`] as a duration.
    #[must_use]
    pub fn holder_stall(&self) -> Duration {
        Duration::from_millis(self.holder_stall_ms)
    }

    /// [`Limits::surplus_after_seconds`] as a duration.
    #[must_use]
    pub fn surplus_after(&self) -> Duration {
        Duration::from_secs(self.surplus_after_seconds)
    }

    /// [`Limits::drain_seconds`] as a duration.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}
