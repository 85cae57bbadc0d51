//! Clusters take turns on the machine, so that deadlines mean something on two cores.

use std::{
    fs::{File, TryLockError},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};

/// How many ordinary clusters may run at once, over all test processes of the machine.
const PLACES: usize = 2;
const PAUSE: Duration = Duration::from_millis(50);

/// How much of the machine a test wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Runs beside another cluster.
    Some,
    /// Wants the machine for itself, because it measures time or memory.
    All,
    /// Is started by somebody who has the machine already, and holds on to it.
    Held,
}

/// A place on the machine; given back when dropped, also when the process dies.
#[derive(Debug)]
pub struct Turn {
    _places: Vec<File>,
}

impl Turn {
    /// Waits for the wanted share. The wait has no deadline of its own: those before us have theirs.
    pub async fn take(share: Share) -> Result<Self> {
        match share {
            Share::Some => loop {
                for place in 0..PLACES {
                    if let Some(file) = try_place(place)? {
                        return Ok(Self { _places: vec![file] });
                    }
                }
                tokio::time::sleep(PAUSE).await;
            },
            Share::Held => Ok(Self { _places: Vec::new() }),
            Share::All => {
                let mut places = Vec::new();
                // Always in the same order, so that two who want all cannot block each other.
                for place in 0..PLACES {
                    loop {
                        if let Some(file) = try_place(place)? {
                            places.push(file);
                            break;
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Ok(Self { _places: places })
            }
        }
    }
}

fn try_place(place: usize) -> Result<Option<File>> {
    let path: PathBuf = std::env::temp_dir().join(format!("tercet-chaos-place-{place}"));
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}
