//! Which known name did the writer mean?

/// The name of `known` nearest to `unknown`, if it is near enough to be a slip: at most a third of
/// its letters may differ, and at least one does. A swap of neighbours counts once. Letter case and
/// the choice between `-` and `_` count as nothing.
pub(super) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let unknown = fold(unknown);
    let limit = (unknown.len() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&unknown, &fold(name)), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Longer names are compared by their start only, which bounds the work.
const COMPARED: usize = 64;

fn fold(name: &str) -> Vec<char> {
    name.chars()
        .take(COMPARED)
        .map(|c| match c {
            '_' => '-',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Edits that turn `a` into `b`: insert, remove, replace, swap two neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_and_a_stranger_does_not() {
        let known = ["listen", "pools", "default-pool", "rules"];
        assert_eq!(nearest("lisetn", known), Some("listen"));
        assert_eq!(nearest("lissten", known), Some("listen"));
        assert_eq!(nearest("pool", known), Some("pools"));
        assert_eq!(nearest("Default_Pool", known), Some("default-pool"));
        assert_eq!(nearest("firewall", known), None);
        assert_eq!(nearest("", known), None);
    }
}
