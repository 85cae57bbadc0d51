//! One backup as a tar file, in the layout of a directory, its manifest first.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};
use tercet_storage::{Digest, DigestHasher, sync_dir, sync_file};

use super::directory::{BackupDir, blob_name};
use super::error::BackupError;
use super::manifest::Manifest;
use super::progress::Progress;

/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes buffered on the way to the file.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Turns a finished directory into the file `to`. Each blob is removed from the directory once it is in
/// the file, so that both together need little more space than one; the directory is of no use after.
pub(crate) fn write(
    directory: &BackupDir,
    manifest: &Manifest,
    blobs: &[(Digest, u64)],
    to: &Path,
    progress: &Progress,
) -> Result<(), BackupError> {
    let temporary = beside(to, "tmp");
    let file = File::create(&temporary).map_err(BackupError::io("create", &temporary))?;
    let mut archive = Builder::new(io::BufWriter::with_capacity(BUFFER_BYTES, file));
    let failed = BackupError::io("write", &temporary);
    let wrote = (|| -> Result<(), WriteError> {
        let bytes = manifest.to_bytes()?;
        let name = Path::new("backups").join(format!("{}.json", manifest.id));
        append(&mut archive, &name, bytes.len() as u64, bytes.as_slice())?;
        for file in &manifest.files {
            let path = directory.metadata(&manifest.id).join(&file.name);
            let name = Path::new("metadata").join(&manifest.id).join(&file.name);
            append_verified(&mut archive, &name, &path, &file.digest, file.size)?;
        }
        for (digest, size) in blobs {
            let path = directory.blob(digest);
            append_verified(&mut archive, &blob_name(digest), &path, digest, *size)?;
            fs::remove_file(&path)?;
            progress.advance(*size);
        }
        Ok(archive.finish()?)
    })();
    match wrote {
        Ok(()) => {}
        Err(WriteError::Io(error)) => return Err(failed(error)),
        Err(WriteError::Backup(error)) => return Err(error),
    }
    let mut buffer = archive.into_inner().map_err(BackupError::io("write", &temporary))?;
    buffer.flush().map_err(BackupError::io("write", &temporary))?;
    sync_file(buffer.get_ref(), &temporary);
    fs::rename(&temporary, to).map_err(BackupError::io("rename to", to))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(sync_dir(parent.unwrap_or(Path::new(".")))?)
}

enum WriteError {
    Io(io::Error),
    Backup(BackupError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BackupError> for WriteError {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

fn append(
    archive: &mut Builder<impl Write>,
    name: &Path,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    archive.append_data(&mut header, name, content)
}

/// Also hashes what it reads: the archive must not carry a file that has rotted since it was fetched.
fn append_verified(
    archive: &mut Builder<impl Write>,
    name: &Path,
    path: &Path,
    digest: &Digest,
    size: u64,
) -> Result<(), WriteError> {
    let file = File::open(path).map_err(BackupError::io("open", path))?;
    let mut reader =
        Hashing { inner: file, hasher: DigestHasher::new(digest.algorithm()), read: 0 };
    append(archive, name, size, (&mut reader).take(size))?;
    let actual = reader.hasher.finish();
    if reader.read != size || actual != *digest {
        let reason = format!("it has {} bytes of {size} and digest {actual}", reader.read);
        return Err(BackupError::damaged(name.display().to_string(), reason).into());
    }
    Ok(())
}

struct Hashing<R> {
    inner: R,
    hasher: DigestHasher,
    read: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(bytes) = buffer.get(..read) {
            self.hasher.update(bytes);
        }
        self.read += read as u64;
        Ok(read)
    }
}

/// What an entry of the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Member {
    /// A file of the checkpoint.
    Metadata(String),
    /// A blob.
    Blob(Digest),
}

/// The manifest, which is the first entry.
pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, BackupError> {
    let mut archive = open(path)?;
    let mut entries = archive.entries().map_err(BackupError::io("read", path))?;
    let what = path.display().to_string();
    let Some(entry) = entries.next() else {
        return Err(BackupError::damaged(what, "it is empty"));
    };
    let entry = entry.map_err(BackupError::io("read", path))?;
    let name = entry.path().map_err(BackupError::io("read", path))?.into_owned();
    if !name.starts_with("backups") {
        return Err(BackupError::Unknown(format!("{what} is no backup of Tercet")));
    }
    let mut bytes = Vec::new();
    entry
        .take(MANIFEST_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(BackupError::io("read", path))?;
    Manifest::parse(&bytes, &what)
}

/// Hands every further entry to `visit`, in order. An entry that does not belong into a backup is an error.
pub(crate) fn for_each(
    path: &Path,
    manifest: &Manifest,
    mut visit: impl FnMut(Member, &mut dyn Read) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut archive = open(path)?;
    let entries = archive.entries().map_err(BackupError::io("read", path))?;
    for entry in entries.skip(1) {
        let mut entry = entry.map_err(BackupError::io("read", path))?;
        let name = entry.path().map_err(BackupError::io("read", path))?.into_owned();
        let member = member(&name, &manifest.id).filter(|_| entry.header().entry_type().is_file());
        let Some(member) = member else {
            let what = path.display().to_string();
            return Err(BackupError::damaged(what, format!("it holds {}", name.display())));
        };
        visit(member, &mut entry)?;
    }
    Ok(())
}

fn member(name: &Path, id: &str) -> Option<Member> {
    let parts: Vec<&str> = name
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    match parts.as_slice() {
        ["metadata", of, file] if *of == id => Some(Member::Metadata((*file).to_owned())),
        ["blobs", algorithm, _, hex] => {
            let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
            (blob_name(&digest) == name).then_some(Member::Blob(digest))
        }
        _ => None,
    }
}

fn open(path: &Path) -> Result<Archive<BufReader<File>>, BackupError> {
    let file = File::open(path).map_err(BackupError::io("open", path))?;
    Ok(Archive::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

/// `<path>.<suffix>`, in the same directory.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_names_of_a_backup_are_taken() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let blob = format!("blobs/sha256/e3/{hex}");
        assert!(matches!(member(Path::new(&blob), "x"), Some(Member::Blob(_))));
        assert_eq!(
            member(Path::new("metadata/x/CURRENT"), "x"),
            Some(Member::Metadata("CURRENT".into()))
        );
        for bad in [
            "metadata/y/CURRENT",
            "metadata/x/../../etc/passwd",
            "/etc/passwd",
            &format!("blobs/sha256/e4/{hex}"),
            "blobs/sha256/e3/e3",
        ] {
            assert_eq!(member(Path::new(bad), "x"), None, "{bad}");
        }
    }
}
