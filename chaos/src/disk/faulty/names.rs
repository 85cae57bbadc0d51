//! Which names there are: as every process sees them, and as they would be found after a loss of power.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
};

/// A file or a directory. Numbers are never used again.
pub(super) type Inode = u64;
/// The top of the tree.
pub(super) const ROOT: Inode = 1;

/// A name in a directory.
type Key = (Inode, OsString);

/// What one call changes, all of it or nothing: as the journal of a file system keeps a rename whole, also one
/// between two directories.
#[derive(Clone, Debug)]
struct Change {
    /// The name, and what it stands for from now on; `None`: nothing.
    sets: Vec<(Key, Option<Inode>)>,
}

/// All names. A change is seen at once, and durable once one of the directories that it touches is synced; with
/// it everything before it that it builds on.
#[derive(Debug, Default)]
pub(super) struct Names {
    live: BTreeMap<Key, Inode>,
    durable: BTreeMap<Key, Inode>,
    pending: Vec<Change>,
    /// How often an inode occurs in the three above; what does not occur is gone for good.
    uses: HashMap<Inode, usize>,
    /// Live names of an inode.
    links: HashMap<Inode, u32>,
    /// Inodes that stopped occurring.
    unused: BTreeSet<Inode>,
}

impl Names {
    pub(super) fn find(&self, directory: Inode, name: &OsStr) -> Option<Inode> {
        self.live.get(&(directory, name.to_owned())).copied()
    }

    /// What a directory lists.
    pub(super) fn list(&self, directory: Inode) -> impl Iterator<Item = (&OsStr, Inode)> {
        let range = (directory, OsString::new())..(directory + 1, OsString::new());
        self.live.range(range).map(|((_, name), inode)| (name.as_os_str(), *inode))
    }

    /// How many names an inode has.
    pub(super) fn links(&self, inode: Inode) -> u32 {
        self.links.get(&inode).copied().unwrap_or_default()
    }

    /// Makes one change; each name once.
    pub(super) fn change(&mut self, sets: Vec<(Inode, &OsStr, Option<Inode>)>) {
        let sets: Vec<(Key, Option<Inode>)> = sets
            .into_iter()
            .map(|(directory, name, inode)| ((directory, name.to_owned()), inode))
            .collect();
        for (key, inode) in &sets {
            self.set_live(key, *inode);
            if let Some(inode) = inode {
                self.used(*inode);
            }
        }
        self.pending.push(Change { sets });
    }

