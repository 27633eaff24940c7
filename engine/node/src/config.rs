//! The configuration of a node.
//!
//! [`NodeConfig`] is what a node starts with. `pontoond` reads a [`ConfigFile`] (TOML; every key may be left out, an
//! unknown key is an error) and lays its flags over it:
//!
//! ```toml
//! data_dir = "/var/lib/pontoon"
//! listen = "0.0.0.0:7400"        # default: the address that `pontoon init` wrote
//! cores = 2                      # default: as many as before; the same number for all nodes of a cluster
//! max_log_bytes = 4294967296     # of each core; writes are answered Busy above it
//! pin = true                     # each core keeps to one processor
//! first_cpu = 0                  # the processor of core 0; default: where the disk's interrupts arrive, then the others in turn
//! priority = 8                   # campaign after nodes with lower ones, 0 (the default) to 8
//! leases = true                  # reads of a leader without a message; default: false
//! sync_hold_us = 200             # how long a sync may wait for more writers; 0 = never
//! trace_dir = "/var/tmp/trace"   # write every protocol event to a file there; costs time, see docs/TRACE.md
//! node = 1                       # refuse a data directory of another node
//! cluster = "0123..."            # refuse a data directory of another cluster (32 hexadecimal digits)
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pontoon_multiraft::{LeaseConfig, Priority};
use pontoon_types::limits::CORE_WINDOW_BYTES_MAX;
use pontoon_types::{ClusterId, NodeId};
use serde::Deserialize;

use crate::init::CORES_MAX;

/// The longest hold that makes sense; above it a write waits longer for company than for the disk.
const SYNC_HOLD_US_MAX: u64 = 10_000;

/// What a node starts with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The directory that `pontoon init` made.
    pub data_dir: PathBuf,
    /// The address to listen at, instead of the one in the data directory. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// How many cores the node has from now on; without it, as many as before. All nodes of a cluster have the same
    /// number, so it is changed by stopping all of them and starting all of them with the new one.
    pub cores: Option<u16>,
    /// Sizes of the logs.
    pub log: pontoon_wal::Options,
    /// Whether each core keeps to one processor.
    pub pin: bool,
    /// The place of core 0 among the processors that the process may use, by their numbers. Without it, the cores of all nodes
    /// in this process are laid round the processors in the order in which they start, beginning where the interrupts of the
    /// disk arrive ([`crate::processors`]).
    pub first_cpu: Option<usize>,
    /// How long a sync may be held back while writers are about to come; see [`crate::hold`].
    pub sync_hold_max: Duration,
    /// A directory that each core writes its protocol events to, a file for each run; none writes nothing.
    pub trace_dir: Option<PathBuf>,
    /// How eager the replicas of this node are to lead, unless one is told otherwise while it runs. It decides who campaigns
    /// first, and never who wins. At most [`Priority::LAST`].
    pub priority: Priority,
    /// Leases, if they are on: reads of a leader cost no message, and rest on clocks that run alike.
    pub lease: Option<LeaseConfig>,
    /// Bytes of the newest entries of its groups' logs that each core keeps in memory; older ones are read back from the
    /// log by the peers that need them. A group keeps [`pontoon_types::limits::WINDOW_BYTES_MAX`] at most.
    pub window_bytes_max: usize,
    /// Whether the operator vouches that the directory is the one that the node had when it stopped: its peers are not
    /// waited for (law 12).
    pub trust_data_dir: bool,
    /// Refuse a data directory of another node than this.
    pub node: Option<NodeId>,
    /// Refuse a data directory of another cluster than this.
    pub cluster: Option<ClusterId>,
}

impl NodeConfig {
    /// The defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig {
            data_dir: data_dir.into(),
            listen: None,
            cores: None,
            log: pontoon_wal::Options::default(),
            pin: true,
            first_cpu: None,
            sync_hold_max: Duration::from_micros(200),
            trace_dir: None,
            priority: Priority::default(),
            lease: None,
            trust_data_dir: false,
            window_bytes_max: CORE_WINDOW_BYTES_MAX,
            node: None,
            cluster: None,
        }
    }
}

