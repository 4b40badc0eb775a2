//! Passphrases: from a file, or from the terminal.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::output::Failure;
use crate::text::{io_text, quoted};
use crate::usage::{Args, flags};

/// The longest passphrase, in bytes.
const LENGTH_MAX: u64 = 1 << 12;

/// Reads the passphrase of `--passphrase-file`, if it was given: the file's first line.
pub fn given(args: &Args) -> Result<Option<Vec<u8>>, Failure> {
    args.flag_path(&flags::PASSPHRASE_FILE).map(from_file).transpose()
}

fn from_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = File::open(path).and_then(|file| line(&mut BufReader::new(file)));
    let passphrase = read.map_err(|e| Failure::io(path, "read it", &e))?;
    if passphrase.is_empty() {
        return Err(Failure::of(path, "its first line is empty, and should be a passphrase"));
    }
    Ok(passphrase)
}

/// Reads a line, without its end.
fn line(from: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LENGTH_MAX).read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

/// Returns the passphrase of a file that has one: given, or asked for.
pub fn of(args: &Args, file: &Path) -> Result<Vec<u8>, Failure> {
    match given(args)? {
        Some(passphrase) => Ok(passphrase),
        None => ask(file, &format!("passphrase of {}: ", quoted(file))),
    }
}

/// Returns a passphrase for a new file: given, or asked for twice.
pub fn new(args: &Args, file: &Path) -> Result<Vec<u8>, Failure> {
    if let Some(passphrase) = given(args)? {
        return Ok(passphrase);
    }
    let passphrase = ask(file, &format!("passphrase for {}: ", quoted(file)))?;
    if ask(file, "the same again: ")? != passphrase {
        return Err(Failure::of(file, "the two passphrases differ; nothing was made"));
    }
    Ok(passphrase)
}

/// Asks for a file's passphrase at the terminal, which does not show what is typed.
fn ask(file: &Path, prompt: &str) -> Result<Vec<u8>, Failure> {
    const NO_TERMINAL: &str =
        "a passphrase is needed, and there is no terminal to ask at: give --passphrase-file FILE";
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| Failure::of(file, NO_TERMINAL))?;
    let failed = |e: std::io::Error| Failure::of(file, format!("the terminal: {}", io_text(&e)));
    let quiet = Quiet::new(&terminal).map_err(|e| failed(e.into()))?;
    terminal.write_all(prompt.as_bytes()).map_err(failed)?;
    let read = line(&mut BufReader::new(&terminal));
    drop(quiet);
    let _ = terminal.write_all(b"\n");
    let passphrase = read.map_err(failed)?;
    if passphrase.is_empty() {
        return Err(Failure::of(file, "no passphrase was typed; nothing was done"));
    }
    Ok(passphrase)
}

/// The terminal without echo, for as long as this lives.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: &File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let terminal = terminal.try_clone().map_err(|_| rustix::io::Errno::IO)?;
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}
