//! A disk that keeps what is durable apart from what is not, and whose power can be cut at every write and sync.
//!
//! It is a VFS of SQLite in front of the system's: files are written as ever, and noted beside. After a cut nothing is
//! written any more; [`power_on`] then makes of each file what may be left of it: what was synced, and of what was
//! written since each piece whole, torn, dropped or garbled. A name that was removed without a sync of its folder may be
//! back. Instead of a cut, one operation can fail as a full or broken disk does, or SQLite get no memory once.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

use crate::common::Random;

#[path = "memory.rs"]
mod memory;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes.
    Cut,
    /// The disk is full: a write is short, and fails; so do those after it.
    Full,
    /// The disk fails to write or to sync, this once.
    Broken,
    /// The disk fails to read, this once.
    Unreadable,
    /// SQLite gets no memory, this once.
    NoMemory,
}

/// A change to a file since its last sync.
#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                to.resize(to.len().max(at + bytes.len()), 0);
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(len) => to.resize(*len, 0),
        }
    }
}

#[derive(Clone, Default)]
struct File {
    /// What is durable; `None` as long as not even its name is.
    synced: Option<Vec<u8>>,
    pending: Vec<Change>,
}

impl File {
    fn sync(&mut self) {
        let mut bytes = self.synced.take().unwrap_or_default();
        self.pending.drain(..).for_each(|change| change.apply(&mut bytes));
        self.synced = Some(bytes);
    }

    /// What is left of it without power.
    fn left(self, random: &mut Random) -> Option<Vec<u8>> {
        if self.synced.is_none() && random.chance(50) {
            return None;
        }
        let mut bytes = self.synced.unwrap_or_default();
        // Often all of it came through up to some moment, and nothing after.
        let orderly = random.chance(30).then(|| random.below(self.pending.len() as u64 + 1) as usize);
        for (n, change) in self.pending.into_iter().enumerate() {
            let fate = match orderly {
                Some(whole) => {
                    if n < whole {
                        0
                    } else {
                        50
                    }
                }
                None => random.below(100),
            };
            match (change, fate) {
                (change, 0..50) => change.apply(&mut bytes),
                (_, 50..70) | (Change::Length(_), _) => {}
                (Change::Write(at, mut piece), 70..85) => {
                    piece.truncate(random.below(piece.len() as u64 + 1) as usize);
                    Change::Write(at, piece).apply(&mut bytes);
                }
                (Change::Write(at, mut piece), _) => {
                    let from = random.below(piece.len().max(1) as u64) as usize;
                    piece.iter_mut().skip(from).take(512).for_each(|byte| *byte = random.next() as u8);
                    Change::Write(at, piece).apply(&mut bytes);
                }
            }
        }
        Some(bytes)
    }
}

#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<String, File>,
    /// Removed names that may be back.
    ghosts: BTreeMap<String, File>,
    /// Operations so far: those that write, and those that read.
    writes: u64,
    reads: u64,
    fault: Option<(Fault, u64)>,
    failed: bool,
    out: bool,
    /// The control: syncs are told as done, and are not.
    swallows: bool,
}

fn disk() -> MutexGuard<'static, Disk> {
    static DISK: OnceLock<Mutex<Disk>> = OnceLock::new();
    DISK.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// Before an operation that writes; `Err` is what SQLite is told.
    fn write(&mut self) -> Result<(), c_int> {
        if self.out {
            return Err(ffi::SQLITE_IOERR);
        }
        self.writes += 1;
        match self.fault {
            Some((Fault::Cut, at)) if self.writes == at => self.out = true,
            Some((Fault::Full, at)) if self.writes >= at => {
                self.failed = true;
                return Err(ffi::SQLITE_FULL);
            }
            Some((Fault::Broken, at)) if self.writes == at => {
                self.failed = true;
                return Err(ffi::SQLITE_IOERR_WRITE);
            }
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), c_int> {
        self.reads += 1;
        match self.fault {
            _ if self.out => Err(ffi::SQLITE_IOERR),
            Some((Fault::Unreadable, at)) if self.reads == at => {
                self.failed = true;
                Err(ffi::SQLITE_IOERR_READ)
            }
            _ => Ok(()),
        }
    }

    /// After an operation: whether the power is gone since.
    fn told(&self) -> c_int {
        if self.out { ffi::SQLITE_IOERR } else { ffi::SQLITE_OK }
    }
}

/// Begins anew: with a fault at this operation, or with none. `swallows`: no sync has an effect.
pub fn begin(fault: Option<(Fault, u64)>, swallows: bool) {
    register();
    *disk() = Disk { fault, swallows, ..Disk::default() };
    memory::begin(fault);
}

