//! A card in memory that can be full, read-only, or pulled out in the middle of any write; and that then
//! forgets what was not synced: each sector by itself, each name by itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use packmule::carry::volume::{Entry, Sink, Source, Volume};

use crate::common::Random;

const SECTOR: usize = 512;

/// What the card, or the program that writes to it, does wrong: the controls.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Wrong {
    #[default]
    Nothing,
    /// No sync of a file has an effect.
    NoSync,
    /// The sync before the footer is left out.
    FooterFirst,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    syncs: u32,
}

#[derive(Clone, Default)]
struct Inner {
    files: Vec<File>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    /// Operations that write until the card is pulled out.
    fuel: Option<u64>,
    ops: u64,
    out: bool,
    read_only: bool,
    capacity: Option<u64>,
    tells_room: bool,
    wrong: Wrong,
    /// Every name that was asked to be removed, and by whom.
    removals: Vec<(String, PathBuf)>,
    makers: BTreeMap<PathBuf, String>,
    visitor: String,
}

#[derive(Clone, Default)]
pub struct Card(Rc<RefCell<Inner>>);

fn gone() -> io::Error {
    io::Error::other("the card is not there")
}

impl Inner {
    /// Before each operation that writes: whether it is the one at which the card is pulled out.
    fn burn(&mut self) -> io::Result<bool> {
        if self.out {
            return Err(gone());
        }
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.ops += 1;
        if let Some(fuel) = &mut self.fuel {
            *fuel -= 1;
            self.out = *fuel == 0;
        }
        Ok(self.out)
    }

    fn here(&self) -> io::Result<()> {
        if self.out { Err(gone()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.live.values().map(|at| self.files[*at].bytes.len() as u64).sum()
    }
}

impl Card {
    pub fn new(wrong: Wrong) -> Self {
        let card = Self::default();
        card.0.borrow_mut().wrong = wrong;
        card
    }

    /// Who comes next, and after how many operations the card is pulled out.
    pub fn visit(&self, visitor: &str, fuel: Option<u64>) {
        let mut inner = self.0.borrow_mut();
        (inner.visitor, inner.fuel) = (visitor.into(), fuel);
    }

    pub fn fuel(&self) -> Option<u64> {
        self.0.borrow().fuel
    }

    pub fn ops(&self) -> u64 {
        self.0.borrow().ops
    }

    pub fn is_out(&self) -> bool {
        self.0.borrow().out
    }

    pub fn read_only(&self, on: bool) {
        self.0.borrow_mut().read_only = on;
    }

    pub fn capacity(&self, bytes: Option<u64>, tells: bool) {
        let mut inner = self.0.borrow_mut();
        (inner.capacity, inner.tells_room) = (bytes, tells);
    }

    pub fn used(&self) -> u64 {
        self.0.borrow().used()
    }

    /// A file that somebody else put there.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut inner = self.0.borrow_mut();
        let path = PathBuf::from(path);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            inner.folders.insert(folder.into());
        }
        let at = inner.files.len();
        inner.files.push(File { bytes: bytes.to_vec(), synced: bytes.to_vec(), syncs: 0 });
        inner.live.insert(path.clone(), at);
        inner.durable.insert(path.clone(), at);
        inner.makers.insert(path, "somebody".into());
    }

    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.0.borrow();
        inner.live.iter().map(|(path, at)| (path.clone(), inner.files[*at].bytes.clone())).collect()
    }

    /// A second card with the same files.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        for (path, bytes) in self.files() {
            copy.put(&path.to_string_lossy(), &bytes);
        }
        copy
    }

    /// The same card in the same state, synced and not, to see what may become of it.
    pub fn split(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Who removed what; a name that it had not made itself is a fault.
    pub fn removals(&self) -> Vec<(String, PathBuf)> {
        self.0.borrow().removals.clone()
    }

    pub fn maker(&self, path: &Path) -> Option<String> {
        self.0.borrow().makers.get(path).cloned()
    }

    /// Puts the card in again, with what is left on it.
    pub fn put_in_again(&self, random: &mut Random) {
        let mut inner = self.0.borrow_mut();
        (inner.out, inner.fuel) = (false, None);
        for file in &mut inner.files {
            file.forget(random);
        }
        let (mut names, live) = (inner.durable.clone(), inner.live.clone());
        for (path, at) in &live {
            if !inner.durable.contains_key(path) && random.chance(50) {
                names.insert(path.clone(), *at);
            }
        }
        for path in inner.durable.keys() {
            if !live.contains_key(path) && random.chance(50) {
                names.remove(path);
            }
        }
        (inner.live, inner.durable) = (names.clone(), names);
    }
}

