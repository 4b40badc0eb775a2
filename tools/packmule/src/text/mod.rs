//! How things look as text: sizes, numbers, times, paths, a row's values, columns.
//!
//! Imports nothing else of the program. Nothing here prints.
//!
//! | file | what lives there |
//! |---|---|
//! | `format` | sizes, numbers with their nouns, paths, words for a shell |
//! | `time` | points in time and spans; whether a clock is likely to be wrong |
//! | `value` | a row's values as people read and type them |
//! | `links` | what links have carried |
//! | `layout` | columns, and lines of 80 letters |
//! | `advice` | what there is to do next |
//! | `html` | pages for a browser |
//! | `hint` | what the library says would help, as commands |
//! | `prometheus` | figures for Prometheus |
//! | `screen` | what fits on a screen |
//! | `sentence` | sentences that several commands print |
//! | `width` | how many columns of a terminal text takes |

mod advice;
mod format;
mod hint;
pub mod html;
mod layout;
mod links;
pub mod prometheus;
mod screen;
mod sentence;
mod time;
mod value;
mod width;

pub use advice::{Advice, Hanging, advice};
pub use format::{count, number, plural, quoted, read_size, safe, shell_word, shown, size};
pub use hint::{command, hint, set_clock};
pub use layout::{columns, cut, fitting_columns, folded, paragraph, words, wrap};
pub use links::{carried, ills, link, rate};
pub use screen::{Part, fit, whole};
pub use sentence::{
    behind, conflicts_open, elsewhere, file_text, io_text, missing_words, range, said_by, set_aside, stream,
    waiting,
};
pub use time::{clock_wrong, iso, now, read_age, read_when, span, time, utc};
pub use value::{pairs, read, show};
pub use width::{beginning, end, width};
