//! Rhai functions for images and plots: modules `image` and `plot`, types `Image` and `Plot`.
use crate::discretize::Schedule;
use crate::draw::charts::{self, Bars, Heat};
use crate::draw::plot::{LinesOptions, Plot, SchedulesOptions, Series, Space, lines as draw_lines, schedules};
use crate::draw::sheet::{SheetOptions, sheet as make_sheet};
use crate::files::animation::{self, Timing};
use crate::files::image::{GridOptions, Image, QUALITY, from_batch, grid as make_grid};
use crate::real::host_values;
use crate::script::error::RhaiResult;
use crate::script::options::Options;
use crate::tensor::aside;
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, Map};
use std::rc::Rc;

/// A plot as scripts hold it.
#[derive(Clone)]
pub struct ScriptPlot(pub Rc<Plot>);

/// Adds this area's types and functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Image>("Image");
    engine.register_type_with_name::<ScriptPlot>("Plot");
    engine.register_static_module("image", rhai::exported_module!(image_api).into());
    engine.register_static_module("plot", rhai::exported_module!(plot_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

fn wrong(m: String) -> Error {
    Error::new(Kind::Type, m)
}

/// Numbers from a tensor or an array (in which () is a gap).
fn numbers(what: &str, v: &Dynamic) -> RhaiResult<Vec<f64>> {
    if let Some(t) = v.read_lock::<Tensor>() {
        return Ok(host_values(&t.detach())?);
    }
    let Some(a) = v.read_lock::<Array>() else {
        return Err(wrong(format!(
            "{what} must be a tensor or an array of numbers, not {}",
            crate::script::error::type_of(v)
        ))
        .into());
    };
    let one = |v: &Dynamic| -> RhaiResult<f64> {
        match (v.as_float(), v.as_int()) {
            (Ok(f), _) => Ok(f),
            (_, Ok(i)) => Ok(i as f64),
            _ if v.is_unit() => Ok(f64::NAN),
            _ => match v.read_lock::<Tensor>().map(|t| host_values(&t.detach())).transpose()?.as_deref() {
                Some(&[x]) => Ok(x),
                _ => Err(wrong(format!("{what} must be numbers, not {}", crate::script::error::type_of(v))).into()),
            },
        }
    };
    a.iter().map(one).collect()
}

fn animate(frames: &Dynamic, path: &str, map: Map) -> RhaiResult<()> {
    let mut o = Options::new("image::animation", map);
    let fps = o.float("fps")?.unwrap_or(8.0);
    let repeat = o.count("repeat")?.unwrap_or(0);
    let rest = o.float("rest")?.unwrap_or(0.0);
    o.finish()?;
    let Ok(repeat) = u16::try_from(repeat) else {
        return Err(Error::value(format!("image::animation: repeat must be at most {}, not {repeat}", u16::MAX)).into());
    };
    let needs = || wrong("image::animation takes a tensor [N, C, H, W] or an array of images".into());
    let frames: Vec<Image> = match (frames.read_lock::<Tensor>(), frames.read_lock::<Array>()) {
        (Some(t), _) => from_batch("image::animation", &t)?,
        (_, Some(a)) => a.iter().map(|v| v.clone().try_cast::<Image>().ok_or_else(needs)).collect::<Result<_, _>>()?,
        _ => return Err(needs().into()),
    };
    Ok(animation::save(frames, path, Timing { fps, repeat, rest })?)
}

fn series(v: &Dynamic, i: usize) -> RhaiResult<Series> {
    let what = format!("plot::lines, series {i}");
    let Some(map) = v.read_lock::<Map>().map(|m| m.clone()) else {
        return Err(
            wrong(format!("{what} must be a map #{{ name, x, y }}, not {}", crate::script::error::type_of(v))).into()
        );
    };
    let mut o = Options::new(&what, map);
    let name = o.string("name")?.unwrap_or_default();
    let Some(y) = o.take("y") else {
        return Err(Error::value(format!("{what} has no `y`")).into());
    };
    let y = numbers(&format!("{what}: y"), &y)?;
    let x = match o.take("x") {
        Some(x) => numbers(&format!("{what}: x"), &x)?,
        None => (0..y.len()).map(|i| i as f64).collect(),
    };
    let band = match (o.take("low"), o.take("high")) {
        (Some(low), Some(high)) => {
            Some([numbers(&format!("{what}: low"), &low)?, numbers(&format!("{what}: high"), &high)?])
        }
        (None, None) => None,
        _ => return Err(Error::value(format!("{what}: a band needs both `low` and `high`")).into()),
    };
    let line = o.bool("line")?.unwrap_or(true);
    let points = o.bool("points")?.unwrap_or(!line || y.len() <= 40);
    o.finish()?;
    Ok(Series { name, x, y, line, points, band })
}

fn size(o: &mut Options, default: (usize, usize)) -> RhaiResult<(usize, usize)> {
    let Some(a) = o.array("size")? else { return Ok(default) };
    let side = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok());
    match a.iter().map(side).collect::<Option<Vec<_>>>().as_deref() {
        Some(&[w, h]) => Ok((w, h)),
        _ => Err(wrong("plot: option `size` must be [width, height], two integers".into()).into()),
    }
}

/// The texts around a plot, and its size.
fn around(o: &mut Options) -> RhaiResult<LinesOptions> {
    let d = LinesOptions::default();
    Ok(LinesOptions {
        title: o.string("title")?.unwrap_or_default(),
        x_label: o.string("x_label")?.unwrap_or_default(),
        y_label: o.string("y_label")?.unwrap_or_default(),
        size: size(o, d.size)?,
        ..d
    })
}

/// Texts in an array, or whatever its values are as texts.
fn names(a: Option<Array>) -> Vec<String> {
    a.unwrap_or_default().iter().map(Dynamic::to_string).collect()
}

fn make_bars(map: Map) -> RhaiResult<ScriptPlot> {
    let mut o = Options::new("plot::bars", map);
    let options = around(&mut o)?;
    let groups = names(o.array("groups")?);
    let all = o.array("series")?.unwrap_or_default();
    o.finish()?;
    let one = |(i, v): (usize, &Dynamic)| -> RhaiResult<Bars> {
        let what = format!("plot::bars, series {i}");
        let map = v
            .read_lock::<Map>()
            .map(|m| m.clone())
            .ok_or_else(|| wrong(format!("{what} must be a map #{{ name, y }}")))?;
        let mut o = Options::new(&what, map);
        let name = o.string("name")?.unwrap_or_default();
        let values = o.take("y").ok_or_else(|| Error::value(format!("{what} has no `y`")))?;
        let errors = o.take("error").map(|e| numbers(&format!("{what}: error"), &e)).transpose()?;
        o.finish()?;
        Ok(Bars { name, values: numbers(&format!("{what}: y"), &values)?, errors })
    };
    let all = all.iter().enumerate().map(one).collect::<RhaiResult<Vec<_>>>()?;
    Ok(ScriptPlot(Rc::new(charts::bars(&groups, &all, &options)?)))
}

fn make_histogram(values: &Dynamic, map: Map) -> RhaiResult<ScriptPlot> {
    let mut o = Options::new("plot::histogram", map);
    let options = around(&mut o)?;
    let bins = o.count("bins")?.unwrap_or(30);
    o.finish()?;
    Ok(ScriptPlot(Rc::new(charts::histogram(&numbers("plot::histogram", values)?, bins, &options)?)))
}

fn make_heat(values: &Dynamic, map: Map) -> RhaiResult<ScriptPlot> {
    let mut o = Options::new("plot::heat", map);
    let options = around(&mut o)?;
    let names = [names(o.array("rows")?), names(o.array("columns")?)];
    let log = o.bool("log")?.unwrap_or(false);
    let write = o.bool("numbers")?.unwrap_or(false);
    o.finish()?;
    let rows = match values.read_lock::<Tensor>() {
        Some(t) => {
            let &[_, columns] = t.dims() else {
                return Err(Error::shape(format!("plot::heat: needs [H, W], not {:?}", t.dims()), &[t.dims()]).into());
            };
            host_values(&t.detach())?.chunks(columns.max(1)).map(<[f64]>::to_vec).collect()
        }
        None => {
            let a = values
                .read_lock::<Array>()
                .ok_or_else(|| wrong("plot::heat takes a tensor [H, W] or an array of rows".into()))?;
            a.iter()
                .enumerate()
                .map(|(i, row)| numbers(&format!("plot::heat: row {i}"), row))
                .collect::<RhaiResult<_>>()?
        }
    };
    Ok(ScriptPlot(Rc::new(charts::heat(&Heat { values: rows, names, log, numbers: write }, &options)?)))
}

fn make_lines(map: Map) -> RhaiResult<ScriptPlot> {
    let mut o = Options::new("plot::lines", map);
    let options = LinesOptions {
        log_x: o.bool("log_x")?.unwrap_or(false),
        log_y: o.bool("log_y")?.unwrap_or(false),
        ..around(&mut o)?
    };
    let all = o.array("series")?.unwrap_or_default();
    o.finish()?;
    let all = all.iter().enumerate().map(|(i, v)| series(v, i)).collect::<RhaiResult<Vec<_>>>()?;
    Ok(ScriptPlot(Rc::new(draw_lines(&all, &options)?)))
}

fn make_schedules(all: Array, map: Map) -> RhaiResult<ScriptPlot> {
    let mut o = Options::new("plot::schedules", map);
    let space = match o.one_of("axis", &["sigma", "lambda", "t"])? {
        Some("lambda") => Space::Lambda,
        Some("t") => Space::Time,
        _ => Space::Sigma,
    };
    let title = o.string("title")?.unwrap_or_default();
    let width = o.count("width")?.unwrap_or(720);
    o.finish()?;
    let one = |v: Dynamic| {
        v.try_cast_result::<Schedule>().map_err(|v| {
            wrong(format!(
                "plot::schedules takes an array of schedules, but there is {} in it",
                crate::script::error::type_of(&v)
            ))
            .into()
        })
    };
    let all = all.into_iter().map(one).collect::<RhaiResult<Vec<_>>>()?;
    Ok(ScriptPlot(Rc::new(schedules(&all, &SchedulesOptions { space, title, width })?)))
}

fn make_contact_sheet(rows: Array, map: Map) -> RhaiResult<Image> {
    let mut o = Options::new("image::sheet", map);
    let d = SheetOptions::default();
    let columns = o.array("columns")?.unwrap_or_default();
    let options = SheetOptions {
        scale: o.count("scale")?,
        pad: o.count("pad")?.unwrap_or(d.pad),
        title: o.string("title")?,
        columns: columns.iter().map(Dynamic::to_string).collect(),
        font: o.float("font")?.unwrap_or(d.font),
    };
    o.finish()?;
    let row = |(i, v): (usize, Dynamic)| -> RhaiResult<(String, Tensor)> {
        let pair = v.try_cast::<Array>().and_then(|a| <[Dynamic; 2]>::try_from(a).ok());
        match pair.map(|[label, t]| (label.into_string(), t.try_cast::<Tensor>())) {
            Some((Ok(label), Some(t))) => Ok((label, t)),
            _ => Err(wrong(format!("image::sheet: row {i} must be [label, tensor]")).into()),
        }
    };
    let rows = rows.into_iter().enumerate().map(row).collect::<RhaiResult<Vec<_>>>()?;
    Ok(make_sheet(&rows, &options)?)
}

fn grid_of(x: Tensor, options: GridOptions) -> RhaiResult<Image> {
    let load = aside::load(&[&x]).saturating_mul(options.scale.saturating_mul(options.scale).max(1));
    Ok(aside::run(load, move || make_grid(&x, &options))?)
}

/// Pictures from tensors with values in [−1, 1], and PNG files.
#[export_module]
mod image_api {
    /// The picture of one tensor [H, W], [C, H, W] or [1, C, H, W] with C = 1 or 3, values in [−1, 1].
    ///
    /// Values outside are cut.
    ///
    /// Example: `image::from(zeros([1, 8, 8])).save(out("x.png"));`
    #[rhai_fn(return_raw)]
    pub fn from(x: Tensor) -> RhaiResult<Image> {
        Ok(aside::run(aside::load(&[&x]), move || Image::from_tensor(&x))?)
    }
    /// A batch [B, C, H, W] as one picture, in about as many rows as columns.
    #[rhai_fn(return_raw)]
    pub fn grid(x: Tensor) -> RhaiResult<Image> {
        grid_of(x, GridOptions::default())
    }
    /// A batch [B, C, H, W] (values in [−1, 1]) as one picture.
    ///
    /// Options:
    /// - `cols` (about √B): pictures in a row
    /// - `scale` (1): pixels per pixel
    /// - `pad` (2): pixels between
    /// - `background` (255): grey level between
    ///
    /// Example: `image::grid(randn([6, 1, 8, 8], #{ seed: 0 }), #{ cols: 3, scale: 2 }).save(out("x.png"));`
    #[rhai_fn(name = "grid", return_raw)]
    pub fn grid_with(x: Tensor, options: Map) -> RhaiResult<Image> {
        let mut o = Options::new("image::grid", options);
        let d = GridOptions::default();
        let background = o.count("background")?.unwrap_or(usize::from(d.background));
        let Ok(background) = u8::try_from(background) else {
            return Err(
                Error::value(format!("image::grid: background must be within [0, 255], not {background}")).into()
            );
        };
        let cols = o.count("cols")?;
        let (scale, pad) = (o.count("scale")?.unwrap_or(d.scale), o.count("pad")?.unwrap_or(d.pad));
        o.finish()?;
        grid_of(x, GridOptions { cols, scale, pad, background })
    }
    /// A contact sheet: labelled rows of pictures.
    #[rhai_fn(return_raw)]
    pub fn sheet(rows: Array) -> RhaiResult<Image> {
        make_contact_sheet(rows, Map::new())
    }
    /// A contact sheet: labelled rows of pictures, as papers show them.
    ///
    /// Arguments: rows [label, tensor [B, C, H, W]]; a label's further lines are drawn smaller.
    ///
    /// Options:
    /// - `columns` ([]): captions
    /// - `title` (none): a line above
    /// - `scale` (as makes pictures 72 pixels high): pixels per pixel
    /// - `pad` (4): pixels between
    /// - `font` (15): pixels
    ///
    /// Example: `let x = zeros([2, 1, 8, 8]); image::sheet([["teacher", x], ["LD3\nNFE 5", x]], #{ title: "same noises" }).save(out("sheet.png"));`
    #[rhai_fn(name = "sheet", return_raw)]
    pub fn sheet_with(rows: Array, options: Map) -> RhaiResult<Image> {
        make_contact_sheet(rows, options)
    }
    /// Writes pictures one after the other to a `.gif`, or a `.png` that moves (APNG, which keeps all colours).
    ///
    /// See `image::animation` with options.
    ///
    /// Example: `image::animation(zeros([3, 1, 8, 8]), out("still.gif"));`
    #[rhai_fn(return_raw)]
    pub fn animation(frames: Dynamic, path: &str) -> RhaiResult<()> {
        animate(&frames, path, Map::new())
    }
    /// Writes pictures one after the other to a `.gif`, or a `.png` that moves (APNG, which keeps all colours): a trajectory, for example.
    ///
    /// Arguments: a tensor [N, C, H, W] with values in [−1, 1], or an array of images of one size.
    ///
    /// Options:
    /// - `fps` (8): frames a second, from 0.1 to 50
    /// - `repeat` (0): how often all is shown; 0: for ever
    /// - `rest` (0): seconds that the last frame stands longer
    ///
    /// Example: `let x = zeros([2, 1, 8, 8]); image::animation([image::grid(x), image::grid(x + 1)], out("two.png"), #{ fps: 2, rest: 1 });`
    #[rhai_fn(name = "animation", return_raw)]
    pub fn animation_with(frames: Dynamic, path: &str, options: Map) -> RhaiResult<()> {
        animate(&frames, path, options)
    }
    /// Reads a PNG or JPEG file, whatever its name.
    ///
    /// Errors on a file that is neither.
    ///
    /// Example: `image::from(zeros([1, 4, 4])).save(out("x.png")); image::load(out("x.png")).tensor.shape` is [1, 4, 4]
    #[rhai_fn(return_raw)]
    pub fn load(path: &str) -> RhaiResult<Image> {
        Ok(Image::load(path)?)
    }
}

/// Plots, saved as PNG or SVG.
#[export_module]
mod plot_api {
    /// A plot of lines and points over two axes, with a legend.
    ///
    /// Options:
    /// - `series` ([]): maps `#{ name, x, y, line, points, low, high }` with x and y arrays or tensors; x counts from 0 when absent; ()
    ///   and NaN are gaps; `line` (true) and `points` (of up to 40 values) say how they are drawn; `low` and `high` are the ends of a band
    ///   around the line
    /// - `title` (""), `x_label` (""), `y_label` (""): texts
    /// - `log_x` (false), `log_y` (false): logarithmic axes
    /// - `size` ([720, 440]): width and height
    ///
    /// Example: `plot::lines(#{ title: "loss", log_y: true, series: [#{ name: "train", y: [0.3, 0.1, 0.02] }] }).save(out("loss.svg"));`
    #[rhai_fn(return_raw)]
    pub fn lines(options: Map) -> RhaiResult<ScriptPlot> {
        make_lines(options)
    }
    /// Bars in groups, from 0, with their errors.
    ///
    /// Options:
    /// - `groups` ([]): names below the groups
    /// - `series` ([]): maps `#{ name, y, error }`: bars of one colour, a height and an error for each group
    /// - `title` (""), `x_label` (""), `y_label` (""): texts
    /// - `size` ([720, 440]): width and height
    ///
    /// Example: `plot::bars(#{ groups: ["NFE 4", "NFE 6"], series: [#{ name: "LD3", y: [3.1, 2.2], error: [0.2, 0.1] }] }).save(out("bars.svg"));`
    #[rhai_fn(return_raw)]
    pub fn bars(options: Map) -> RhaiResult<ScriptPlot> {
        make_bars(options)
    }
    /// How many values of a tensor or an array fall into each of 30 equal intervals.
    ///
    /// Example: `plot::histogram(randn([1000], #{ seed: 0 })).save(out("histogram.svg"));`
    #[rhai_fn(return_raw)]
    pub fn histogram(values: Dynamic) -> RhaiResult<ScriptPlot> {
        make_histogram(&values, Map::new())
    }
    /// How many values of a tensor or an array fall into each of some equal intervals.
    ///
    /// Options:
    /// - `bins` (30): intervals
    /// - `title` (""), `x_label` (""), `y_label` (""): texts
    /// - `size` ([720, 440]): width and height
    ///
    /// Example: `plot::histogram([1, 2, 2, 3], #{ bins: 3, title: "numbers" }).save(out("histogram.svg"));`
    #[rhai_fn(name = "histogram", return_raw)]
    pub fn histogram_with(values: Dynamic, options: Map) -> RhaiResult<ScriptPlot> {
        make_histogram(&values, options)
    }
    /// A tensor [H, W], or an array of rows, as colours.
    ///
    /// Example: `plot::heat(eye(4)).save(out("heat.svg"));`
    #[rhai_fn(return_raw)]
    pub fn heat(values: Dynamic) -> RhaiResult<ScriptPlot> {
        make_heat(&values, Map::new())
    }
    /// A tensor [H, W], or an array of rows, as colours that tell dark from light to all eyes, with their scale; () and NaN stay white.
    ///
    /// Options:
    /// - `rows` ([]), `columns` ([]): names
    /// - `log` (false): colours by the logarithm
    /// - `numbers` (false): write the numbers into cells that are large enough
    /// - `title` (""), `x_label` (""), `y_label` (""): texts
    /// - `size` ([720, 440]): width and height
    ///
    /// Example: `plot::heat([[1, 2], [3, ()]], #{ rows: ["a", "b"], columns: ["x", "y"], numbers: true }).save(out("heat.svg"));`
    #[rhai_fn(name = "heat", return_raw)]
    pub fn heat_with(values: Dynamic, options: Map) -> RhaiResult<ScriptPlot> {
        make_heat(&values, options)
    }
    /// Several plots on one sheet, row by row, so many in a row.
    ///
    /// Example: `plot::facets([plot::heat(eye(2)), plot::histogram([1, 2])], 2).save(out("facets.svg"));`
    #[rhai_fn(return_raw)]
    pub fn facets(plots: Array, columns: INT) -> RhaiResult<ScriptPlot> {
        let one = |v: Dynamic| {
            v.try_cast::<ScriptPlot>().ok_or_else(|| wrong("plot::facets takes an array of plots".into()).into())
        };
        let plots = plots.into_iter().map(one).collect::<RhaiResult<Vec<_>>>()?;
        let plots: Vec<&Plot> = plots.iter().map(|p| &*p.0).collect();
        Ok(ScriptPlot(Rc::new(charts::facets(&plots, usize::try_from(columns).unwrap_or(0))?)))
    }
    /// Schedules below each other, a tick at each step, over the noise level.
    #[rhai_fn(name = "schedules", return_raw)]
    pub fn schedules_default(all: Array) -> RhaiResult<ScriptPlot> {
        make_schedules(all, Map::new())
    }
    /// Schedules below each other, a tick at each step from noise (left) to data (right); rings are decoupled evaluation times.
    ///
    /// Options:
    /// - `axis` ("sigma"): or "lambda" or "t"
    /// - `title` (""): a line above
    /// - `width` (720): of the plot
    ///
    /// Example: `let n = noise::edm(); plot::schedules([schedule::edm(n, 5), schedule::logsnr(n, 5)], #{ axis: "lambda" }).save(out("steps.png"));`
    #[rhai_fn(name = "schedules", return_raw)]
    pub fn schedules_with(all: Array, options: Map) -> RhaiResult<ScriptPlot> {
        make_schedules(all, options)
    }
}

/// What images and plots can be asked.
#[export_module]
mod methods {
    /// Columns.
    #[rhai_fn(get = "width", pure)]
    pub fn width(image: &mut Image) -> INT {
        image.width as INT
    }
    /// Rows.
    #[rhai_fn(get = "height", pure)]
    pub fn height(image: &mut Image) -> INT {
        image.height as INT
    }
    /// 1 for grey, 3 for RGB.
    #[rhai_fn(get = "channels", pure)]
    pub fn channels(image: &mut Image) -> INT {
        image.channels as INT
    }
    /// The picture as a tensor [C, H, W] in f32, values in [−1, 1].
    #[rhai_fn(get = "tensor", return_raw, pure)]
    pub fn image_tensor(image: &mut Image) -> RhaiResult<Tensor> {
        Ok(image.to_tensor()?)
    }
    /// Writes a PNG or JPEG file (`.png`, `.jpg`), as a whole or not at all.
    ///
    /// Errors if the file cannot be written.
    ///
    /// Example: `image::from(zeros([1, 8, 8])).save(out("x.png"));`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_image(image: &mut Image, path: &str) -> RhaiResult<()> {
        Ok(image.save(path)?)
    }
    /// Writes a PNG or JPEG file, as a whole or not at all.
    ///
    /// Options:
    /// - `quality` (92): of a JPEG, from 1 to 100
    ///
    /// Example: `image::from(zeros([1, 8, 8])).save(out("x.jpg"), #{ quality: 80 });`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_image_with(image: &mut Image, path: &str, options: Map) -> RhaiResult<()> {
        let mut o = Options::new("save", options);
        let quality = o.count("quality")?.unwrap_or(usize::from(QUALITY));
        o.finish()?;
        Ok(image.save_with(path, u8::try_from(quality).unwrap_or(u8::MAX))?)
    }
    /// One line about the picture.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn image_to_string(image: &mut Image) -> String {
        let kind = if image.channels == 1 { "grey" } else { "RGB" };
        format!("image {}×{} {kind}", image.width, image.height)
    }
    /// Writes the plot as `.png` (two pixels per unit) or `.svg`, as a whole or not at all.
    ///
    /// Example: `plot::schedules([schedule::edm(noise::edm(), 5)]).save(out("steps.svg"));`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_plot(plot: &mut ScriptPlot, path: &str) -> RhaiResult<()> {
        Ok(plot.0.save(path, 2)?)
    }
    /// Writes the plot as `.png` or `.svg`.
    ///
    /// Options:
    /// - `scale` (2): pixels per unit in a PNG
    ///
    /// Example: `plot::schedules([schedule::edm(noise::edm(), 5)]).save(out("steps.png"), #{ scale: 1 });`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_plot_with(plot: &mut ScriptPlot, path: &str, options: Map) -> RhaiResult<()> {
        let mut o = Options::new("save", options);
        let scale = o.count("scale")?.unwrap_or(2);
        o.finish()?;
        Ok(plot.0.save(path, scale)?)
    }
    /// The plot as an image, one pixel per unit.
    ///
    /// Example: `plot::schedules([schedule::edm(noise::edm(), 5)]).to_image().width`
    #[rhai_fn(name = "to_image", return_raw, pure)]
    pub fn plot_to_image(plot: &mut ScriptPlot) -> RhaiResult<Image> {
        Ok(plot.0.to_image(1)?)
    }
    /// One line about the plot.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn plot_to_string(plot: &mut ScriptPlot) -> String {
        let (w, h) = plot.0.size();
        format!("plot {w}×{h}")
    }
}
