//! A report as one HTML page that needs nothing else: runs in a table, what differs, plots, tables, pictures, scripts.
use super::parts::{code, csv, files, map, picture, plots, table, text};
use super::style::{SCRIPT, STYLE};
use super::{differing, duration, measures, script, setting, shown};
use crate::Result;
use crate::draw::escape;
use crate::files::record::Recorded;
use serde_json::Value;
use std::fmt::Write;

/// The page of these runs.
pub fn page(runs: &[Recorded]) -> Result<String> {
    let names = names(runs);
    let (settings, measures) = (differing(runs), measures(runs));
    let title = if runs.len() == 1 { format!("Run {}", names[0]) } else { format!("{} runs", runs.len()) };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}</title>\n<style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape(&title)
    );
    let sections = [("runs", "Runs"), ("plots", "Plots"), ("pictures", "Pictures"), ("each", "Each run")];
    let links: String = sections.iter().map(|(id, name)| format!("<a href=\"#{id}\">{name}</a>")).collect();
    // writing to a String cannot fail
    let _ = writeln!(out, "<nav>{links}</nav>");
    let _ = write!(out, "<h2 id=\"runs\">Runs</h2>\n{}", overview(runs, &names, &settings, &measures));
    if runs.len() > 1 {
        let same: Vec<String> = settings.iter().map(|s| format!("<code>{}</code>", escape(s))).collect();
        let text = if same.is_empty() { "in none of their settings".into() } else { same.join(", ") };
        let _ = writeln!(out, "<p class=\"faint\">The runs differ in {text}{}.</p>", scripts_differ(runs));
    }
    let named: Vec<(String, &Recorded)> = names.iter().cloned().zip(runs).collect();
    let drawn = plots(&named, &measures)?;
    let drawn = if drawn.is_empty() {
        "<p class=\"faint\">No run recorded a measure more than once.</p>\n".into()
    } else {
        drawn
    };
    let _ = write!(out, "<h2 id=\"plots\">Plots</h2>\n{drawn}");
    let _ = write!(out, "<h2 id=\"pictures\">Pictures</h2>\n{}", pictures(&named));
    let _ = writeln!(out, "<h2 id=\"each\">Each run</h2>");
    for (i, (name, run)) in named.iter().enumerate() {
        one(&mut out, i, name, run);
    }
    let _ = write!(
        out,
        "<p class=\"faint\">Made by ld3sh {}.</p>\n<script>{SCRIPT}</script>\n</body></html>\n",
        crate::VERSION
    );
    Ok(out)
}

/// The runs' folders, without what all of them begin with.
fn names(runs: &[Recorded]) -> Vec<String> {
    let parts =
        |r: &Recorded| r.folder.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect::<Vec<_>>();
    let all: Vec<Vec<String>> = runs.iter().map(parts).collect();
    let shared = |i: usize| all.iter().all(|p| p.len() > i + 1 && p[i] == all[0][i]);
    let skip = (0..).take_while(|i| shared(*i)).count();
    all.iter().map(|p| p[skip..].join("/")).collect()
}

fn scripts_differ(runs: &[Recorded]) -> &'static str {
    match runs.iter().any(|r| setting(r, "script") != setting(&runs[0], "script")) {
        true => ", and in the text of their scripts",
        false => "",
    }
}

fn overview(runs: &[Recorded], names: &[String], settings: &[String], measures: &[String]) -> String {
    let mut header: Vec<String> = ["run", "script", "started (UTC)", "status", "took"].map(String::from).to_vec();
    header.extend(settings.iter().cloned().chain(measures.iter().cloned()));
    let row = |(i, (name, r)): (usize, (&String, &Recorded))| {
        let (last, status) = (r.last(), r.status());
        let date = r.head.get("date").and_then(Value::as_str).unwrap_or_default().replace('T', " ");
        let mut row = vec![
            format!("<a href=\"#run{i}\">{}</a>", escape(name)),
            format!(" {}", script(r)),
            date.trim_end_matches('Z').to_string(),
            format!("<span class=\"{0}\">{0}</span>", escape(status)),
            duration(r),
        ];
        row.extend(settings.iter().map(|s| text(&setting(r, s))));
        row.extend(measures.iter().map(|m| last.get(m).map_or_else(String::new, shown)));
        row
    };
    let rows: Vec<Vec<String>> = names.iter().zip(runs).enumerate().map(row).collect();
    table(&header, &rows)
}

/// The pictures of all runs, those of one name side by side.
fn pictures(runs: &[(String, &Recorded)]) -> String {
    let mut all: Vec<(String, String)> = vec![];
    for (name, run) in runs {
        let drawn = files(run, "svg");
        // of a figure that was saved as both, the one that stays sharp
        let painted =
            files(run, "png").into_iter().filter(|png| !drawn.iter().any(|svg| svg.file_stem() == png.file_stem()));
        for file in painted.chain(drawn.iter().cloned()) {
            let file_name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let caption = if runs.len() > 1 { format!("{name}: {file_name}") } else { file_name.clone() };
            all.push((file_name, picture(&file, &caption)));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    match all.is_empty() {
        true => "<p class=\"faint\">There are none in the folders of the runs.</p>\n".into(),
        false => format!("<div class=\"grid\">\n{}</div>\n", all.into_iter().map(|(_, html)| html).collect::<String>()),
    }
}

fn one(out: &mut String, i: usize, name: &str, run: &Recorded) {
    let _ = writeln!(
        out,
        "<section id=\"run{i}\"><h3>{} <span class=\"{1}\">{1}</span></h3>",
        escape(name),
        escape(run.status())
    );
    if let Some(why) = run.end.as_ref().and_then(|e| e.get("error")?.as_str()) {
        let _ = writeln!(out, "<pre>{}</pre>", escape(why));
    }
    if let Some(params) = run.head.get("params") {
        out.push_str(&map(params));
    }
    let head: serde_json::Map<String, Value> = run
        .head
        .iter()
        .filter(|(k, v)| !["script", "params", "format"].contains(&k.as_str()) && (!v.is_object() || *k == "made"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let _ =
        write!(out, "<details><summary>Versions, device, hashes</summary>\n{}</details>\n", map(&Value::Object(head)));
    for file in files(run, "csv") {
        out.push_str(&csv(&file));
    }
    if !run.metrics.is_empty() {
        let one = std::slice::from_ref(run);
        let mut names = measures(one);
        names.extend(
            run.metrics
                .iter()
                .flat_map(|m| m.keys())
                .filter(|k| !names.contains(k))
                .cloned()
                .collect::<std::collections::BTreeSet<_>>(),
        );
        let row = |m: &serde_json::Map<String, Value>| {
            names.iter().map(|n| m.get(n).map_or_else(String::new, text)).collect()
        };
        let rows: Vec<Vec<String>> = run.metrics.iter().map(row).collect();
        let open = if rows.len() <= 20 { " open" } else { "" };
        let _ = write!(
            out,
            "<details{open}><summary>{} records</summary>\n{}</details>\n",
            rows.len(),
            table(&names, &rows)
        );
    }
    if let Some(text) = run.head.get("script").and_then(|s| s.get("text")?.as_str()) {
        let _ = write!(out, "<details><summary>{}</summary>\n{}</details>\n", escape(&script(run)), code(text));
    }
    out.push_str("</section>\n");
}
