//! What goes wrong, as one line and an exit code.

use std::io::Write;
use std::process::ExitCode;

use pontoon_client::ClientError;

/// Internal errors, and answers that are a plain "no".
pub const INTERNAL: u8 = 1;
/// Usage or configuration.
pub const USAGE: u8 = 2;
/// The environment: nothing to talk to.
pub const ENVIRONMENT: u8 = 3;
/// A verification failed.
pub const VERIFICATION: u8 = 5;
/// The cluster answers, and is not healthy.
pub const UNHEALTHY: u8 = 10;

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
            ClientError::Unreachable { .. } | ClientError::Io(_) => ENVIRONMENT,
            ClientError::NotLeader { .. } | ClientError::Busy { .. } => UNHEALTHY,
            _ => INTERNAL,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(INTERNAL, format!("cannot write the output: {error}"))
    }
}
