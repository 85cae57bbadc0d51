//! What can happen to files while nobody looks.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rand::{RngExt as _, rngs::StdRng};

use crate::{
    files::count_files,
    not_shown::{OrNotShown as _, ensure_shown},
};

/// Flips one bit somewhere in the part of a file that `within` names, as shares of its length.
pub(super) fn flip_bit(path: &Path, within: (f64, f64), random: &mut StdRng) -> Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    ensure_shown!(length > 0, "{} is empty", path.display());
    let share = random.random_range(within.0..within.1);
    let offset = ((length as f64 * share) as u64).min(length - 1);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    byte[0] ^= 1 << random.random_range(0..8);
    file.write_all_at(&byte, offset)?;
    Ok(offset)
}

/// Cuts a file to half its length.
pub(super) fn cut(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    Ok(file.set_len(length / 2)?)
}

/// Overwrites a page in the middle of a file with zeros.
pub(super) fn zero_page(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    let start = (length / 2) & !4_095;
    let zeros = vec![0; usize::try_from((length - start).min(4_096))?];
    Ok(file.write_all_at(&zeros, start)?)
}

/// The largest file below a folder whose name passes.
pub(super) fn largest(folder: &Path, passes: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut files = Vec::new();
    for path in count_files(folder)?.paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = folder.join(path);
        if passes(&name) {
            files.push((fs::metadata(&path)?.len(), path));
        }
    }
    files.sort();
    let found = files.pop().with_context(|| format!("no such file below {}", folder.display()));
    Ok(found.or_not_shown()?.1)
}

/// A random one of the published blobs.
pub(super) fn some_blob(data_dir: &Path, random: &mut StdRng) -> Result<PathBuf> {
    let folder = data_dir.join("blobs");
    let all: Vec<PathBuf> = count_files(&folder)?.paths.into_iter().collect();
    ensure_shown!(!all.is_empty(), "no blob below {}", folder.display());
    let index = random.random_range(0..all.len());
    Ok(folder.join(all.get(index).context("an index below the length")?))
}
