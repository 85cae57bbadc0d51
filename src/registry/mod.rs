//! Use cases of the registry: push, pull, mount, delete, list. No HTTP types in here.

mod adopt;
mod candidates;
mod catalog;
mod chunk;
mod closing;
mod collect;
mod delete;
mod error;
mod holders;
mod list;
mod mount;
mod pull;
mod push;
mod read;
mod reaper;
mod renew;
pub(crate) mod retention;
mod run;
mod session;
mod settings;
mod sparse;
mod unlink;
mod uploads;

use tercet_storage::{Clock, SystemClock};

pub(crate) use adopt::{
    SessionStatus, choose, is_behind, leave, serve_here, served_here, status_here,
};
pub use candidates::Candidate;
pub(crate) use catalog::list_repositories;
pub(crate) use chunk::{Chunk, ChunkBody, append};
pub(crate) use closing::{OnFailure, cancel, close};
pub use collect::{CandidatePage, Collection, Comparison, GcStatus, Round};
pub(crate) use collect::{active_holds, candidates, gc_status, start_collector};
pub(crate) use delete::{delete_blob, delete_manifest, delete_tag};
pub(crate) use error::RegistryError;
pub(crate) use list::{ListPage, ReferrerQuery, list_referrers, list_tags};
pub(crate) use mount::{Mounted, find_source, mount};
pub(crate) use pull::{ByteStream, blob_size, find_manifest, open_blob};
pub(crate) use push::{ManifestPush, Precondition, push_manifest};
pub(crate) use read::Current;
pub(crate) use reaper::start_reaper;
pub(crate) use renew::check_blob;
pub use retention::Pulls;
pub(crate) use retention::{start_pulls, start_retention};
pub(crate) use session::{Session, open_session};
pub(crate) use settings::start_settings;
pub(crate) use unlink::start_unlinker;
pub use uploads::Uploads;

/// The wall clock, for ages of files only: nothing that is agreed on depends on it.
fn now_ms() -> u64 {
    SystemClock.now_ms()
}
