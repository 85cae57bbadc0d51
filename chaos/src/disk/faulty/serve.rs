//! Answers the kernel's questions about one disk.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::statvfs;

use super::{
    faults::{Call, DiskFaults, Met},
    tree::{Node, Tree, write_back},
};

/// Nobody changes the disk behind the kernel's back; when the power is lost it is mounted anew.
const VALID: Duration = Duration::from_secs(3_600);
/// Inodes are never used again.
const GENERATION: Generation = Generation(0);
/// Of `fallocate`: what is promised lies beyond the end, too.
const KEEP_SIZE: i32 = 1;

type Entry = (INodeNo, FileType, OsString);

/// One disk, as the threads that serve it share it.
#[derive(Debug)]
pub(super) struct Disk {
    /// A folder of the real disk, for what it has left.
    pub(super) folder: PathBuf,
    pub(super) tree: Mutex<Tree>,
    pub(super) faults: DiskFaults,
    /// Without power: nothing is answered any more but EIO, so nothing becomes durable.
    pub(super) off: AtomicBool,
    listings: Mutex<HashMap<u64, Arc<Vec<Entry>>>>,
    next_listing: AtomicU64,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, tree: Tree) -> Self {
        Self {
            folder,
            tree: Mutex::new(tree),
            faults: DiskFaults::default(),
            off: AtomicBool::new(false),
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
        }
    }

    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Arc<Vec<Entry>>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> Result<(), Errno> {
        if self.off.load(Ordering::Acquire) { Err(Errno::EIO) } else { Ok(()) }
    }

    /// The tree, unless the power is off. Asked with the lock held, so that nothing slips through in between.
    fn tree_on(&self) -> Result<MutexGuard<'_, Tree>, Errno> {
        let tree = self.tree();
        self.powered()?;
        Ok(tree)
    }

    fn meet(&self, call: Call, path: impl FnOnce(&Tree) -> PathBuf) -> Result<Met, Errno> {
        match self.faults.meet(call, || path(&self.tree())) {
            Met::Failed(error) => Err(error),
            met => Ok(met),
        }
    }

    fn node(&self, inode: INodeNo) -> Result<Arc<Node>, Errno> {
        self.tree_on()?.node(inode)
    }

    fn attributes(&self, inode: INodeNo) -> Result<fuser::FileAttr, Errno> {
        let tree = self.tree_on()?;
        tree.attributes(&*tree.node(inode)?)
    }

    fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<fuser::FileAttr, Errno> {
        let tree = self.tree_on()?;
        tree.attributes(&*tree.find(parent, name)?)
    }

    fn create(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        kind: FileType,
    ) -> Result<(Arc<Node>, fuser::FileAttr), Errno> {
        self.meet(Call::Create, |tree| tree.path_in(parent, name))?;
        let mut tree = self.tree_on()?;
        let node = match tree.create(parent, name, mode, kind) {
            // Somebody else was faster, which the kernel has not seen.
            Err(error) if error.code() == Errno::EEXIST.code() && kind == FileType::RegularFile => {
                tree.find(parent, name)?
            }
            created => created?,
        };
        let attributes = tree.attributes(&node)?;
        Ok((node, attributes))
    }

    fn link(
        &self,
        inode: INodeNo,
        parent: INodeNo,
        name: &OsStr,
    ) -> Result<fuser::FileAttr, Errno> {
        self.meet(Call::Create, |tree| tree.path_in(parent, name))?;
        let mut tree = self.tree_on()?;
        let node = tree.link(inode, parent, name)?;
        tree.attributes(&node)
    }

    fn rename(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mut tree = self.tree_on()?;
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return tree.exchange(from, to);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && tree.find(to.0, to.1).is_ok() {
            return Err(Errno::EEXIST);
        }
        tree.rename(from, to)
    }

    fn open(&self, inode: INodeNo) -> Result<(), Errno> {
        self.node(inode)?.content()?.opened();
        Ok(())
    }

    fn close(&self, inode: INodeNo) -> Result<(), Errno> {
        // Also without power: the processes are being killed.
        let mut tree = self.tree();
        let node = tree.node(inode)?;
        node.content()?.closed();
        tree.closed(&node);
        Ok(())
    }

    fn read(&self, inode: INodeNo, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.meet(Call::Read, |tree| tree.path(inode))?;
        let node = self.node(inode)?;
        Ok(node.content()?.read(offset, size as usize)?)
    }

    fn write(&self, inode: INodeNo, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let met = self.meet(Call::Write, |tree| tree.path(inode))?;
        let bytes = match met {
            Met::Short if bytes.len() > 1 => bytes.get(..bytes.len() / 2).unwrap_or(bytes),
            _ => bytes,
        };
        let node = self.node(inode)?;
        let mut content = node.content()?;
        self.powered()?;
        content.write(offset, bytes)?;
        write_back(&mut content);
        u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
    }

    fn allocate(&self, inode: INodeNo, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        if mode & !KEEP_SIZE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.meet(Call::Space, |tree| tree.path(inode))?;
        let node = self.node(inode)?;
        let mut content = node.content()?;
        self.powered()?;
        Ok(content.allocate(offset, length, mode & KEEP_SIZE != 0)?)
    }

    fn sync(&self, inode: INodeNo) -> Result<(), Errno> {
        self.meet(Call::Sync, |tree| tree.path(inode))?;
        let node = self.node(inode)?;
        let mut content = node.content()?;
        self.powered()?;
        content.sync();
        Ok(())
    }

    fn sync_directory(&self, inode: INodeNo) -> Result<(), Errno> {
        self.meet(Call::Sync, |tree| tree.path(inode))?;
        self.tree_on()?.sync_directory(inode);
        Ok(())
    }

    fn set_attributes(
        &self,
        inode: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
        modified: Option<TimeOrNow>,
    ) -> Result<fuser::FileAttr, Errno> {
        let node = self.node(inode)?;
        if let Some(mode) = mode {
            node.set_permissions(mode);
        }
        if let Some(size) = size {
            self.meet(Call::Space, |tree| tree.path(inode))?;
            let mut content = node.content()?;
            self.powered()?;
            content.resize(size)?;
            write_back(&mut content);
        }
        if let (Some(time), false) = (modified, node.is_directory()) {
            let time = match time {
                TimeOrNow::SpecificTime(time) => time,
                TimeOrNow::Now => SystemTime::now(),
            };
            node.content()?.set_modified(time)?;
        }
        self.attributes(inode)
    }

    fn list(&self, inode: INodeNo) -> Result<u64, Errno> {
        let entries = self.tree_on()?.list(inode)?;
        let number = self.next_listing.fetch_add(1, Ordering::Relaxed);
        self.listings().insert(number, Arc::new(entries));
        Ok(number)
    }
}

