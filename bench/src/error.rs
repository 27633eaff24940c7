//! What ends the bench early: one clear line and an exit code.

use std::fmt;

/// Something else than what the codes below name.
pub const INTERNAL: u8 = 1;
/// Usage or configuration.
pub const USAGE: u8 = 2;
/// Kernel, memory lock, port, network.
pub const ENVIRONMENT: u8 = 3;
/// A data directory.
pub const DATA_DIRECTORY: u8 = 4;
/// Something acknowledged is missing, differs, or could not be read back.
pub const VERIFICATION: u8 = 5;
/// The cluster does not serve.
pub const UNHEALTHY: u8 = 10;

/// Why the bench ends.
#[derive(Debug)]
pub struct BenchError {
    /// The exit code.
    pub code: u8,
    /// One line that says what is wrong and, if it helps, what to do.
    pub line: String,
}

impl BenchError {
    /// An error with one of the codes above.
    pub fn new(code: u8, line: impl Into<String>) -> BenchError {
        BenchError { code, line: line.into() }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for BenchError {}

impl From<pontoon_client::ClientError> for BenchError {
    fn from(error: pontoon_client::ClientError) -> BenchError {
        let code = match error {
            pontoon_client::ClientError::Unreachable { .. } | pontoon_client::ClientError::Io(_) => ENVIRONMENT,
            pontoon_client::ClientError::NotLeader { .. } => UNHEALTHY,
            _ => INTERNAL,
        };
        BenchError::new(code, error.to_string())
    }
}
