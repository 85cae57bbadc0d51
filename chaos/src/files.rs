//! What lies on a replica's disk.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

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
