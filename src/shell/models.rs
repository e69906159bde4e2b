//! `ld3sh models`: what published files there are, and fetching and checking them.
use crate::files::table::Table;
use crate::script::engine::print_line;
use crate::script::host::Terminal;
use crate::zoo::{self, ENTRIES, Entry, Settings, State};
use crate::{Error, Result};

const HELP: &str = "\
Usage: ld3sh models               list the published networks that scripts find by name
       ld3sh models get NAME…     download them, or go on with an interrupted download
       ld3sh models path [NAME…]  print where they are, or are to be put; without NAME the folder
       ld3sh models check [NAME…] compare them with their SHA-256; without NAME all that are here

LD3SH_CACHE    the folder for downloads and other costly things; by default the user's cache folder
LD3SH_MIRROR   an address from which all files are fetched: LD3SH_MIRROR/FILE instead of the public addresses
LD3SH_OFFLINE  1: fetch nothing
HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are honoured.";

/// Runs the command with the words after its name.
///
/// Errors: an unknown subcommand or name, and what [`zoo::locate`] and [`zoo::check`] report.
pub fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.iter().any(|w| ["-h", "--help"].contains(w)) {
        print_line(HELP);
        return Ok(());
    }
    let settings = Settings::from_env()?;
    match words.as_slice() {
        [] => list(&settings),
        ["get"] => {
            return Err(Error::value("`ld3sh models get` needs a name").hint("`ld3sh models` lists the names"));
        }
        ["get", names @ ..] => get(names, &settings)?,
        ["path"] => print_line(&settings.folder.display().to_string()),
        ["path", names @ ..] => {
            all(names)?.iter().for_each(|e| print_line(&settings.path(e).display().to_string()));
        }
        ["check", names @ ..] => check(names, &settings)?,
        [other, ..] => return Err(Error::unknown("subcommand of `ld3sh models`:", other, ["get", "path", "check"])),
    }
    Ok(())
}

fn all(names: &[&str]) -> Result<Vec<&'static Entry>> {
    names.iter().map(|n| zoo::named(n)).collect()
}

/// Bytes for people, in powers of ten as the web states them.
fn size(bytes: u64) -> String {
    match bytes {
        b if b < 1_000_000 => format!("{:.1} kB", b as f64 / 1e3),
        b => format!("{:.1} MB", b as f64 / 1e6),
    }
}

fn list(settings: &Settings) {
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
    print_line(table.to_string().trim_end());
    print_line("");
    let mut folders: Vec<&str> = ENTRIES.iter().map(|e| e.folder).collect();
    folders.dedup();
    let source = settings.mirror.as_deref().map_or_else(|| folders.join(", "), |m| format!("{m} (LD3SH_MIRROR)"));
    print_line(&format!("from    {source}"));
    print_line(&format!("folder  {}", settings.folder.display()));
    print_line(
        "Sizes that are not published are known once a file is here. Mind the licences: most of these networks are not",
    );
    print_line("for commercial use.");
}

fn get(names: &[&str], settings: &Settings) -> Result<()> {
    for e in all(names)? {
        let path = zoo::locate_with(e, &Terminal, settings)?;
        print_line(&path.display().to_string());
    }
    Ok(())
}

fn check(names: &[&str], settings: &Settings) -> Result<()> {
    let chosen: Vec<&Entry> = match names {
        [] => ENTRIES.iter().filter(|e| matches!(zoo::state(e, settings), State::Here(_))).collect(),
        names => all(names)?,
    };
    if chosen.is_empty() {
        print_line(&format!("nothing is in {}", settings.folder.display()));
    }
    for e in chosen {
        print_line(&format!("{}  {}", zoo::check(e, settings)?, e.file));
    }
    Ok(())
}