impl File {
    /// What was not synced: each sector is as it was written, as it was before, or anything.
    fn forget(&mut self, random: &mut Random) {
        if self.bytes == self.synced {
            return;
        }
        let longest = self.bytes.len();
        let len = match random.below(3) {
            0 => self.synced.len(),
            1 => longest,
            _ => self.synced.len() + random.below((longest - self.synced.len()) as u64 + 1) as usize,
        };
        self.bytes.truncate(len);
        let mut at = self.synced.len();
        while at < len {
            let end = ((at / SECTOR + 1) * SECTOR).min(len);
            match random.below(3) {
                0 => self.bytes[at..end].fill(0),
                1 => self.bytes[at..end].iter_mut().for_each(|b| *b = random.next() as u8),
                _ => {}
            }
            at = end;
        }
        self.synced.clone_from(&self.bytes);
    }
}

impl Volume for Card {
    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        let inner = self.0.borrow();
        inner.here()?;
        let mut entries = Vec::new();
        if folder == Path::new("") {
            let folders = inner.folders.iter();
            entries.extend(folders.map(|name| Entry { name: name.clone(), folder: true, bytes: 0 }));
        } else if !inner.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        for (path, at) in &inner.live {
            if path.parent() == Some(folder) {
                let name = path.file_name().unwrap().into();
                entries.push(Entry { name, folder: false, bytes: inner.files[*at].bytes.len() as u64 });
            }
        }
        Ok(entries)
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn Source>> {
        let inner = self.0.borrow();
        inner.here()?;
        let at = inner.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(inner.files[*at].bytes.clone())))
    }

    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let out = inner.burn()?;
        if inner.folders.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.folders.insert(path.into());
        if out { Err(gone()) } else { Ok(()) }
    }

    fn create_new(&mut self, path: &Path) -> io::Result<Box<dyn Sink>> {
        let mut inner = self.0.borrow_mut();
        if inner.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        assert!(!inner.durable.contains_key(path), "a name whose removal is not durable yet is used again");
        let (name, extension) = (path.file_stem().unwrap(), path.extension().unwrap());
        assert_eq!((name.len(), extension.len()), (8, 3), "FAT: an 8.3 name");
        let out = inner.burn()?;
        let file = inner.files.len();
        inner.files.push(File::default());
        inner.live.insert(path.into(), file);
        let visitor = inner.visitor.clone();
        inner.makers.insert(path.into(), visitor);
        if out { Err(gone()) } else { Ok(Box::new(Writing { card: self.clone(), file })) }
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        if inner.burn()? {
            return Err(gone());
        }
        inner.durable.retain(|path, _| path.parent() != Some(folder));
        let live = inner.live.clone();
        inner.durable.extend(live.into_iter().filter(|(path, _)| path.parent() == Some(folder)));
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let out = inner.burn()?;
        let removal = (inner.visitor.clone(), path.to_path_buf());
        inner.removals.push(removal);
        inner.live.remove(path).ok_or(io::ErrorKind::NotFound)?;
        if out { Err(gone()) } else { Ok(()) }
    }

    fn room(&mut self) -> Option<u64> {
        let inner = self.0.borrow();
        inner.capacity.filter(|_| inner.tells_room).map(|bytes| bytes.saturating_sub(inner.used()))
    }
}

struct Writing {
    card: Card,
    file: usize,
}

impl Write for Writing {
    /// Takes a sector at most, so that each is an operation of its own.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.card.0.borrow_mut();
        let out = inner.burn()?;
        let free = inner.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(inner.used()));
        let mut len = bytes.len().min(SECTOR).min(free as usize);
        if out {
            // It tears in the middle, by the byte.
            len = (inner.ops as usize * 37) % (len + 1);
        } else if len == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.files[self.file].bytes.extend_from_slice(&bytes[..len]);
        if out { Err(gone()) } else { Ok(len) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Writing {
    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.card.0.borrow_mut();
        if inner.burn()? {
            return Err(gone());
        }
        let wrong = inner.wrong;
        let file = &mut inner.files[self.file];
        file.syncs += 1;
        if wrong == Wrong::Nothing || wrong == Wrong::FooterFirst && file.syncs > 1 {
            file.synced.clone_from(&file.bytes);
        }
        Ok(())
    }
}

/// Whether a file ends as a bundle does: to a reader that looks no further, it is one.
pub fn ends_with_footer(bytes: &[u8]) -> bool {
    use packmule::core::wire::{RecordHead, RecordKind};
    (37..=46).any(|len| {
        let Some(at) = bytes.len().checked_sub(len + 8) else { return false };
        let head = RecordHead::parse(bytes[at..at + 8].try_into().unwrap());
        head.is_ok_and(|head| {
            head.kind == RecordKind::Footer
                && head.len as usize == len
                && head.check(&bytes[at + 8..]).is_ok()
        })
    })
}

/// Whether a file is a bundle, to a reader that looks at all of it.
pub fn is_whole(mut bytes: &[u8]) -> bool {
    packmule::inspect(bytes.by_ref()).is_ok()
}
