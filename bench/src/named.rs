//! A table whose lines are chosen by name on the command line.

/// The line of this name; the error lists all names.
pub fn find<T: Copy>(table: &[T], name_of: impl Fn(&T) -> &'static str, name: &str) -> Result<T, String> {
    let found = table.iter().find(|line| name_of(line) == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(name_of).collect();
        format!("a workload is one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_or_all_are_named() {
        let table = [("one", 1), ("two", 2)];
        assert_eq!(find(&table, |line| line.0, "two"), Ok(("two", 2)));
        assert_eq!(find(&table, |line| line.0, "three"), Err("a workload is one of one, two".to_string()));
    }
}
