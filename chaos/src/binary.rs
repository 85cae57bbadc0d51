//! Finds the `tercet` program under test.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Names another program than the one beside the tests.
const VARIABLE: &str = "TERCET_BIN";

/// The registry program that a cluster runs.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
}

impl Binary {
    /// `TERCET_BIN` if set, else `tercet` in the build folder that the running test came from.
    pub fn locate() -> Result<Self> {
        if let Some(path) = env::var_os(VARIABLE) {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("{VARIABLE} names {}, which is no file", path.display());
            }
            return Ok(Self { path });
        }
        let path = profile_folder()?.join("tercet");
        if !path.is_file() {
            bail!(
                "no registry program at {}: run `cargo build` first (its tests look at the real \
                 binary), or set {VARIABLE}",
                path.display()
            );
        }
        Ok(Self { path })
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder of temporary files of the build, made if missing.
///
/// Not the system's: that one is often a RAM disk, and the tests write gigabytes.
pub(crate) fn temporary_folder() -> Result<PathBuf> {
    let profile = profile_folder()?;
    let target = profile.parent().context("the build folder has no parent")?;
    let folder = target.join("tmp");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// `target/<profile>`, for a test at `target/<profile>/deps/<test>-<hash>` or an example beside it.
fn profile_folder() -> Result<PathBuf> {
    let executable = env::current_exe().context("find the running test's own path")?;
    let folder = executable.parent().context("the test executable has no folder")?;
    let inner = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    let profile = if inner { folder.parent().context("no profile folder")? } else { folder };
    Ok(profile.to_path_buf())
}
