//! By what right a replica works on the copies of an upload session.

use tercet_storage::{Fence, UploadId};

/// A session, and the right to write to it. A holder that has seen a greater right refuses: another
/// replica has taken the session over meanwhile, such as while this one was frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The session.
    pub id: UploadId,
    /// The right.
    pub fence: Fence,
}

impl Claim {
    /// That of the replica which opened the session.
    #[must_use]
    pub fn first(id: UploadId) -> Self {
        Self { id, fence: Fence::default() }
    }

    /// As parameters of a query. The first right has none, so that replicas of versions that know nothing
    /// of this are asked as ever.
    pub(super) fn query(&self) -> String {
        let Fence { epoch, server } = self.fence;
        if self.fence.is_first() {
            return String::new();
        }
        format!("&epoch={epoch}&server={server}")
    }
}