/// What the disk knows at a moment, so that it can be gone back to.
pub struct Saved(Disk);

/// What is known now, of files between whose writes nobody has them open.
pub fn save() -> Saved {
    Saved(disk().clone())
}

/// Goes back to it; the files themselves are the caller's.
pub fn restore(saved: &Saved) {
    *disk() = saved.0.clone();
}

/// Another fault, counted from now on.
pub fn next_fault(fault: Option<(Fault, u64)>) {
    memory::begin(fault);
    let mut disk = disk();
    let so_far = if matches!(fault, Some((Fault::Unreadable, _))) { disk.reads } else { disk.writes };
    disk.fault = fault.map(|(fault, at)| (fault, so_far + at));
    disk.failed = false;
}

/// How many operations there were that can fail in this way.
pub fn operations(fault: Fault) -> u64 {
    let disk = disk();
    match fault {
        Fault::Unreadable => disk.reads,
        Fault::NoMemory => memory::allocations(),
        Fault::Cut | Fault::Full | Fault::Broken => disk.writes,
    }
}

/// Forgets what is noted of files whose paths begin so: somebody else writes them, or has written them durably.
pub fn forget(beginning: &str) {
    let mut disk = disk();
    disk.files.retain(|path, _| !path.starts_with(beginning));
    disk.ghosts.retain(|path, _| !path.starts_with(beginning));
}

/// Whether the power is gone, and whether an operation failed.
pub fn state() -> (bool, bool) {
    let disk = disk();
    (disk.out, disk.failed || memory::failed())
}

/// Puts the power on again, with what is left of each file. No connection is open.
pub fn power_on(random: &mut Random) {
    let mut disk = disk();
    disk.out = false;
    disk.fault = None;
    let ghosts = std::mem::take(&mut disk.ghosts);
    for (path, ghost) in ghosts {
        if random.chance(50) {
            disk.files.entry(path).or_insert(ghost);
        }
    }
    for (path, file) in std::mem::take(&mut disk.files) {
        match file.left(random) {
            Some(bytes) => {
                std::fs::write(&path, &bytes).unwrap();
                disk.files.insert(path, File { synced: Some(bytes), pending: Vec::new() });
            }
            None => drop(std::fs::remove_file(&path)),
        }
    }
    let folders: Vec<_> = disk.files.keys().filter_map(|path| Path::new(path).parent()).collect();
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten()) {
        if entry.path().to_string_lossy().ends_with("-shm") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// What stands in SQLite's memory for a file: its own, then the system's.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    /// The path, of a file that is noted.
    path: *mut String,
}

/// The system's file behind ours.
fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite gave `szOsFile` bytes, which are a `Handle` and the system's file after it.
    unsafe { file.cast::<Handle>().add(1).cast() }
}

/// The path of a file, if it is noted.
fn path<'f>(file: *mut ffi::sqlite3_file) -> Option<&'f String> {
    // SAFETY: `open` has set the pointer, and only `close` frees it.
    unsafe { (*file.cast::<Handle>()).path.as_ref() }
}

/// Calls a method of the system's file.
macro_rules! system {
    ($file:expr, $method:ident $(, $arg:expr)*) => {{
        let file = real($file);
        // SAFETY: the system's file is open, and has all methods of version 2; the arguments are SQLite's own.
        unsafe { (*(*file).pMethods).$method.unwrap()(file $(, $arg)*) }
    }};
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = system!(file, xClose);
    // SAFETY: `open` made it with `Box::into_raw`, or left it null; nobody uses it after this.
    unsafe {
        let handle = file.cast::<Handle>();
        if !(*handle).path.is_null() {
            drop(Box::from_raw((*handle).path));
        }
    }
    code
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, n: c_int, at: i64) -> c_int {
    if path(file).is_some()
        && let Err(code) = disk().read()
    {
        return code;
    }
    system!(file, xRead, to, n, at)
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, n: c_int, at: i64) -> c_int {
    let Some(path) = path(file) else { return system!(file, xWrite, from, n, at) };
    let mut disk = disk();
    // SAFETY: SQLite gives `n` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), n as usize) };
    let (code, len) = match disk.write() {
        Ok(()) => (ffi::SQLITE_OK, bytes.len()),
        Err(code) if disk.out => return code,
        Err(code) => (code, bytes.len() / 2),
    };
    let noted = disk.files.entry(path.clone()).or_default();
    noted.pending.push(Change::Write(at as usize, bytes[..len].to_vec()));
    let done = system!(file, xWrite, from, len as c_int, at);
    if done != ffi::SQLITE_OK || code != ffi::SQLITE_OK { done.max(code) } else { disk.told() }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    if let Some(path) = path(file) {
        let mut disk = disk();
        if let Err(code) = disk.write() {
            return code;
        }
        disk.files.entry(path.clone()).or_default().pending.push(Change::Length(len as usize));
        let done = system!(file, xTruncate, len);
        return if done == ffi::SQLITE_OK { disk.told() } else { done };
    }
    system!(file, xTruncate, len)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // The system's is left out: what is durable is kept here.
    let Some(path) = path(file) else { return ffi::SQLITE_OK };
    let mut disk = disk();
    if let Err(code) = disk.write() {
        return if code == ffi::SQLITE_IOERR_WRITE { ffi::SQLITE_IOERR_FSYNC } else { code };
    }
    // A sync at which the power goes has done nothing.
    if !disk.out && !disk.swallows {
        disk.files.entry(path.clone()).or_default().sync();
        disk.ghosts.remove(path);
    }
    disk.told()
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, to: *mut i64) -> c_int {
    system!(file, xFileSize, to)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, how: c_int) -> c_int {
    system!(file, xLock, how)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, how: c_int) -> c_int {
    system!(file, xUnlock, how)
}

