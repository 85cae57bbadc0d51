//! Asks before something that cannot be taken back.

use std::io::{BufRead, IsTerminal};

use super::print;
use crate::exit::{Exit, Failure, OrExit};

/// Goes on if the answer on standard input is exactly `word`.
pub(super) fn confirm(question: &str, word: &str) -> Result<(), Failure> {
    print::problem(&format!("{question}\nType `{word}` to go on:"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).or_exit(Exit::Io)?;
    if answer.trim() == word {
        return Ok(());
    }
    let hint = if std::io::stdin().is_terminal() { "" } else { " (--yes answers for a script)" };
    Err(Failure::new(
        Exit::Usage,
        format!("nothing was changed: the answer was not `{word}`{hint}"),
    ))
}
