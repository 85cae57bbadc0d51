//! What a run fails of that is not the registry's fault.
//!
//! A scenario that ends with an error has broken a promise, unless the error is one of these: this program or the machine
//! has not done its part, or the fault has met nobody. Then the run is void, not violated.

use std::fmt::{self, Display, Formatter};

use anyhow::{Error, Result};

/// Nothing is said about the registry, and why.
#[derive(Debug)]
pub(crate) struct NotShown(pub(crate) String);

impl Display for NotShown {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NotShown {}

/// What is not the registry's doing, for a `?`.
pub(crate) trait OrNotShown<T> {
    /// Marks the error as one that says nothing about the registry.
    fn or_not_shown(self) -> Result<T>;
}

impl<T, E: Into<Error>> OrNotShown<T> for Result<T, E> {
    fn or_not_shown(self) -> Result<T> {
        self.map_err(|error| NotShown(format!("{:#}", error.into())).into())
    }
}

/// Whether an error, or one that it came from, says nothing about the registry.
pub(crate) fn is_not_shown(error: &Error) -> bool {
    error.chain().any(|cause| cause.is::<NotShown>())
}

/// As `anyhow::ensure!`, for what must be true before anything is said about the registry.
macro_rules! ensure_shown {
    ($if:expr, $($why:tt)*) => {
        if !$if {
            return Err($crate::not_shown::NotShown(format!($($why)*)).into());
        }
    };
}
pub(crate) use ensure_shown;

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow, ensure};

    use super::*;

    #[test]
    fn what_says_nothing_is_known_whatever_stands_around_it() {
        let tried = |hits: u64| -> Result<()> {
            ensure_shown!(hits > 0, "nothing was hit in {hits} tries");
            ensure!(hits < 9, "too often");
            Ok(())
        };
        let error = |tried: Result<()>| tried.err().unwrap_or_else(|| anyhow!("it went well"));
        let nothing = error(tried(0).context("the second round").context("the scenario"));
        assert!(is_not_shown(&nothing));
        assert!(format!("{nothing:#}").ends_with("nothing was hit in 0 tries"));
        assert!(!is_not_shown(&error(tried(9).context("the second round"))));
        let machine = Err::<(), _>(std::io::Error::other("no such device"));
        let machine = error(machine.context("mount").or_not_shown().context("a disk"));
        assert!(is_not_shown(&machine));
        assert_eq!(format!("{machine:#}"), "a disk: mount: no such device");
    }
}
