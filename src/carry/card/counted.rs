//! A file on the card, with the count of its bytes.

use std::io::{self, Write};

use crate::carry::volume::Sink;

/// Counts what was written.
pub struct Counted {
    pub sink: Box<dyn Sink>,
    pub bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
