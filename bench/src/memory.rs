//! How much memory this process has taken.

/// Memory of this process that no file stands behind.
pub fn anonymous_bytes() -> Option<u64> {
    anonymous(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok().map(|kib: u64| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_told_from_the_rest() {
        let status = "VmRSS:\t    3000 kB\nRssAnon:\t    1024 kB\nRssFile:\t    2048 kB\n";
        assert_eq!(anonymous(status), Some(1 << 20));
        assert_eq!(anonymous("VmRSS: 1 kB"), None);
        assert!(anonymous_bytes().is_some_and(|bytes| bytes > 0));
    }
}
