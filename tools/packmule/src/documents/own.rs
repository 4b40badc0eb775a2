//! Documents of `completions`, `man`.

#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

/// `completions`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Completions<'a> {
    /// The shell.
    pub shell: &'a str,
    /// What it reads.
    pub script: &'a str,
}

/// `man`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Manual {
    /// The pages that were written; the first is that of the program.
    pub files: Vec<String>,
}