    /// Makes what has changed in a directory durable, and what that builds on.
    pub(super) fn sync(&mut self, directory: Inode) {
        let mut keys = BTreeSet::new();
        let mut chosen = BTreeSet::new();
        for (number, change) in self.pending.iter().enumerate().rev() {
            let touches =
                change.sets.iter().any(|(key, _)| key.0 == directory || keys.contains(key));
            if touches {
                chosen.insert(number);
                keys.extend(change.sets.iter().map(|(key, _)| key.clone()));
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (number, change) in pending.into_iter().enumerate() {
            if chosen.contains(&number) {
                self.commit(change);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Makes everything before the last `left` changes durable: nothing stays in memory for ever.
    pub(super) fn write_back(&mut self, left: usize) {
        let old = self.pending.len().saturating_sub(left);
        let rest = self.pending.split_off(old);
        for change in std::mem::replace(&mut self.pending, rest) {
            self.commit(change);
        }
    }

    /// Changes that are not durable.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The power is gone and back: the first `kept` changes have reached the disk, the others have not. Returns
    /// what can be reached from the top.
    pub(super) fn lose(&mut self, kept: usize) -> BTreeSet<Inode> {
        let mut changes = std::mem::take(&mut self.pending).into_iter();
        for change in changes.by_ref().take(kept) {
            self.commit(change);
        }
        let mut reached = BTreeSet::from([ROOT]);
        let mut queue = vec![ROOT];
        while let Some(directory) = queue.pop() {
            let range = (directory, OsString::new())..(directory + 1, OsString::new());
            for inode in self.durable.range(range).map(|(_, inode)| *inode) {
                if reached.insert(inode) {
                    queue.push(inode);
                }
            }
        }
        self.durable.retain(|(directory, _), _| reached.contains(directory));
        self.live = self.durable.clone();
        self.links.clear();
        self.uses.clear();
        self.unused.clear();
        for inode in self.durable.values() {
            *self.links.entry(*inode).or_default() += 1;
            *self.uses.entry(*inode).or_default() += 2;
        }
        reached
    }

    /// Whether a name stands for an inode, or may do so after a loss of power.
    pub(super) fn is_used(&self, inode: Inode) -> bool {
        inode == ROOT || self.uses.contains_key(&inode)
    }

    /// Inodes that no name stands for any more, and never will again.
    pub(super) fn take_unused(&mut self) -> BTreeSet<Inode> {
        let mut gone = BTreeSet::new();
        while let Some(inode) = self.unused.pop_first() {
            gone.insert(inode);
            // Of a directory: what it had on the disk goes with it.
            let range = (inode, OsString::new())..(inode + 1, OsString::new());
            let keys: Vec<Key> = self.durable.range(range).map(|(key, _)| key.clone()).collect();
            for key in keys {
                if let Some(inode) = self.durable.remove(&key) {
                    self.unuse(inode);
                }
            }
        }
        gone
    }

    fn commit(&mut self, change: Change) {
        for (key, inode) in change.sets {
            let before = match inode {
                Some(inode) => {
                    // From the list of changes to the disk.
                    self.durable.insert(key, inode)
                }
                None => self.durable.remove(&key),
            };
            if let Some(before) = before {
                self.unuse(before);
            }
        }
    }

    fn set_live(&mut self, key: &Key, inode: Option<Inode>) {
        let before = match inode {
            Some(inode) => {
                self.used(inode);
                *self.links.entry(inode).or_default() += 1;
                self.live.insert(key.clone(), inode)
            }
            None => self.live.remove(key),
        };
        if let Some(before) = before {
            if let Some(links) = self.links.get_mut(&before) {
                *links = links.saturating_sub(1);
            }
            self.unuse(before);
        }
    }

    fn used(&mut self, inode: Inode) {
        *self.uses.entry(inode).or_default() += 1;
        self.unused.remove(&inode);
    }

    fn unuse(&mut self, inode: Inode) {
        if let Some(uses) = self.uses.get_mut(&inode) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.uses.remove(&inode);
                self.links.remove(&inode);
                self.unused.insert(inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn set(names: &mut Names, directory: Inode, name: &str, inode: Inode) {
        names.change(vec![(directory, OsStr::new(name), Some(inode))]);
    }

    fn rename(names: &mut Names, from: (Inode, &str), to: (Inode, &str), inode: Inode) {
        names.change(vec![
            (from.0, OsStr::new(from.1), None),
            (to.0, OsStr::new(to.1), Some(inode)),
        ]);
    }

    fn found(names: &Names, directory: Inode, name: &str) -> Option<Inode> {
        names.find(directory, OsStr::new(name))
    }

    #[test]
    fn a_name_survives_if_its_directory_was_synced() {
        let mut names = Names::default();
        set(&mut names, ROOT, "kept", 2);
        names.sync(ROOT);
        set(&mut names, ROOT, "lost", 3);
        assert_eq!(found(&names, ROOT, "lost"), Some(3));
        assert_eq!(names.lose(0), BTreeSet::from([ROOT, 2]));
        assert_eq!((found(&names, ROOT, "kept"), found(&names, ROOT, "lost")), (Some(2), None));
    }

    #[test]
    fn what_is_in_a_directory_without_a_durable_name_is_lost_with_it() {
        let mut names = Names::default();
        set(&mut names, ROOT, "directory", 2);
        set(&mut names, 2, "file", 3);
        names.sync(2);
        assert_eq!(names.lose(0), BTreeSet::from([ROOT]));
        assert_eq!(found(&names, 2, "file"), None);
    }

    #[test]
    fn a_rename_is_whole_whichever_of_its_directories_is_synced() {
        for synced in [2, 3] {
            let mut names = Names::default();
            set(&mut names, ROOT, "from", 2);
            set(&mut names, ROOT, "to", 3);
            names.sync(ROOT);
            set(&mut names, 2, "upload", 4);
            rename(&mut names, (2, "upload"), (3, "blob"), 4);
            set(&mut names, 2, "other", 5);
            names.sync(synced);
            names.lose(0);
            assert_eq!(found(&names, 2, "upload"), None, "{synced}");
            assert_eq!(found(&names, 3, "blob"), Some(4), "{synced}");
            assert_eq!(found(&names, 2, "other"), (synced == 2).then_some(5));
        }
    }

    #[test]
    fn a_rename_over_a_name_without_a_sync_leaves_the_old_file() {
        let mut names = Names::default();
        set(&mut names, ROOT, "file", 2);
        set(&mut names, ROOT, "file.tmp", 3);
        names.sync(ROOT);
        rename(&mut names, (ROOT, "file.tmp"), (ROOT, "file"), 3);
        assert_eq!(found(&names, ROOT, "file"), Some(3));
        assert!(names.take_unused().is_empty(), "the old file is still on the disk");
        names.lose(0);
        assert_eq!(found(&names, ROOT, "file"), Some(2));
        assert_eq!(found(&names, ROOT, "file.tmp"), Some(3));

        rename(&mut names, (ROOT, "file.tmp"), (ROOT, "file"), 3);
        assert_eq!(names.pending(), 1);
        names.lose(1);
        assert_eq!(found(&names, ROOT, "file"), Some(3));
    }

    #[test]
    fn what_no_name_can_stand_for_any_more_is_unused_once() {
        let mut names = Names::default();
        set(&mut names, ROOT, "file", 2);
        names.change(vec![(ROOT, OsStr::new("file"), None)]);
        assert_eq!(names.links(2), 0);
        assert!(names.take_unused().is_empty(), "its creation may still reach the disk alone");
        names.sync(ROOT);
        assert_eq!(names.take_unused(), BTreeSet::from([2]));

        set(&mut names, ROOT, "one", 3);
        set(&mut names, ROOT, "two", 3);
        assert_eq!(names.links(3), 2);
        names.change(vec![(ROOT, OsStr::new("one"), None)]);
        names.write_back(0);
        assert_eq!((names.links(3), names.pending()), (1, 0));
        assert!(names.take_unused().is_empty());
        assert_eq!(names.lose(0), BTreeSet::from([ROOT, 3]));
    }
}
