//! What was probably meant by a word that is not known.

/// Finds the name that was most likely meant, if one is near.
pub fn nearest(given: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let allowed = if given.chars().count() <= 3 { 1 } else { 2 };
    names
        .map(|name| {
            let begins = given.len() >= 3 && name.starts_with(given);
            (if begins { 1 } else { distance(given, name) }, name)
        })
        .filter(|(far, _)| *far <= allowed)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// Returns how many letters must be added, taken away, replaced or exchanged with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_known() {
        let names = || crate::usage::COMMANDS.iter().map(|c| c.words);
        assert_eq!(nearest("exprot", names()), Some("export"));
        assert_eq!(nearest("conflict", names()), Some("conflicts"));
        assert_eq!(nearest("frobnicate", names()), None);
    }
}