unsafe extern "C" fn check_lock(file: *mut ffi::sqlite3_file, to: *mut c_int) -> c_int {
    system!(file, xCheckReservedLock, to)
}

unsafe extern "C" fn control(file: *mut ffi::sqlite3_file, what: c_int, arg: *mut c_void) -> c_int {
    system!(file, xFileControl, what, arg)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    system!(file, xSectorSize)
}

unsafe extern "C" fn device(file: *mut ffi::sqlite3_file) -> c_int {
    system!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    system!(file, xShmMap, page, size, extend, to)
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, at: c_int, n: c_int, flags: c_int) -> c_int {
    system!(file, xShmLock, at, n, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    system!(file, xShmBarrier)
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    system!(file, xShmUnmap, delete)
}

/// Version 2: without mapped files, whose writes nobody would see.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The system's VFS.
fn system_vfs(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: `register` put it there, and it lives as long as the program.
    unsafe { (*vfs).pAppData.cast() }
}

/// The text of a name, if it is of a file that is noted: not of a temporary one.
fn noted(name: *const c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with NUL.
    Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let handle = file.cast::<Handle>();
    // SAFETY: SQLite gave room for the handle; without methods, it does not close it.
    unsafe {
        ptr::write(
            handle,
            Handle { base: ffi::sqlite3_file { pMethods: ptr::null() }, path: ptr::null_mut() },
        )
    };
    let noted = noted(name);
    let mut disk = disk();
    if disk.out {
        return ffi::SQLITE_IOERR;
    }
    let system = system_vfs(vfs);
    // SAFETY: the system's own function, with its own VFS and the room that it asked for.
    let code = unsafe { (*system).xOpen.unwrap()(system, name, real(file), flags, out_flags) };
    if code == ffi::SQLITE_OK {
        if let Some(path) = &noted {
            let there = std::fs::read(path).unwrap_or_default();
            let new = || File { synced: (!there.is_empty()).then_some(there), pending: Vec::new() };
            disk.files.entry(path.clone()).or_insert_with(new);
        }
        // SAFETY: the handle is ours.
        unsafe {
            (*handle).path = noted.map_or(ptr::null_mut(), |path| Box::into_raw(Box::new(path)));
            (*handle).base.pMethods = &METHODS;
        }
    }
    code
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let mut disk = disk();
    if let Err(code) = disk.write() {
        return code;
    }
    if let Some(path) = noted(name)
        && let Some(file) = disk.files.remove(&path)
    {
        // A removal at which the power goes may have been done, or not.
        if sync_folder == 0 || disk.out || disk.swallows {
            disk.ghosts.insert(path, file);
        } else {
            disk.ghosts.remove(&path);
        }
    }
    let system = system_vfs(vfs);
    // SAFETY: the system's own function, with its own VFS.
    let code = unsafe { (*system).xDelete.unwrap()(system, name, 0) };
    if code == ffi::SQLITE_OK { disk.told() } else { code }
}

/// Makes the disk SQLite's, for all of this program.
fn register() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        memory::register();
        // SAFETY: the system's VFS is copied; what is changed in the copy is written for it, and the copy is never
        // freed.
        unsafe {
            let system = ffi::sqlite3_vfs_find(ptr::null());
            let mut ours: ffi::sqlite3_vfs = ptr::read(system);
            ours.pNext = ptr::null_mut();
            ours.zName = c"crash".as_ptr();
            ours.pAppData = system.cast();
            ours.szOsFile += size_of::<Handle>() as c_int;
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1), ffi::SQLITE_OK);
        }
    });
}
