//! `--sweep`: the combinations of parameters' values that a script is run with.
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Combinations that one sweep may have.
const MOST: usize = 10_000;

/// One run of a sweep.
#[derive(Debug, PartialEq)]
pub struct Cell {
    /// The name of its folder: `nfe=4,solver=ipndm`.
    pub name: String,
    /// Its settings, those of `--set` included.
    pub set: Vec<String>,
}

/// The values of `4,6,8`; commas within brackets and quotes belong to a value.
fn values(text: &str) -> Vec<String> {
    let (mut all, mut one, mut depth, mut quoted) = (vec![], String::new(), 0i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    all.push(one);
    all.into_iter().map(|v| v.trim().to_string()).collect()
}

/// A value as a part of a folder's name.
fn plain(value: &str) -> String {
    value.chars().map(|c| if c.is_alphanumeric() || "._-+".contains(c) { c } else { '_' }).collect()
}

/// All combinations of the sweeps' values, in the order in which they are given, the last one changing fastest.
///
/// Errors: no `=`, no values, a parameter that is swept twice or set as well, values that give folders of one name, too many combinations.
pub fn cells(sweeps: &[String], set: &[String]) -> Result<Vec<Cell>> {
    let mut all = vec![Cell { name: String::new(), set: set.to_vec() }];
    let mut seen: BTreeSet<&str> = set.iter().filter_map(|s| Some(s.split_once('=')?.0)).collect();
    for sweep in sweeps {
        let wrong = |m: String| Err(Error::value(m).hint("like `--sweep nfe=4,6,8 --sweep solver=ipndm,unipc`"));
        let Some((name, text)) = sweep.split_once('=') else {
            return wrong(format!("--sweep {sweep}: there is no `=`"));
        };
        let values = values(text);
        if values.iter().any(String::is_empty) {
            return wrong(format!("--sweep {sweep}: a value is missing"));
        }
        if !seen.insert(name) {
            return wrong(format!("--sweep {name}: its values are given twice"));
        }
        if all.len().saturating_mul(values.len()) > MOST {
            return wrong(format!("--sweep {name}: more than {MOST} combinations"));
        }
        let with = |cell: &Cell, v: &String| {
            let comma = if cell.name.is_empty() { "" } else { "," };
            let name_of = format!("{}{comma}{}={}", cell.name, plain(name), plain(v));
            Cell { name: name_of, set: [&cell.set[..], &[format!("{name}={v}")]].concat() }
        };
        all = all.iter().flat_map(|cell| values.iter().map(|v| with(cell, v)).collect::<Vec<_>>()).collect();
    }
    let names: BTreeSet<&str> = all.iter().map(|c| c.name.as_str()).collect();
    if names.len() < all.len() {
        return Err(Error::value("--sweep: two combinations would have one folder").hint("give each value once"));
    }
    if let Some(long) = all.iter().find(|c| c.name.len() > 200) {
        return Err(Error::value(format!("--sweep: the folder's name `{}` is too long", long.name)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations() {
        let text = |s: &[&str]| s.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let all = cells(&text(&["nfe=4,6", "epochs=[1,2],[0, 1]"]), &text(&["n=3"])).unwrap();
        let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["nfe=4,epochs=_1_2_", "nfe=4,epochs=_0__1_", "nfe=6,epochs=_1_2_", "nfe=6,epochs=_0__1_"]);
        assert_eq!(all[1].set, ["n=3", "nfe=4", "epochs=[0, 1]"]);
        for bad in [&["nfe"][..], &["nfe=4,,5"], &["nfe=4", "nfe=5"], &["nfe=4,4"], &["n=1"]] {
            assert!(cells(&text(bad), &text(&["n=3"])).is_err(), "{bad:?}");
        }
    }
}
