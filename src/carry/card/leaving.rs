//! A file is left: under a new name, with as much as there is room for.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use packmule_core::model::{DeviceId, decode_hex};

use super::out::Out;
use super::problem::{full, read_only};
use super::report::{Left, NotLeft};
use super::{FOLDER, Visit};
use crate::carry::volume::Sink;
use crate::engine::{Engine, Error, Part, PartReport, Positions, Readers, Result};

/// So many bytes of a card are left free by who brings rows: else nobody can acknowledge them there, and a full card stays
/// full for ever.
const FOR_ANSWERS: u64 = 4_096;

/// A file could not be written.
enum Failed {
    /// The card or the file was full after so many bytes.
    Full {
        written: u64,
    },
    /// Not even the first group has room, which has so many bytes.
    NoGroup {
        next_bytes: u64,
    },
    ReadOnly,
    Other(Error),
}

impl Visit<'_> {
    /// Leaves one file, with as much as there is room for; `None` if it could not be left.
    pub(super) fn leave_part(
        &mut self,
        receiver: Option<DeviceId>,
        have: &Positions,
    ) -> Result<Option<PartReport>> {
        // Groups keep to it; what acknowledges alone does not.
        let mut room = self.card.room().map_or(u64::MAX, |room| room.saturating_sub(FOR_ANSWERS));
        let readers = self.secrecy.readers().cloned();
        // What is reported free may not be; each time less is tried.
        for _ in 0..8 {
            let most_bytes = room.min(self.limits.most_bytes);
            let most_of_bundle = readers.as_ref().map_or(most_bytes, |readers| readers.room_in(most_bytes));
            let enough_bytes = self.limits.enough_bytes;
            let part = Part { receiver, have, enough_bytes, most_bytes: most_of_bundle };
            match self.write(readers.as_ref(), &|engine, out| engine.export_part(out, &part)) {
                Ok((file, bytes, written)) => {
                    self.report.left.push(Left {
                        file,
                        receiver,
                        frames: written.frames,
                        bytes,
                        state: written.state,
                        encrypted: readers.is_some(),
                        introduction: false,
                    });
                    return Ok(Some(written));
                }
                Err(Failed::NoGroup { next_bytes }) => {
                    let too_long = room > self.limits.most_bytes;
                    self.report.not_left = Some(if too_long {
                        NotLeft::TooLong { next_bytes }
                    } else {
                        NotLeft::Full { next_bytes: Some(next_bytes) }
                    });
                    return Ok(None);
                }
                Err(Failed::Full { written }) => room = most_bytes.min(written) / 4 * 3,
                Err(Failed::ReadOnly) => {
                    self.report.not_left = Some(NotLeft::ReadOnly);
                    return Ok(None);
                }
                Err(Failed::Other(e)) => return Err(e),
            }
        }
        self.report.not_left = Some(NotLeft::Full { next_bytes: None });
        Ok(None)
    }

    /// Leaves an introduction, as far as there is room for it.
    pub(super) fn leave_introduction(&mut self) -> Result<()> {
        match self.write(None, &|engine, out| engine.write_introduction(out)) {
            Ok((file, bytes, _)) => self.report.left.push(Left {
                file,
                receiver: None,
                frames: 0,
                bytes,
                state: false,
                encrypted: false,
                introduction: true,
            }),
            Err(Failed::Full { .. } | Failed::NoGroup { .. }) => {
                self.report.not_left = Some(NotLeft::Full { next_bytes: None });
            }
            Err(Failed::ReadOnly) => self.report.not_left = Some(NotLeft::ReadOnly),
            Err(Failed::Other(e)) => return Err(e),
        }
        Ok(())
    }

    /// Writes a file: whole, or not at all, unless the card goes away. Returns how many bytes it has.
    fn write(
        &mut self,
        readers: Option<&Readers>,
        body: &dyn Fn(&Engine, &mut dyn Write) -> Result<PartReport>,
    ) -> std::result::Result<(PathBuf, u64, PartReport), Failed> {
        let folder = self.make_folder()?;
        let (path, sink) = self.create(&folder)?;
        let (bytes, written) = match Out::new(sink, readers) {
            Err(e) => (0, Err(Error::Stream(e))),
            Ok(mut out) => {
                let written = body(self.engine, &mut out).and_then(|report| {
                    if report.groups == 0 && report.next_bytes.is_some() {
                        return Ok(report);
                    }
                    out.close(&report.footer).map_err(Error::Stream)?;
                    Ok(report)
                });
                (out.written(), written)
            }
        };
        let failed = match written {
            Ok(PartReport { groups: 0, next_bytes: Some(next_bytes), .. }) => Failed::NoGroup { next_bytes },
            Ok(report) => match self.card.sync_folder(&folder) {
                Ok(()) => return Ok((path, bytes, report)),
                Err(e) => failed(e, "sync the card's folder", &folder),
            },
            Err(Error::Stream(e)) if full(&e) => Failed::Full { written: bytes },
            Err(Error::Stream(e)) => failed(e, "write to the card the file", &path),
            Err(e) => Failed::Other(e),
        };
        // It is torn, and not there to anyone. If it cannot be removed now, it is the next time.
        let _ = self.card.remove(&path).and_then(|()| self.card.sync_folder(&folder));
        Err(failed)
    }

    fn make_folder(&mut self) -> std::result::Result<PathBuf, Failed> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let folder = PathBuf::from(FOLDER);
        match self.card.create_folder(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e, "make on the card the folder", &folder)),
        }
        self.folder = Some(folder.clone());
        Ok(folder)
    }

    /// Returns what the number that is a file's name begins with, in its upper 20 bits: the device's id does too.
    fn prefix(&self) -> u32 {
        self.engine.identity().id.short() & !0xfff
    }

    pub(super) fn is_our_name(&self, path: &Path) -> bool {
        number(path).is_some_and(|number| number & !0xfff == self.prefix())
    }

    /// Creates a new file: five digits of our id, and three that count.
    fn create(&mut self, folder: &Path) -> std::result::Result<(PathBuf, Box<dyn Sink>), Failed> {
        let prefix = self.prefix();
        let listed = self.card.list(folder).map_err(|e| failed(e, "read the card's folder", folder))?;
        let taken: BTreeSet<u32> =
            listed.iter().filter_map(|entry| number(&entry.name)).filter(|n| n & !0xfff == prefix).collect();
        let next = taken.last().map_or(0, |last| last + 1);
        for n in (0..=0xfff).map(|n| prefix | (next + n) & 0xfff).filter(|n| !taken.contains(n)) {
            let path = folder.join(format!("{n:08X}.PMB"));
            match self.card.create_new(&path) {
                Ok(sink) => return Ok((path, sink)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e, "make on the card the file", &path)),
            }
        }
        Err(Failed::Full { written: 0 })
    }
}

/// Returns the number that is a file's name, if it is one of ours or of others.
fn number(path: &Path) -> Option<u32> {
    let name = path.file_stem()?.to_str()?;
    let mut number = [0; 4];
    decode_hex(name, &mut number).ok()?;
    Some(u32::from_be_bytes(number))
}

fn failed(e: io::Error, doing: &'static str, path: &Path) -> Failed {
    match e {
        e if read_only(&e) => Failed::ReadOnly,
        e if full(&e) => Failed::Full { written: 0 },
        e => Failed::Other(*Error::io(doing, path)(e)),
    }
}