/// The settings of a configuration file or of flags. What is absent is not decided here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// See [`NodeConfig::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// See [`NodeConfig::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`NodeConfig::cores`].
    pub cores: Option<u16>,
    /// See [`pontoon_wal::Options::max_log_bytes`].
    pub max_log_bytes: Option<u64>,
    /// See [`NodeConfig::pin`].
    pub pin: Option<bool>,
    /// See [`NodeConfig::first_cpu`].
    pub first_cpu: Option<usize>,
    /// See [`NodeConfig::sync_hold_max`], microseconds.
    pub sync_hold_us: Option<u64>,
    /// See [`NodeConfig::trace_dir`].
    pub trace_dir: Option<PathBuf>,
    /// See [`NodeConfig::priority`].
    pub priority: Option<u8>,
    /// See [`NodeConfig::lease`]: the standard leases.
    pub leases: Option<bool>,
    /// See [`NodeConfig::node`].
    pub node: Option<u64>,
    /// See [`NodeConfig::cluster`], hexadecimal.
    pub cluster: Option<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration file {}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
    /// No data directory was named.
    #[error("no data directory: name it with --data-dir DIR or `data_dir` in the configuration file")]
    NoDataDir,
    /// A cluster's identity is not one.
    #[error("cluster = {text}: a cluster's identity is 32 hexadecimal digits, as `pontoon init` prints it")]
    Cluster {
        /// What was given.
        text: String,
    },
    /// A value is outside its bounds.
    #[error("{name} = {value} is outside its bounds: {bounds}")]
    OutOfBounds {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        bounds: String,
    },
}

impl ConfigFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        toml::from_str(&text)
            .map_err(|error| ConfigError::Malformed { path: path.to_path_buf(), why: one_line(&error) })
    }

    /// These settings, and those of `below` where these say nothing.
    pub fn over(self, below: ConfigFile) -> ConfigFile {
        ConfigFile {
            data_dir: self.data_dir.or(below.data_dir),
            listen: self.listen.or(below.listen),
            cores: self.cores.or(below.cores),
            max_log_bytes: self.max_log_bytes.or(below.max_log_bytes),
            pin: self.pin.or(below.pin),
            first_cpu: self.first_cpu.or(below.first_cpu),
            sync_hold_us: self.sync_hold_us.or(below.sync_hold_us),
            trace_dir: self.trace_dir.or(below.trace_dir),
            priority: self.priority.or(below.priority),
            leases: self.leases.or(below.leases),
            node: self.node.or(below.node),
            cluster: self.cluster.or(below.cluster),
        }
    }

    /// The node's configuration, with defaults for what is absent.
    pub fn finish(self) -> Result<NodeConfig, ConfigError> {
        let mut config = NodeConfig::new(self.data_dir.ok_or(ConfigError::NoDataDir)?);
        config.listen = self.listen;
        config.first_cpu = self.first_cpu;
        config.pin = self.pin.unwrap_or(config.pin);
        config.cores = self.cores.map(check_cores).transpose()?;
        if let Some(max_log_bytes) = self.max_log_bytes {
            let least = 3 * pontoon_wal::SEGMENT_BYTES_MIN;
            if max_log_bytes < least {
                let bounds = format!("at least {least}, three of the smallest segments");
                return Err(ConfigError::OutOfBounds { name: "max_log_bytes", value: max_log_bytes, bounds });
            }
            config.log.max_log_bytes = max_log_bytes;
        }
        if let Some(value) = self.sync_hold_us {
            if value > SYNC_HOLD_US_MAX {
                let bounds = format!("at most {SYNC_HOLD_US_MAX}");
                return Err(ConfigError::OutOfBounds { name: "sync_hold_us", value, bounds });
            }
            config.sync_hold_max = Duration::from_micros(value);
        }
        if let Some(value) = self.priority {
            if value > Priority::LAST.0 {
                let bounds = format!("at most {}", Priority::LAST.0);
                return Err(ConfigError::OutOfBounds { name: "priority", value: value.into(), bounds });
            }
            config.priority = Priority(value);
        }
        config.trace_dir = self.trace_dir;
        config.lease = self.leases.unwrap_or(false).then(LeaseConfig::default);
        config.node = self.node.map(NodeId);
        if let Some(text) = self.cluster {
            let cluster = u128::from_str_radix(&text, 16).map_err(|_| ConfigError::Cluster { text })?;
            config.cluster = Some(ClusterId(cluster));
        }
        Ok(config)
    }
}

