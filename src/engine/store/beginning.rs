//! How a file begins that may be a database, and may be open as one in this process.
//!
//! A process that closes any descriptor of a file loses all its locks on it (POSIX, fcntl(2)), and so those by which other
//! processes see that it has a database open. The next one that closes the database takes itself for the last, removes the
//! `-wal` file, and what is committed here after that is in no file. So nothing in the product opens such a file but by
//! SQLite, which closes it when none of its locks is left (<https://www.sqlite.org/howtocorrupt.html>, 2.2).

use std::ffi::c_int;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, ffi};

/// Reads how a file begins, through SQLite; behind its end there are zeros.
///
/// A process that closes any descriptor of a file loses all its locks on it (POSIX, fcntl(2)). So a program that has the file
/// open as a database, in whichever thread, would lose what it commits next by reading it in any other way: another program
/// that closes the database takes itself for the last one, and removes the `-wal` file.
///
/// # Errors
/// What the system says, where it says anything.
pub fn read_beginning(path: &Path, into: &mut [u8]) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(uri_of_unchanging(path), flags);
    let db = opened.map_err(|e| may_read(path).err().unwrap_or_else(|| io::Error::other(e)))?;
    match read(&db, into) {
        ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ => Ok(()),
        code => Err(io::Error::other(ffi::Error::new(code))),
    }
}

/// Returns the name by which SQLite opens a file that does not change meanwhile, without locks and other files.
pub(super) fn uri_of_unchanging(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Reads the first bytes of the file of a connection, and returns SQLite's code.
fn read(db: &Connection, into: &mut [u8]) -> c_int {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let Ok(len) = c_int::try_from(into.len()) else { return ffi::SQLITE_TOOBIG };
    // SAFETY: for this operation SQLite writes a pointer to where the argument points. The file is the connection's, which
    // lives; one that is open has methods, and `xRead` writes as many bytes as it is told to.
    unsafe {
        let to = std::ptr::from_mut(&mut file).cast();
        let code =
            ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, to);
        if code != ffi::SQLITE_OK {
            return code;
        }
        if file.is_null() || (*file).pMethods.is_null() {
            return ffi::SQLITE_CANTOPEN;
        }
        let Some(xread) = (*(*file).pMethods).xRead else { return ffi::SQLITE_IOERR_READ };
        xread(file, into.as_mut_ptr().cast(), len, 0)
    }
}

/// Returns why a file may not be read, if that is why.
fn may_read(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    rustix::fs::access(path, rustix::fs::Access::READ_OK)?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn begins(path: &Path) -> io::Result<[u8; 20]> {
        let mut bytes = [1; 20];
        read_beginning(path, &mut bytes).map(|()| bytes)
    }

    #[test]
    fn what_is_read_is_what_the_file_begins_with() {
        let folder = tempfile::tempdir().unwrap();
        let root: &Path = folder.as_ref();
        let at = |name: &str| root.join(name);
        std::fs::write(at("short"), b"abc").unwrap();
        std::fs::write(at("long ?%23&é"), [7; 5_000]).unwrap();
        std::fs::write(at("empty"), b"").unwrap();
        assert_eq!(begins(&at("short")).unwrap()[..4], *b"abc\0");
        assert_eq!(begins(&at("long ?%23&é")).unwrap(), [7; 20]);
        assert_eq!(begins(&at("empty")).unwrap(), [0; 20]);
        assert_eq!(begins(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(begins(root).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        for (mode, is) in [("wal", 2), ("delete", 1)] {
            let path = at(mode);
            let db = Connection::open(&path).unwrap();
            db.pragma_update(None, "journal_mode", mode).unwrap();
            db.execute_batch("CREATE TABLE t (v)").unwrap();
            assert_eq!(
                (&begins(&path).unwrap()[..15], begins(&path).unwrap()[19]),
                (&b"SQLite format 3"[..], is)
            );
        }
    }
}
