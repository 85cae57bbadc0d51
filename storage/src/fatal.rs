//! The end of the process when the disk can no longer be believed.

use std::fmt::Display;
use std::path::Path;

/// `EX_IOERR` of sysexits(3).
pub const EXIT_IO_ERROR: i32 = 74;

/// Ends the process because `operation` on `path` failed in a way that leaves unknown what is on disk.
///
/// After a failed fsync the kernel may mark the dirty pages clean, so a second fsync can succeed without
/// the data being there. Only a restart that reads the disk again is sound.
pub fn die(operation: &str, path: &Path, error: &dyn Display) -> ! {
    tracing::error!(operation, path = %path.display(), %error, "the disk failed: ending the process");
    // The subscriber may buffer or be absent; an operator must see this either way.
    eprintln!("tercet: {operation} {}: {error}: ending the process", path.display());
    std::process::exit(EXIT_IO_ERROR)
}
