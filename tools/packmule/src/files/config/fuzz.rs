//! Files of `packmule run`, changed in every place: each is read, or refused with lines that it has. How it goes:
//! `tests/fuzz/targets.rs`.

#[path = "../../../../../tests/fuzz/targets.rs"]
#[allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // Tests.
mod targets;

use targets::{Signature, Target, got, try_all};

use super::read::read;

fn files() -> Vec<Vec<u8>> {
    [
        "interval = \"15m\"\njitter = \"none\"\nchanges = \"30s\"\npatience = \"for ever\"\n\n[[link]]\nto = \"tcp://base:7225\"\n\
         name = \"base\"\nstay = true\nplain = false\n\n[[link]]\nto = \"serial:/dev/ttyUSB0\"\nbaud = 115200\n\
         baud-max = 0x2DC6C0\nflow = \"hardware\"\n",
        "[[link]]\nto = \"card:/media/card\"\nencrypt = true\nchanges = \"never\"\ninterval = \"7d\"\n\n[compact]\n\
         every = \"1d\"\n\n[[prune]]\ntable = \"readings\"\nevery = \"12h\"\nkeep = \"30d\"\n",
        "link = [{ to = \"find:\", interval = \"90s\" }, { to = \"exec:ssh base \\u00e9\" }]\n\
         prune = [{ table = 't', every = '1h', rows = 1_000 }, { table = 't', every = '1h', free = '200M' }]\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn file(bytes: &[u8]) -> Signature {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    match read(text) {
        Ok(config) => {
            assert!(!config.links.is_empty() || !config.upkeep.is_empty(), "it would do nothing");
            got(config.links.len()) + 100 * got(config.upkeep.len())
        }
        Err(wrong) => {
            assert!(!wrong.is_empty(), "it is refused without a word");
            let lines = text.matches('\n').count() + 1;
            assert!(wrong.iter().all(|(line, _)| (1..=lines).contains(line)), "a line that is not there");
            // The words alone: what they quote is without end.
            let words =
                |what: &str| what.bytes().filter(u8::is_ascii_lowercase).take(24).map(u64::from).sum::<u64>();
            got(wrong.len()) + 100_000 * words(&wrong[0].1)
        }
    }
}

#[test]
fn every_file_is_read_or_refused_by_its_lines() {
    try_all(&[Target { name: "run-file", seeds: files, run: file, weight: 4 }]);
}
