//! The files and directories of one disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::SystemTime,
};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use rand::{RngExt as _, rngs::StdRng};

use super::{
    NameLoss, PowerLoss,
    content::Content,
    names::{Inode, Names, ROOT},
};

/// More changes of names than this are written back by and by, as every kernel does after half a minute.
const PENDING_MAX: usize = 20_000;
/// The same of the bytes of one file.
const UNSYNCED_MAX: usize = 128 << 20;
const BLOCK: u32 = 4_096;

/// What came of a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Files of which something was not on the disk.
    pub(crate) files: usize,
    /// Writes and changes of length that were undone, wholly or in part.
    pub(crate) writes: usize,
    /// Changes of names that were undone.
    pub(crate) names: usize,
}

/// What an inode is.
#[derive(Debug)]
pub(super) enum Body {
    File(Mutex<Content>),
    Directory { modified: Mutex<SystemTime> },
}

/// A file or a directory.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) inode: Inode,
    pub(super) body: Body,
    permissions: AtomicU16,
    /// A name that it has or had, for faults that go by paths.
    place: Mutex<(Inode, OsString)>,
}

impl Node {
    fn new(inode: Inode, place: (Inode, OsString), permissions: u16, body: Body) -> Arc<Self> {
        let permissions = AtomicU16::new(permissions);
        Arc::new(Self { inode, body, permissions, place: Mutex::new(place) })
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    pub(super) fn file_type(&self) -> FileType {
        if self.is_directory() { FileType::Directory } else { FileType::RegularFile }
    }

    /// Its bytes; a directory has none.
    pub(super) fn content(&self) -> Result<MutexGuard<'_, Content>, Errno> {
        match &self.body {
            Body::File(content) => Ok(content.lock().unwrap_or_else(PoisonError::into_inner)),
            Body::Directory { .. } => Err(Errno::EISDIR),
        }
    }

    pub(super) fn set_permissions(&self, mode: u32) {
        self.permissions.store((mode & 0o7777) as u16, Ordering::Relaxed);
    }

    fn place(&self) -> MutexGuard<'_, (Inode, OsString)> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        if let Body::Directory { modified } = &self.body {
            *modified.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
        }
    }

    pub(super) fn attributes(&self, links: u32) -> Result<FileAttr, Errno> {
        let permissions = self.permissions.load(Ordering::Relaxed);
        let attributes = |size, blocks, modified, kind, nlink| FileAttr {
            ino: INodeNo(self.inode),
            size,
            blocks,
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: modified,
            kind,
            perm: permissions,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        };
        match &self.body {
            Body::File(_) => {
                let metadata = self.content()?.metadata()?;
                let modified = metadata.modified()?;
                let (size, blocks) = (metadata.len(), metadata.blocks());
                Ok(attributes(size, blocks, modified, FileType::RegularFile, links))
            }
            Body::Directory { modified } => {
                let modified = *modified.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(attributes(u64::from(BLOCK), 8, modified, FileType::Directory, 2))
            }
        }
    }
}

/// All of one disk. The bytes are in a folder of the real one, one file for each, named by its number.
#[derive(Debug)]
pub(super) struct Tree {
    folder: PathBuf,
    names: Names,
    nodes: BTreeMap<Inode, Arc<Node>>,
    next: Inode,
}

