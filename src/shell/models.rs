//! `ld3sh models`: what published files there are, and fetching and checking them.
use super::args::ModelsCommand;
use crate::Result;
use crate::files::table::Table;
use crate::script::front::{Beside, Front};
use crate::zoo::{self, ENTRIES, Entry, Settings, State};

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
            all(&names)?.iter().for_each(|e| front.print(&settings.path(e).display().to_string()));
        }
        Some(ModelsCommand::Check { names }) => check(&names, &settings, front)?,
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
    let table = Table { header, rows: ENTRIES.iter().map(row).collect(), ..Table::default() };
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
    for e in all(names)? {
        let path = zoo::locate_with(e, &Beside(front), settings)?;
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
