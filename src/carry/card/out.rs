//! A new file on the card: body, sync, footer, sync.

use std::io::{self, BufWriter, Write};

use super::counted::Counted;
use crate::carry::volume::Sink;
use crate::engine::{Encrypting, Readers};

/// A file that is being written, encrypted or in clear.
pub(super) enum Out {
    Clear(BufWriter<Counted>),
    Encrypted(Box<Encrypting<Counted>>),
}

impl Out {
    /// Begins a file.
    pub(super) fn new(sink: Box<dyn Sink>, readers: Option<&Readers>) -> io::Result<Self> {
        let counted = Counted { sink, bytes: 0 };
        Ok(match readers {
            None => Self::Clear(BufWriter::with_capacity(1 << 16, counted)),
            Some(readers) => Self::Encrypted(Box::new(Encrypting::new(counted, readers)?)),
        })
    }

    /// Ends the file: what is before the footer is durable first. Of an encrypted one, the last chunk is the end, and
    /// has the footer.
    pub(super) fn close(&mut self, footer: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.sync()?;
        match self {
            // Past the buffer, which is empty.
            Self::Clear(out) => out.get_mut().write_all(footer)?,
            Self::Encrypted(out) => {
                out.write_all(footer)?;
                out.finish()?;
            }
        }
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(out) => out.get_mut().sink.sync(),
            Self::Encrypted(out) => out.inner().sink.sync(),
        }
    }

    /// Returns how many bytes came to the card. What is in memory is not written: it would be tried again.
    pub(super) fn written(self) -> u64 {
        match self {
            Self::Clear(out) => out.into_parts().0.bytes,
            Self::Encrypted(out) => out.give_up().bytes,
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(out) => out.write(bytes),
            Self::Encrypted(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(out) => out.flush(),
            Self::Encrypted(out) => out.flush(),
        }
    }
}
