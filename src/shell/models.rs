//! `ld3sh models`: what published files there are, and fetching and checking them.
use super::args::ModelsCommand;
use crate::Result;
use crate::files::table::Table;
use crate::script::front::{Beside, Front};
use crate::zoo::{self, ENTRIES, Entry, FOLDERS, Folder, Settings, State};
use std::path::PathBuf;

/// Runs the command; without `what` it lists what there is.
///
/// # Errors
/// An unknown name, and what [`zoo::locate`] and [`zoo::check`] report.
pub fn run(what: Option<ModelsCommand>, front: &dyn Front) -> Result<()> {
    let settings = Settings::from_env()?;
    match what {
        None => list(&settings, front),
        Some(ModelsCommand::Get { names }) => get(&names, &settings, front)?,
        Some(ModelsCommand::Path { names }) if names.is_empty() => front.print(&settings.folder.display().to_string()),
        Some(ModelsCommand::Path { names }) => {
            for name in &names {
                let path =
                    zoo::folder(name).map_or_else(|| file(name, &settings), |f| Ok(settings.folder.join(f.name)))?;
                front.print(&path.display().to_string());
            }
        }
        Some(ModelsCommand::Accept { names }) => accept(&names, front)?,
        Some(ModelsCommand::Check { names }) => check(&names, &settings, front)?,
    }
    Ok(())
}

/// Where a file is, or is to be put.
fn file(name: &str, settings: &Settings) -> Result<PathBuf> {
    match zoo::find(name) {
        Some(e) => Ok(settings.path(e)),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> crate::Error {
    let all = ENTRIES.iter().map(|e| e.name).chain(FOLDERS.iter().map(|f| f.name));
    crate::Error::unknown("published file or folder", name, all)
}

/// Remembers that licences were accepted; without names it lists those that were.
fn accept(names: &[String], front: &dyn Front) -> Result<()> {
    for name in names {
        let folder = zoo::folder(name).filter(|f| f.asks).ok_or_else(|| {
            let asking = FOLDERS.iter().filter(|f| f.asks).map(|f| f.name);
            crate::Error::unknown("model whose licence asks to be accepted", name, asking)
        })?;
        zoo::accept(folder.name)?;
        front.print(&format!("accepted for {}: {}", folder.name, folder.licence));
    }
    if names.is_empty() {
        zoo::accepted()?.iter().for_each(|name| front.print(name));
    }
    Ok(())
}

fn all(names: &[String]) -> Result<Vec<&'static Entry>> {
    names.iter().map(|n| zoo::named(n)).collect()
}

/// Bytes for people, in powers of ten as the web states them.
fn size(bytes: u64) -> String {
    match bytes {
        b if b < 1_000_000 => format!("{:.1} kB", b as f64 / 1e3),
        b => format!("{:.1} MB", b as f64 / 1e6),
    }
}

fn list(settings: &Settings, front: &dyn Front) {
    let row = |e: &Entry| {
        let (bytes, here) = match zoo::state(e, settings) {
            State::Here(n) => (Some(n), "yes".to_string()),
            State::Part(n) => (e.size, format!("{} of it", size(n))),
            State::Absent => (e.size, String::new()),
        };
        let size = bytes.map_or_else(|| "?".into(), size);
        [e.name, e.about, &size, &here, e.licence].map(str::to_string).to_vec()
    };
    let header = ["name", "what it is", "size", "cached", "licence"].map(str::to_string).to_vec();
    let folder_row = |f: &Folder| {
        let (bytes, here) = match zoo::state_of_folder(f, settings) {
            State::Here(n) => (size(n), "yes".to_string()),
            State::Part(n) => ("?".into(), format!("{} of it", size(n))),
            State::Absent => ("?".into(), String::new()),
        };
        let licence = format!("{}{}", f.licence, if f.asks { " (to be accepted)" } else { "" });
        vec![f.name.into(), format!("{} (a folder)", f.about), bytes, here, licence]
    };
    let rows = ENTRIES.iter().map(row).chain(FOLDERS.iter().map(folder_row)).collect();
    let table = Table { header, rows, ..Table::default() };
    front.print(table.to_string().trim_end());
    front.print("");
    let built: Vec<&str> = crate::model::builtins().collect();
    front.print(&format!("built in  {}", built.join(", ")));
    let mut folders: Vec<&str> = ENTRIES.iter().map(|e| e.folder).collect();
    folders.dedup();
    let source = settings.mirror.as_deref().map_or_else(|| folders.join(", "), |m| format!("{m} (LD3SH_MIRROR)"));
    front.print(&format!("from      {source}"));
    front.print(&format!("folder    {}", settings.folder.display()));
    front.print(
        "Sizes that are not published are known once a file is here. Mind the licences: most of these networks are not",
    );
    front.print("for commercial use.");
}

fn get(names: &[String], settings: &Settings, front: &dyn Front) -> Result<()> {
    for name in names {
        let path = match (zoo::folder(name), zoo::find(name)) {
            (Some(f), _) => zoo::locate_folder_with(f, &Beside(front), settings)?,
            (None, Some(e)) => zoo::locate_with(e, &Beside(front), settings)?,
            (None, None) => return Err(unknown(name)),
        };
        front.print(&path.display().to_string());
    }
    Ok(())
}

fn check(names: &[String], settings: &Settings, front: &dyn Front) -> Result<()> {
    let chosen: Vec<&Entry> = match names {
        [] => ENTRIES.iter().filter(|e| matches!(zoo::state(e, settings), State::Here(_))).collect(),
        names => all(names)?,
    };
    if chosen.is_empty() {
        front.print(&format!("nothing is in {}", settings.folder.display()));
    }
    for e in chosen {
        front.print(&format!("{}  {}", zoo::check(e, settings)?, e.file));
    }
    Ok(())
}
