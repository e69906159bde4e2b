//! `ld3sh bench`: times the kernels, network evaluations and training steps of this binary on this machine.
//!
//! With `--serve FILE` it is one side of a comparison: inputs come from a safetensors file whose metadata names the case,
//! results go to FILE.out, and then each line on standard input asks for one run, answered with milliseconds.
mod cases;
mod ops;

use super::args::BenchArgs;
use crate::nets::kernels::gpu::cudnn_used;
use crate::nets::profile;
use crate::script::front::Front;
use crate::tensor::device;
use crate::tensor::dtype::parse as parse_dtype;
use crate::{Error, Kind, Result};
use candle_core::Device;
use cases::{CASES, Case, DTYPE, Inputs, Run, Tensors, prepare};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

/// The largest resident size of this process so far in MiB, where the system tells.
fn peak_mib() -> Option<f64> {
    let status = crate::access::system("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

fn serve(path: &Path, front: &dyn Front) -> Result<()> {
    let print_line = |text: &str| front.print(text);
    let bytes = crate::access::read(path)?.bytes().map_err(|e| Error::io(path, "read", e))?;
    let bad = |e: String| Error::new(Kind::Format, e).context(format!("`{}`", path.display()));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let case = header.metadata().as_ref().and_then(|m| m.get("case")).ok_or_else(|| bad("no `case`".into()))?;
    let case: Case = serde_json::from_str(case).map_err(|e| bad(e.to_string()))?;
    let mut run = prepare(&case, &Inputs(candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?))?;
    candle_core::safetensors::save(&run.results()?, path.with_extension("out"))?;
    let say = |v: serde_json::Value| {
        print_line(&v.to_string());
        std::io::stdout().flush().map_err(|e| Error::io(Path::new("standard output"), "write", e))
    };
    say(json!({ "ready": true }))?;
    for line in std::io::stdin().lock().lines() {
        line.map_err(|e| Error::io(Path::new("standard input"), "read", e))?;
        say(json!({ "ms": run.time()?.ms, "times": run.times, "peak_mib": peak_mib() }))?;
    }
    Ok(())
}

/// Milliseconds, best and median, the least CPU time, the number of runs, and the median part of the time that was spent outside the network.
struct Summary {
    best: f64,
    median: f64,
    cpu: Option<f64>,
    runs: usize,
    outside: Option<f64>,
}

/// How long CPU time is counted for one figure; the least of them is shown.
const WINDOW: std::time::Duration = std::time::Duration::from_millis(250);

/// Runs at least three times and for about a second.
fn time(run: &mut Run) -> Result<Summary> {
    run.time()?;
    let (mut ms, mut outside, begin) = (vec![], vec![], Instant::now());
    // the system counts CPU time in ticks: a window has many
    let (mut cpu, mut window) = (vec![], (crate::host::cpu_time(), Instant::now(), 0));
    while ms.len() < 3 || (begin.elapsed().as_secs_f64() < 1.1 && ms.len() < 1000) {
        crate::host::check_cancelled()?;
        let took = run.time()?;
        ms.push(took.ms);
        window.2 += run.times;
        if window.1.elapsed() >= WINDOW {
            let now = crate::host::cpu_time();
            let spent = now.zip(window.0).map(|(to, from)| to.saturating_sub(from).as_secs_f64());
            cpu.extend(spent.map(|s| s * 1e3 / f64::from(window.2)));
            window = (now, Instant::now(), 0);
        }
        outside.extend(took.outside);
    }
    ms.sort_by(f64::total_cmp);
    outside.sort_by(f64::total_cmp);
    let (best, median, runs) = (ms[0], ms[ms.len() / 2], ms.len());
    let cpu = cpu.into_iter().min_by(f64::total_cmp);
    Ok(Summary { best, median, cpu, runs, outside: outside.get(runs / 2).copied() })
}

/// Times the cases that are asked for, or serves a comparison.
pub fn run(args: &BenchArgs, front: &dyn Front) -> Result<()> {
    let print_line = |text: &str| front.print(text);
    if let Some(dtype) = &args.dtype {
        DTYPE.set(parse_dtype(dtype)?);
    }
    if let Some(path) = &args.serve {
        return serve(path, front);
    }
    let (as_json, names) = (args.json, &args.cases);
    let mut cases: Vec<Case> = vec![];
    let parse = |text: &str| {
        serde_json::from_str(text).map_err(|e| Error::value(format!("`{text}` is not a case of `bench`: {e}")))
    };
    for name in names {
        if name == "ops" {
            cases.extend(ops::cases());
            continue;
        }
        let named: Vec<&str> = CASES.iter().filter(|(n, _)| n == name).map(|(_, c)| *c).collect();
        match (named.is_empty(), name.starts_with('{')) {
            (true, true) => cases.push(parse(name)?),
            (true, false) => {
                let known = CASES.iter().map(|(n, _)| *n).chain(["ops"]);
                return Err(Error::unknown("case of `bench`", name, known));
            }
            _ => cases.extend(named.into_iter().map(parse).collect::<Result<Vec<_>>>()?),
        }
    }
    if cases.is_empty() {
        cases = CASES.iter().map(|(_, c)| parse(c)).collect::<Result<_>>()?;
    }
    let card = device::card(&device::default_device());
    if !card.is_empty() {
        let words: Vec<String> = card.iter().map(|(what, value)| format!("{what} {value}")).collect();
        match as_json {
            true => print_line(&json!({ "device": card.iter().cloned().collect::<BTreeMap<_, _>>() }).to_string()),
            false => print_line(&words.join(", ")),
        }
    }
    if !as_json {
        print_line(&format!(
            "{:>10} {:>10} {:>10} {:>6}  case ({} threads)",
            "best ms",
            "median ms",
            "CPU ms",
            "runs",
            rayon::current_num_threads()
        ));
    }
    for case in &cases {
        let mut run = prepare(case, &Inputs(Tensors::new()))?;
        let Summary { best, median, cpu, runs, outside } = time(&mut run)?;
        if as_json {
            let (case, peak) = (format!("{case:?}"), peak_mib());
            let row = json!({ "case": case, "ms": best, "median_ms": median, "cpu_ms": cpu, "runs": runs, "outside": outside, "peak_mib": peak });
            print_line(&row.to_string());
        } else {
            let outside = outside.map_or(String::new(), |o| format!(", {:.2} % outside the network", o * 100.0));
            let cpu = cpu.map_or("—".into(), |c| format!("{c:.3}"));
            print_line(&format!("{best:10.3} {median:10.3} {cpu:>10} {runs:6}  {case:?}{outside}"));
        }
        if args.profile {
            profile(&mut run, front)?;
        }
    }
    if let (false, Some(peak)) = (as_json, peak_mib()) {
        print_line(&format!("peak resident size {peak:.0} MiB"));
    }
    if let (false, Some([used, met])) = (card.is_empty(), cudnn_used()) {
        print_line(&format!("cuDNN used for {used} of {met} shapes of convolutions"));
    }
    Ok(())
}

/// Places that a profile shows one by one.
const PLACES: usize = 12;

/// Prints where one more run's time goes inside the network: by kind of operation, and the places that take the longest.
fn profile(run: &mut Run, front: &dyn Front) -> Result<()> {
    let print_line = |text: &str| front.print(text);
    let (took, times) = profile::collect(|| run.time());
    let all = took?.ms;
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    let total: f64 = times.iter().map(|(_, t)| ms(t.total())).sum();
    let table = |what: &str, rows: &[(String, profile::Time)]| {
        print_line(&format!("{:>10} {:>10} {:>8} {:>6}  {what}", "forward ms", "pull ms", "share", "calls"));
        for (name, t) in rows {
            let share = 100.0 * ms(t.total()) / total;
            print_line(&format!("{:10.2} {:10.2} {share:7.1}% {:6}  {name}", ms(t.run), ms(t.pull), t.calls));
        }
    };
    let kinds: Vec<_> = profile::by_kind(&times).into_iter().map(|(kind, t)| (kind.to_string(), t)).collect();
    table("operation", &kinds);
    let places: Vec<_> = times.iter().take(PLACES).map(|((at, kind), t)| (format!("{at} ({kind})"), *t)).collect();
    table("place", &places);
    print_line(&format!("{total:10.2} ms in operations of {all:.2} ms"));
    Ok(())
}
