//! RocksDB settings: small and bounded, because several replicas may share one small machine.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

/// Block cache of one database.
const BLOCK_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// One memtable.
const WRITE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Memtables per column family, the one being written included.
const WRITE_BUFFERS_MAX: i32 = 2;
/// All memtables of one database.
const WRITE_BUFFERS_TOTAL_BYTES: usize = 24 * 1024 * 1024;
/// WAL size that forces a flush, which bounds the time to open.
const WAL_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
const OPEN_FILES_MAX: i32 = 256;
/// RocksDB's own text log.
const INFO_LOG_BYTES: usize = 1024 * 1024;
const INFO_LOG_FILES: usize = 2;

/// Settings both databases share.
pub(super) fn common() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A damaged record in the middle of the WAL is an error and not the end of the data. Recycled files
    // would make old records look like such damage.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    options.set_manual_wal_flush(false);
    // `avoid_flush_during_recovery` stays off, as it is by default: what a killed process had written and not synced is on
    // disk once the database is open. openraft takes all that it finds at its start for synced.
    options.set_max_total_wal_size(WAL_TOTAL_BYTES);
    options.set_db_write_buffer_size(WRITE_BUFFERS_TOTAL_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_stats_dump_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    options
}

/// Settings of one column family. `cache` is shared by all of a database.
pub(super) fn column(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options
}

/// A block cache for one database.
pub(super) fn cache() -> Cache {
    Cache::new_lru_cache(BLOCK_CACHE_BYTES)
}
