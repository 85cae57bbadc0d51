//! How the process ends: exit codes after `sysexits.h`, so that a supervisor can tell a mistake in
//! the configuration from a full disk.

use std::fmt;
use std::process::ExitCode;

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command line is wrong.
    Usage = 64,
    /// Stored data is not what it must be.
    Data = 65,
    /// Something this process needs is not there: a port, another replica.
    Unavailable = 69,
    /// A defect in Tercet.
    Software = 70,
    /// The disk or the network failed below us.
    Io = 74,
    /// What was asked is refused; asking again changes nothing.
    Refused = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error on its way out of the process.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened and what to do about it.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure that is told by a sentence.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With all causes, after colons.
        write!(f, "{:#}", self.error)
    }
}

/// Gives an error its exit code where the class is known.
pub trait OrExit<T> {
    /// Turns the error into a [`Failure`].
    ///
    /// # Errors
    /// The same error, with the code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}