/// What a session of the kernel has.
#[derive(Debug)]
pub(super) struct Server(pub(super) Arc<Disk>);

/// Answers a call that has nothing to say.
fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(result: Result<fuser::FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&VALID, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn answer_attributes(result: Result<fuser::FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&VALID, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(self.0.lookup(parent, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(self.0.attributes(ino), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer_attributes(self.0.set_attributes(ino, mode, size, mtime), reply);
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.create(parent, name, mode & !umask, FileType::RegularFile);
        answer_entry(made.map(|(_, attributes)| attributes), reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.create(parent, name, mode & !umask, FileType::Directory);
        answer_entry(made.map(|(_, attributes)| attributes), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.0.create(parent, name, mode & !umask, FileType::RegularFile);
        let opened = made.and_then(|(node, attributes)| {
            node.content()?.opened();
            Ok(attributes)
        });
        match opened {
            Ok(attributes) => {
                reply.created(&VALID, &attributes, GENERATION, FileHandle(0), FopenFlags::empty())
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let tree = self.0.tree_on();
        answer(tree.and_then(|mut tree| tree.remove(parent, name, FileType::RegularFile)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let tree = self.0.tree_on();
        answer(tree.and_then(|mut tree| tree.remove(parent, name, FileType::Directory)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(self.0.rename((parent, name), (newparent, newname), flags), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        answer_entry(self.0.link(ino, newparent, newname), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open(ino) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(ino, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(ino, offset, data) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        answer(self.0.close(ino), reply);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.0.sync(ino), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.list(ino) {
            Ok(listing) => reply.opened(FileHandle(listing), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self.0.listings().get(&fh.0).cloned();
        let Some(listing) = listing else { return reply.error(Errno::EBADF) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (number, (inode, kind, name)) in listing.iter().enumerate().skip(from) {
            if reply.add(*inode, number as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.listings().remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.0.sync_directory(ino), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(self.0.allocate(ino, offset, length, mode), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match statvfs(&self.0.folder) {
            Ok(found) => reply.statfs(
                found.f_blocks,
                found.f_bfree,
                found.f_bavail,
                found.f_files,
                found.f_ffree,
                u32::try_from(found.f_bsize).unwrap_or(4_096),
                255,
                u32::try_from(found.f_frsize).unwrap_or(4_096),
            ),
            Err(error) => reply.error(Errno::from_i32(error.raw_os_error())),
        }
    }
}
