//! `ld3sh convert`: a checkpoint of any format as a safetensors file.
use crate::files::checkpoint;
use crate::nets::family::{self, FAMILIES};
use crate::script::engine::print_line;
use crate::{Error, Kind, Result};
use std::path::Path;

/// The options, for errors about unknown ones.
const OPTIONS: [&str; 3] = ["--half", "--force", "--classes"];

/// Reads the words after `convert`, and converts.
pub fn run(words: &[String]) -> Result<()> {
    let (mut paths, mut half, mut force, mut classes) = (vec![], false, false, None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--half" => half = true,
            "--force" => force = true,
            "--classes" => match rest.next() {
                Some(names) => classes = Some(names.split(',').map(str::trim).collect::<Vec<_>>()),
                None => return Err(usage("`--classes` needs names, separated by commas")),
            },
            option if option.starts_with("--") => return Err(Error::unknown("option of convert", option, OPTIONS)),
            _ => paths.push(Path::new(word)),
        }
    }
    let [from, to] = paths[..] else {
        return Err(usage("convert needs the file to read and the file to write"));
    };
    if to.exists() && !force {
        let e = Error::new(Kind::Io, format!("`{}` exists already", to.display()));
        return Err(e.hint("choose another name, or replace it with `--force`"));
    }
    let file = checkpoint::open(from)?;
    let named = |e: Error| e.context(format!("`{}`", from.display()));
    // a network of a known family with its configuration; anything else as its tensors
    let (what, tensors, mut metadata) = match family::recognise(&FAMILIES, &file).map_err(named)? {
        Some((family, (tensors, metadata))) => {
            (format!("a network of family {}", family.name), tensors.into_owned(), metadata.into_owned())
        }
        None if file.tensors().is_empty() => return Err(named(Error::new(Kind::Format, "it holds no tensors"))),
        None => ("no network of a known kind, so tensors only".into(), file.tensors().clone(), file.metadata().clone()),
    };
    if let Some(names) = classes {
        let dim = metadata.get("config").and_then(|c| serde_json::from_str::<serde_json::Value>(c).ok());
        let dim = dim.and_then(|c| c["label_dim"].as_u64()).unwrap_or_default();
        if dim != names.len() as u64 {
            return Err(Error::value(format!("the network has {dim} classes, `--classes` names {}", names.len())));
        }
        metadata.insert("classes".into(), serde_json::json!(names).to_string());
    }
    file.tell_unreadable("");
    checkpoint::write(to, &tensors, &metadata, half)?;
    let values: usize = tensors.values().map(|v| v.count()).sum();
    let what = match metadata.get("precond") {
        Some(p) => format!("an {p} network with its configuration"),
        None => what,
    };
    print_line(&format!("{}: {} tensors with {values} values; {what}", to.display(), tensors.len()));
    Ok(())
}

fn usage(message: &str) -> Error {
    Error::value(message).hint("ld3sh convert IN OUT.safetensors [--half] [--force] [--classes NAME,NAME,…]")
}
