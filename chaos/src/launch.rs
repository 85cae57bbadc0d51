//! What stands around a replica's process: programs that start it, and its environment.

use std::{path::Path, process::Command};

use crate::tools::Tool;

/// Programs that are called with the replica's command behind their own arguments and become it
/// (`nsenter`, `strace -D`, `prlimit`), and variables for the process. The process id stays that of the replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    prefix: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// With one more program, inside those that are there already.
    #[must_use]
    pub fn through(mut self, program: &[&str]) -> Self {
        self.prefix.extend(program.iter().map(|&word| word.to_owned()));
        self
    }

    /// With a variable in the environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// This one around another.
    pub(crate) fn around(&self, inner: &Self) -> Self {
        let mut both = self.clone();
        both.prefix.extend(inner.prefix.iter().cloned());
        both.environment.extend(inner.environment.iter().cloned());
        both
    }

    /// The command that starts `program`.
    pub(crate) fn command(&self, program: &Path) -> Command {
        match self.prefix.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        }
    }

    /// `program` within it, without its variables, as a tool.
    pub(crate) fn tool(&self, program: &Path) -> Tool {
        let Some((first, rest)) = self.prefix.split_first() else { return Tool::at(program) };
        let program = program.display().to_string();
        let rest: Vec<&str> = rest.iter().map(String::as_str).chain([program.as_str()]).collect();
        Tool::at(Path::new(first)).first(&rest)
    }

    pub(crate) fn set_environment(&self, command: &mut Command) {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_stands_around_what_else_there_is() {
        let host = Launch::default().through(&["nsenter", "--net=/x"]);
        let inner = Launch::default().through(&["strace", "-D"]).with("A", "b");
        let command = host.around(&inner).command(Path::new("/bin/tercet"));
        assert_eq!(command.get_program(), "nsenter");
        let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(arguments, ["--net=/x", "strace", "-D", "/bin/tercet"]);
    }
}
