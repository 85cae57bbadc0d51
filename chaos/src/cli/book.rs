//! `tercet-chaos book`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use tercet_chaos::Verdict;

#[derive(Debug, clap::Args)]
pub(super) struct BookArguments {
    /// Where the pages go: `docs/src/scenarios` of the work tree.
    folder: PathBuf,
}

/// Writes the pages of all scenarios, and removes those of scenarios that are no more.
pub(super) fn book(arguments: &BookArguments) -> Result<Verdict> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let pages = tercet_chaos::scenario_pages();
    let mut old = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = pages.iter().any(|(page, _)| *page == name);
        if !known && path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if !text.starts_with(tercet_chaos::PAGE_NOTE.as_bytes()) {
            bail!(
                "{} was not made by this command: is {} the right folder?",
                path.display(),
                folder.display()
            );
        }
        if !known {
            old.push(path);
        }
    }
    for path in old {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    for (name, text) in &pages {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    println!(
        "{} pages in {}; new ones want a line in docs/src/SUMMARY.md",
        pages.len(),
        folder.display()
    );
    Ok(Verdict::Held)
}
