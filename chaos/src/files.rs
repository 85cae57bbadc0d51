//! What lies on a replica's disk.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::not_shown::{OrNotShown as _, ensure_shown};

/// The regular files below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCount {
    /// Paths relative to the folder.
    pub paths: BTreeSet<PathBuf>,
}

/// Lists the files below `folder`; a missing folder has none. Files that vanish meanwhile are not counted.
pub fn count_files(folder: &Path) -> Result<FileCount> {
    let mut count = FileCount::default();
    let mut open = vec![folder.to_path_buf()];
    while let Some(current) = open.pop() {
        let entries = match fs::read_dir(&current) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("list {}", current.display())),
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => {
                    let path = entry.path();
                    let inner = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
                    count.paths.insert(inner);
                }
                Err(_) => {}
            }
        }
    }
    Ok(count)
}

/// Bytes that the files below `folder` take on their disk; those that vanish meanwhile take none.
pub(crate) fn folder_bytes(folder: &Path) -> Result<u64> {
    let files = count_files(folder)?.paths;
    let sizes = files.iter().filter_map(|path| fs::metadata(folder.join(path)).ok());
    Ok(sizes.map(|file| file.blocks() * 512).sum())
}

/// Copies a folder with all that is in it, owners and times too.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let status =
        Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().or_not_shown()?;
    ensure_shown!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
    Ok(())
}
