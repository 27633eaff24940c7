//! What goes wrong, as one line and an exit code.

use std::io::Write;
use std::process::ExitCode;

use pontoon_client::{ClientError, OrderReason};
use pontoon_wal::LogError;

/// Internal errors, and answers that are a plain "no".
pub const INTERNAL: u8 = 1;
/// Usage or configuration.
pub const USAGE: u8 = 2;
/// The environment: nothing to talk to.
pub const ENVIRONMENT: u8 = 3;
/// The data directory.
pub const DATA_DIRECTORY: u8 = 4;
/// A verification failed.
pub const VERIFICATION: u8 = 5;
/// The cluster answers, and is not healthy.
pub const UNHEALTHY: u8 = 10;
/// A log ends with a write that was torn; nothing that was acknowledged is lost.
pub const TORN_TAIL: u8 = 20;
/// A log is not what was written.
pub const CORRUPTION: u8 = 21;
/// A newer version wrote the log.
pub const UNKNOWN_FORMAT: u8 = 22;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(code: u8, line: impl Into<String>) -> Failure {
        Failure { line: line.into(), code }
    }

    /// The arguments ask for something that cannot be.
    pub fn usage(line: impl Into<String>) -> Failure {
        Failure::new(USAGE, line)
    }

    /// Its exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the line and gives the exit code. A closed standard error is nothing to fail over.
    pub fn report(&self) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "pontoon: {}", self.line);
        ExitCode::from(self.code)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let code = match error {
            ClientError::TooLarge { .. } => USAGE,
            // What passes, or depends on what others have done meanwhile, is worth another try.
            ClientError::OrderRefused { reason, .. } => match reason {
                OrderReason::Changed | OrderReason::GivenUp => UNHEALTHY,
                reason if reason.passes() => UNHEALTHY,
                _ => USAGE,
            },
            ClientError::Unreachable { .. } | ClientError::Io(_) => ENVIRONMENT,
            ClientError::NotLeader { .. } | ClientError::TooStale { .. } | ClientError::Busy { .. } => UNHEALTHY,
            _ => INTERNAL,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        let code = match error {
            LogError::UnknownFormat { .. } => UNKNOWN_FORMAT,
            LogError::Corruption { .. } | LogError::MissingSegment { .. } | LogError::Unreadable { .. } => CORRUPTION,
            LogError::NotALog { .. }
            | LogError::OtherLog { .. }
            | LogError::InUse { .. }
            | LogError::NotEmpty { .. } => DATA_DIRECTORY,
            LogError::Io { .. } => ENVIRONMENT,
            _ => INTERNAL,
        };
        Failure::new(code, error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(INTERNAL, format!("cannot write the output: {error}"))
    }
}
