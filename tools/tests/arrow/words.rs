//! Paths that exist on one machine only have no place in the product.

use super::Violation;
use super::source::Law;

/// The beginnings of such paths. They are put together here because this file is looked at too.
fn words() -> [String; 6] {
    ["/wo|rk/", "/ro|ot/", "/ho|me/", "/Us|ers/", "/tmp/tar|get", "/tmp/p|c/"].map(|word| word.replace('|', ""))
}

/// The lines of any text that name a path of one machine.
pub(crate) fn check(path: &str, text: &str) -> Vec<Violation> {
    let words = words();
    let named = |line: &str| words.iter().find(|word| line.contains(word.as_str())).cloned();
    text.lines()
        .zip(1..)
        .filter_map(|(line, number)| Some((number, named(line)?)))
        .map(|(line, what)| Violation { path: path.to_string(), line, law: Law::Machine, what })
        .collect()
}