impl Tree {
    /// An empty disk. What is in the folder is thrown away.
    pub(super) fn new(folder: PathBuf) -> io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let modified = Mutex::new(SystemTime::now());
        let root = Node::new(ROOT, (ROOT, OsString::new()), 0o755, Body::Directory { modified });
        let nodes = BTreeMap::from([(ROOT, root)]);
        Ok(Self { folder, names: Names::default(), nodes, next: ROOT + 1 })
    }

    pub(super) fn node(&self, inode: INodeNo) -> Result<Arc<Node>, Errno> {
        self.nodes.get(&inode.0).cloned().ok_or(Errno::ENOENT)
    }

    pub(super) fn find(&self, directory: INodeNo, name: &OsStr) -> Result<Arc<Node>, Errno> {
        let inode = self.names.find(directory.0, name).ok_or(Errno::ENOENT)?;
        self.node(INodeNo(inode))
    }

    pub(super) fn attributes(&self, node: &Node) -> Result<FileAttr, Errno> {
        node.attributes(self.names.links(node.inode))
    }

    /// Where a node is or was, from the top of the disk.
    pub(super) fn path(&self, inode: INodeNo) -> PathBuf {
        let mut parts = Vec::new();
        let mut at = inode.0;
        while at != ROOT
            && let Some(node) = self.nodes.get(&at)
        {
            let (parent, name) = node.place().clone();
            parts.push(name);
            at = parent;
        }
        parts.iter().rev().collect()
    }

    pub(super) fn path_in(&self, directory: INodeNo, name: &OsStr) -> PathBuf {
        self.path(directory).join(name)
    }

    pub(super) fn list(
        &self,
        directory: INodeNo,
    ) -> Result<Vec<(INodeNo, FileType, OsString)>, Errno> {
        let node = self.node(directory)?;
        if !node.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let parent = node.place().0;
        let mut entries = vec![
            (directory, FileType::Directory, OsString::from(".")),
            (INodeNo(parent), FileType::Directory, OsString::from("..")),
        ];
        for (name, inode) in self.names.list(directory.0) {
            if let Some(node) = self.nodes.get(&inode) {
                entries.push((INodeNo(inode), node.file_type(), name.to_owned()));
            }
        }
        Ok(entries)
    }

    /// A new file, or directory.
    pub(super) fn create(
        &mut self,
        directory: INodeNo,
        name: &OsStr,
        mode: u32,
        kind: FileType,
    ) -> Result<Arc<Node>, Errno> {
        let parent = self.node(directory)?;
        if self.names.find(directory.0, name).is_some() {
            return Err(Errno::EEXIST);
        }
        if self.names.links(directory.0) == 0 && directory.0 != ROOT {
            return Err(Errno::ENOENT);
        }
        let inode = self.next;
        let body = match kind {
            FileType::RegularFile => {
                let path = self.folder.join(inode.to_string());
                File::create(&path)?;
                Body::File(Mutex::new(Content::new(path)))
            }
            FileType::Directory => Body::Directory { modified: Mutex::new(SystemTime::now()) },
            _ => return Err(Errno::EOPNOTSUPP),
        };
        self.next += 1;
        let node = Node::new(inode, (directory.0, name.to_owned()), 0, body);
        node.set_permissions(mode);
        self.nodes.insert(inode, Arc::clone(&node));
        self.change(vec![(directory.0, name, Some(inode))]);
        parent.touch();
        Ok(node)
    }

    pub(super) fn link(
        &mut self,
        inode: INodeNo,
        directory: INodeNo,
        name: &OsStr,
    ) -> Result<Arc<Node>, Errno> {
        let node = self.node(inode)?;
        if node.is_directory() {
            return Err(Errno::EPERM);
        }
        if self.names.find(directory.0, name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.change(vec![(directory.0, name, Some(inode.0))]);
        self.node(directory)?.touch();
        Ok(node)
    }

    /// Takes a name away, of a file or of an empty directory.
    pub(super) fn remove(
        &mut self,
        directory: INodeNo,
        name: &OsStr,
        kind: FileType,
    ) -> Result<(), Errno> {
        let node = self.find(directory, name)?;
        self.may_go(&node, kind)?;
        self.change(vec![(directory.0, name, None)]);
        self.node(directory)?.touch();
        Ok(())
    }

    fn may_go(&self, node: &Node, kind: FileType) -> Result<(), Errno> {
        match (kind, node.file_type()) {
            (FileType::Directory, FileType::RegularFile) => Err(Errno::ENOTDIR),
            (FileType::RegularFile, FileType::Directory) => Err(Errno::EISDIR),
            (FileType::Directory, _) if self.names.list(node.inode).next().is_some() => {
                Err(Errno::ENOTEMPTY)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rename(
        &mut self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
    ) -> Result<(), Errno> {
        let node = self.find(from.0, from.1)?;
        let replaced = self.find(to.0, to.1);
        if let Ok(replaced) = &replaced {
            if replaced.inode == node.inode {
                return Ok(());
            }
            self.may_go(replaced, node.file_type())?;
        }
        let (source, target) = (self.node(from.0)?, self.node(to.0)?);
        self.change(vec![(from.0.0, from.1, None), (to.0.0, to.1, Some(node.inode))]);
        *node.place() = (to.0.0, to.1.to_owned());
        source.touch();
        target.touch();
        Ok(())
    }

    /// Two names change places.
    pub(super) fn exchange(
        &mut self,
        one: (INodeNo, &OsStr),
        other: (INodeNo, &OsStr),
    ) -> Result<(), Errno> {
        let (first, second) = (self.find(one.0, one.1)?, self.find(other.0, other.1)?);
        self.change(vec![
            (one.0.0, one.1, Some(second.inode)),
            (other.0.0, other.1, Some(first.inode)),
        ]);
        *first.place() = (other.0.0, other.1.to_owned());
        *second.place() = (one.0.0, one.1.to_owned());
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, directory: INodeNo) {
        self.names.sync(directory.0);
        self.forget_unused();
    }

    fn change(&mut self, sets: Vec<(Inode, &OsStr, Option<Inode>)>) {
        self.names.change(sets);
        if self.names.pending() > PENDING_MAX {
            self.names.write_back(PENDING_MAX / 2);
        }
        self.forget_unused();
    }

    /// The bytes of files that have no name, now and after every loss of power, and that nobody has open, are removed.
    pub(super) fn forget_unused(&mut self) {
        for inode in self.names.take_unused() {
            let open = self
                .nodes
                .get(&inode)
                .and_then(|node| node.content().ok().map(|content| content.is_open()));
            // One that is open goes when it is closed.
            if open != Some(true) {
                self.drop_node(inode);
            }
        }
    }

    /// Nobody has the file open any more.
    pub(super) fn closed(&mut self, node: &Node) {
        let open = node.content().is_ok_and(|content| content.is_open());
        if !open && !self.names.is_used(node.inode) {
            self.drop_node(node.inode);
        }
    }

    fn drop_node(&mut self, inode: Inode) {
        if self.nodes.remove(&inode).is_some_and(|node| !node.is_directory()) {
            // A file that cannot be removed takes space in the scratch folder and goes with it.
            let _ = fs::remove_file(self.folder.join(inode.to_string()));
        }
    }

    /// The power is gone and back; nobody has anything open.
    pub(super) fn lose(&mut self, loss: PowerLoss, random: &mut StdRng) -> io::Result<Lost> {
        let pending = self.names.pending();
        let kept = match loss.names {
            NameLoss::Forgotten => 0,
            NameLoss::Kept => pending,
            NameLoss::Partly => random.random_range(0..=pending),
        };
        let reached = self.names.lose(kept);
        let mut lost = Lost { names: pending - kept, ..Lost::default() };
        let all: BTreeSet<Inode> = self.nodes.keys().copied().collect();
        for inode in all.difference(&reached) {
            self.drop_node(*inode);
        }
        for node in self.nodes.values() {
            if let Body::File(content) = &node.body {
                let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
                let writes = content.lose(loss.data, random)?;
                lost.writes += writes;
                lost.files += usize::from(writes > 0);
            }
        }
        self.find_places();
        Ok(lost)
    }

    /// After a loss of power names are what they were.
    fn find_places(&self) {
        for (directory, node) in &self.nodes {
            if node.is_directory() {
                for (name, inode) in self.names.list(*directory) {
                    if let Some(node) = self.nodes.get(&inode) {
                        *node.place() = (*directory, name.to_owned());
                    }
                }
            }
        }
    }
}

/// A file with so many bytes that were not synced is written back, as every kernel does at some bound.
pub(super) fn write_back(content: &mut Content) {
    if content.unsynced_bytes() > UNSYNCED_MAX {
        content.sync();
    }
}
