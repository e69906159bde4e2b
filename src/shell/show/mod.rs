//! How values print at the prompt, and `show(x)`: pictures and charts in the terminal.
pub mod blocks;
pub mod chart;
mod objects;
pub mod protocols;
pub mod spark;
pub mod value;

use crate::discretize::Schedule;
use crate::draw::plot::{LinesOptions, Plot, SchedulesOptions, Series, Space, lines, schedules};
use crate::files::image::{GridOptions, Image, grid};
use crate::real::{Real, host_values};
use crate::schema::{Kind as Of, Schema, value};
use crate::script::context::SharedRun;
use crate::script::error::RhaiResult;
use crate::script::files::{ScriptPlot, drawn};
use crate::script::front::Drawing;
use crate::script::options::number_of;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{Array, Dynamic, Engine, FuncRegistration, Map};
use std::cell::Cell;
use std::rc::Rc;

const SHOW: Schema =
    Schema::new("show", &[value("columns", Of::COUNT, "the terminal's width", "the most columns to use")]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[SHOW];

/// Rows of a chart in characters.
const CHART: usize = 14;

/// What can be shown.
enum Shown {
    Picture(Image),
    Drawing(Rc<Plot>),
    Curve(Vec<f64>),
    Schedules(Vec<Schedule>),
}

/// Registers `show`; what the terminal cannot draw goes to the output folder of `run`.
pub fn register(engine: &mut Engine, run: &SharedRun) {
    let count = Rc::new(Cell::new(0));
    let (r, c) = (run.clone(), count.clone());
    FuncRegistration::new("show")
        .with_comments([
            "/// Draws in the terminal: a picture, a batch of them, point clouds, a plot, a schedule, or numbers as a curve.",
            "///",
            "/// `x`: an image or plot; a tensor [B, C, H, W], [C, H, W] or [H, W] with values in [−1, 1]; point clouds [N, 3] or [B, N, 3]; a schedule or an array of",
            "/// schedules; a tensor [N] or an array of numbers. Uses kitty's protocol, iTerm2's, sixels, or half blocks, whichever the",
            "/// terminal has (`LD3SH_GRAPHICS=kitty|iterm|sixel|blocks|none` decides otherwise). Where it has none, the picture is",
            "/// saved in the output folder, and a line on standard error says where.",
            "///",
            "/// Example: `show([1.0, 0.4, 0.2, 0.1])`",
        ])
        .with_params_info(["x: Dynamic", "()"])
        .register_into_engine(engine, move |x: Dynamic| -> RhaiResult<()> { show(&r, &c, &x, Map::new()) });
    let r = run.clone();
    FuncRegistration::new("show")
        .with_comments([
            "/// Draws in the terminal, with options.",
            "///",
            "/// Example: `show([1.0, 0.4, 0.2, 0.1], #{ columns: 40 })`",
        ])
        .with_params_info(["x: Dynamic", "options: Map", "()"])
        .register_into_engine(engine, move |x: Dynamic, o: Map| -> RhaiResult<()> { show(&r, &count, &x, o) });
}

fn show(run: &SharedRun, count: &Cell<usize>, x: &Dynamic, options: Map) -> RhaiResult<()> {
    let wanted = SHOW.read(options)?.some_count("columns");
    let shown = shown(x)?;
    let front = run.borrow().front.clone();
    if !front.draw(&shown, wanted)? {
        let name = format!("show-{}.png", count.get() + 1);
        count.set(count.get() + 1);
        let path = run.borrow().out.join(name);
        crate::access::write(&path)?.make_parent().map_err(|e| Error::io(&path, "create the folder of", e))?;
        shown.image(2)?.save(&path)?;
        front.report(&format!("saved `{}`: this output draws no pictures", path.display()));
    }
    Ok(())
}

/// Whether a tensor is clouds [N, 3] or [B, N, 3]: a picture three pixels wide is hardly that high.
fn is_cloud(dims: &[usize]) -> bool {
    matches!(dims, [.., n, 3] if (2..=3).contains(&dims.len()) && *n >= 32)
}

/// What a script's value shows as.
///
/// # Errors
/// What cannot be drawn.
pub fn shown(x: &Dynamic) -> Result<impl Drawing + use<>> {
    if let Some(i) = x.read_lock::<Image>() {
        return Ok(Shown::Picture(i.clone()));
    }
    if let Some(p) = x.read_lock::<ScriptPlot>() {
        return Ok(Shown::Drawing(p.0.clone()));
    }
    if let Some(s) = x.read_lock::<Schedule>() {
        return Ok(Shown::Schedules(vec![s.clone()]));
    }
    if let Some(t) = x.read_lock::<Tensor>() {
        return match t.rank() {
            1 => Ok(Shown::Curve(host_values(&t.detach())?)),
            _ if is_cloud(t.dims()) => drawn(&t).map(Shown::Picture),
            _ => {
                let alone = t.rank() < 4 || t.dims()[0] == 1;
                let pad = if alone { 0 } else { GridOptions::default().pad };
                grid(&t, &GridOptions { pad, ..GridOptions::default() })
                    .map(Shown::Picture)
                    .map_err(|e| e.context("show"))
            }
        };
    }
    let cannot = |what: &str| {
        Error::new(Kind::Type, format!("show: cannot draw {what}")).hint(
            "it draws images, plots, tensors [B, C, H, W], [C, H, W], [H, W] or [N], clouds [B, N, 3], schedules, and arrays of numbers",
        )
    };
    let Some(a) = x.read_lock::<Array>() else {
        return Err(cannot(crate::script::error::type_of(x)));
    };
    if !a.is_empty() && a.iter().all(|v| v.is::<Schedule>()) {
        return Ok(Shown::Schedules(a.iter().filter_map(|v| v.read_lock::<Schedule>().map(|s| s.clone())).collect()));
    }
    let number = |v: &Dynamic| match v.read_lock::<Tensor>() {
        Some(t) if t.elem_count() == 1 => host_values(&t.detach()).ok()?.first().copied(),
        _ if v.is_unit() => Some(f64::NAN),
        _ => number_of(v),
    };
    let numbers: Option<Vec<f64>> = a.iter().map(number).collect();
    numbers.map(Shown::Curve).ok_or_else(|| cannot("this array"))
}

impl Drawing for Shown {
    fn image(&self, scale: usize) -> Result<Image> {
        picture(self, scale)
    }
    fn text(&self, columns: usize, rows: usize) -> Result<Option<String>> {
        Ok(match self {
            Shown::Curve(values) => Some(chart::curve(values, columns, CHART.min(rows))),
            Shown::Schedules(all) => Some(chart::ticks(&log_sigmas(all)?, columns)),
            _ => None,
        })
    }
}

/// Each schedule's name and its ln(σ/α).
fn log_sigmas(all: &[Schedule]) -> Result<Vec<(String, Vec<f64>)>> {
    let one = |s: &Schedule| {
        let t = s.times()?;
        Ok((
            crate::access::clean(&s.name).into_owned(),
            t.iter().map(|t| s.noise.ve_sigma(&Real::from(*t)).v().ln()).collect(),
        ))
    };
    all.iter().map(one).collect()
}

/// As pixels; plots with `scale` of them per unit.
fn picture(shown: &Shown, scale: usize) -> Result<Image> {
    let plot = match shown {
        Shown::Picture(i) => return Ok(i.clone()),
        Shown::Drawing(p) => return p.to_image(scale),
        Shown::Curve(y) => {
            let x = (0..y.len()).map(|i| i as f64).collect();
            let series = Series { name: String::new(), x, y: y.clone(), line: true, points: y.len() <= 40, band: None };
            lines(&[series], &LinesOptions::default())?
        }
        Shown::Schedules(all) => {
            let options = SchedulesOptions { space: Space::Sigma, title: String::new(), width: 720 };
            schedules(all, &options)?
        }
    };
    plot.to_image(scale)
}
