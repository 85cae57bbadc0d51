//! Backups: all metadata as of one log index, and every blob that it references.
//!
//! A backup directory holds any number of them. Blobs are shared, so each further backup costs what is new.
//!
//! ```text
//! blobs/<algorithm>/<2 hex>/<hex>   content, verified and fsynced before it has its name
//! metadata/<id>/                    the files of one checkpoint of the state database
//! backups/<id>.json                 what a backup is made of; written last: without it there is none
//! partial/                          what was being fetched when a run ended
//! lock                              held by the run that writes
//! ```
//!
//! A `.tar` file holds one backup in the same layout, its `backups/<id>.json` first.

pub(crate) mod archive;
pub(crate) mod directory;
pub(crate) mod error;
pub(crate) mod fetch;
pub(crate) mod manifest;
pub(crate) mod progress;
pub(crate) mod verified;
pub(crate) mod wire;

pub(crate) use directory::BackupDir;
pub(crate) use error::BackupError;
pub(crate) use manifest::Manifest;
pub(crate) use verified::hash_file;
