//! `completions` and `man`: what is made from the table of commands.

use std::fs;
use std::path::Path;

use super::Context;
use crate::documents::{Completions, Manual};
use crate::output::{Failure, say};
use crate::text::{count, shown};
use crate::usage;

/// `packmule completions SHELL`.
pub fn completions(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let shell = context.args.text(0)?;
    let unknown = || context.args.wrong(format!("there are completions for {SHELLS}, not for `{shell}`"));
    let script = usage::completions(shell).ok_or_else(unknown)?;
    if context.out.json {
        context.out.document(&Completions { shell, script: &script });
    } else {
        context.out.text(&script);
    }
    Ok(())
}

const SHELLS: &str = "bash, zsh and fish";

/// `packmule man DIRECTORY`.
pub fn man(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let directory = context.args.path(0);
    fs::create_dir_all(directory).map_err(|e| Failure::io(directory, "make the directory", &e))?;
    let mut files = Vec::new();
    for (name, page) in usage::manual() {
        let path = directory.join(name);
        write(&path, &page).map_err(|e| Failure::io(&path, "write it", &e))?;
        files.push(shown(&path));
    }
    let pages = count(files.len() as u64, "page");
    say!(context.out, "{}: {pages} written; read the first with `man -l {}`", shown(directory), files[0]);
    context.out.document(&Manual { files });
    Ok(())
}

/// Whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
