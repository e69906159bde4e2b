//! `ld3sh convert`: a checkpoint of any format as a safetensors file.
use super::args::ConvertArgs;
use crate::files::checkpoint;
use crate::model;
use crate::nets::family::{self, FAMILIES};
use crate::script::front::Front;
use crate::{Error, Kind, Result};

/// Converts.
pub fn run(args: &ConvertArgs, front: &dyn Front) -> Result<()> {
    let print_line = |text: &str| front.print(text);
    let (from, to, half, force) = (args.from.as_path(), args.to.as_path(), args.half, args.force);
    let classes = args.classes.as_deref().map(|names| names.split(',').map(str::trim).collect::<Vec<_>>());
    if to.exists() && !force {
        let e = Error::new(Kind::Io, format!("`{}` exists already", to.display()));
        return Err(e.hint("choose another name, or replace it with `--force`"));
    }
    let file = model::beside(from, checkpoint::open(from)?)?;
    let named = |e: Error| e.context(format!("`{}`", from.display()));
    // a network of a known family with its configuration; anything else as its tensors
    let (what, tensors, mut metadata) = match family::recognise(FAMILIES, &file).map_err(named)? {
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