/// Refuses a number of cores that no node can have.
pub(crate) fn check_cores(cores: u16) -> Result<u16, ConfigError> {
    if (1..=CORES_MAX).contains(&cores) {
        return Ok(cores);
    }
    Err(ConfigError::OutOfBounds { name: "cores", value: cores.into(), bounds: format!("1 to {CORES_MAX}") })
}

/// The parser's message is a small drawing; a log wants one line.
fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_above_is_read() {
        let example = "data_dir = \"/var/lib/pontoon\"\nlisten = \"0.0.0.0:7400\"\ncores = 2\nmax_log_bytes = 4294967296\n\
                       pin = true\nfirst_cpu = 0\npriority = 8\nleases = true\nsync_hold_us = 200\n";
        let config = toml::from_str::<ConfigFile>(example).unwrap().finish().unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/pontoon"));
        assert_eq!(config.listen.unwrap().port(), 7400);
        assert_eq!(config.cores, Some(2));
        assert_eq!(config.sync_hold_max, Duration::from_micros(200));
        assert_eq!(config.lease, Some(LeaseConfig::default()));
        assert_eq!(config.priority, Priority::LAST);
    }

    #[test]
    fn leases_are_off_by_default() {
        let config = ConfigFile { data_dir: Some("x".into()), ..ConfigFile::default() }.finish().unwrap();
        assert_eq!(config.lease, None);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = ConfigFile { first_cpu: Some(1), pin: Some(false), ..ConfigFile::default() };
        let flags = ConfigFile { first_cpu: Some(2), ..ConfigFile::default() };
        let both = flags.over(file);
        assert_eq!((both.first_cpu, both.pin), (Some(2), Some(false)));
    }

    #[test]
    fn an_unknown_key_names_itself() {
        let error = toml::from_str::<ConfigFile>("max_log_byte = 1").unwrap_err();
        assert!(one_line(&error).contains("max_log_byte"), "{}", one_line(&error));
    }

    #[test]
    fn values_outside_their_bounds_are_refused() {
        let base = ConfigFile { data_dir: Some("x".into()), ..ConfigFile::default() };
        for cores in [0, CORES_MAX + 1] {
            let many = ConfigFile { cores: Some(cores), ..base.clone() }.finish();
            assert!(matches!(many, Err(ConfigError::OutOfBounds { name: "cores", .. })));
        }
        let small = ConfigFile { max_log_bytes: Some(1), ..base.clone() }.finish();
        assert!(matches!(small, Err(ConfigError::OutOfBounds { name: "max_log_bytes", .. })));
        let last = ConfigFile { priority: Some(9), ..base.clone() }.finish();
        assert!(matches!(last, Err(ConfigError::OutOfBounds { name: "priority", .. })));
        let long = ConfigFile { sync_hold_us: Some(10_001), ..base }.finish();
        assert!(matches!(long, Err(ConfigError::OutOfBounds { name: "sync_hold_us", .. })));
        assert!(matches!(ConfigFile::default().finish(), Err(ConfigError::NoDataDir)));
    }
}
