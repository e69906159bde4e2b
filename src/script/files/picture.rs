//! Rhai functions for images and plots: modules `image` and `plot`, types `Image` and `Plot`.
use crate::discretize::Schedule;
use crate::draw::charts::{self, Bars, Heat};
use crate::draw::plot::{LinesOptions, Plot, SchedulesOptions, Series, Space, lines as draw_lines, schedules};
use crate::draw::sheet::{SheetOptions, sheet as make_sheet};
use crate::files::animation::{self, Timing};
use crate::files::image::{GridOptions, Image, QUALITY, from_batch, grid as make_grid};
use crate::real::host_values;
use crate::schema::{Kind as Of, Opt, Schema, count, flag, number, text, value, word};
use crate::script::error::RhaiResult;
use crate::script::options::{Given, read};
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

/// The texts around a plot, and its size.
const AROUND: &[Opt] = &[
    text("title", "", "texts"),
    text("x_label", "", "texts"),
    text("y_label", "", "texts"),
    value("size", Of::List(&Of::Count(150, 8000), 2), "[720, 440]", "width and height"),
];
const LINES: Schema = Schema::new(
    "plot::lines",
    &[
        value(
            "series",
            Of::ARRAY,
            "[]",
            "maps `#{ name, x, y, line, points, low, high }` with x and y arrays or tensors; x counts from 0 when absent; () and NaN are gaps; \
             `line` (true) and `points` (of up to 40 values) say how they are drawn; `low` and `high` are the ends of a band around the line",
        ),
        flag("log_x", false, "logarithmic axes"),
        flag("log_y", false, "logarithmic axes"),
    ],
)
.with(&[AROUND]);
/// What `plot::lines` draws.
const SERIES: &[Opt] = &[
    text("name", "", ""),
    value("x", Of::Any, "", ""),
    value("y", Of::Any, "", ""),
    value("low", Of::Any, "", ""),
    value("high", Of::Any, "", ""),
    flag("line", true, ""),
    flag("points", true, "").or("of up to 40 values"),
];
const BARS: Schema = Schema::new(
    "plot::bars",
    &[
        value("groups", Of::ARRAY, "[]", "names below the groups"),
        value(
            "series",
            Of::ARRAY,
            "[]",
            "maps `#{ name, y, error }`: bars of one colour, a height and an error for each group",
        ),
    ],
)
.with(&[AROUND]);
/// What `plot::bars` draws.
const BAR: &[Opt] = &[text("name", "", ""), value("y", Of::Any, "", ""), value("error", Of::Any, "", "")];
const HISTOGRAM: Schema = Schema::new("plot::histogram", &[count("bins", 30, [1, 1000], "intervals")]).with(&[AROUND]);
const HEAT: Schema = Schema::new(
    "plot::heat",
    &[
        value("rows", Of::ARRAY, "[]", "names"),
        value("columns", Of::ARRAY, "[]", "names"),
        flag("log", false, "colours by the logarithm"),
        flag("numbers", false, "write the numbers into cells that are large enough"),
    ],
)
.with(&[AROUND]);
const SCHEDULES: Schema = Schema::new(
    "plot::schedules",
    &[
        word("axis", &["sigma", "lambda", "t"], ""),
        text("title", "", "a line above"),
        count("width", 720, [150, 8000], "of the plot"),
    ],
);
const ANIMATION: Schema = Schema::new(
    "image::animation",
    &[
        number("fps", 8.0, [0.1, 50.0], "frames a second"),
        count("repeat", 0, [0, u16::MAX as usize], "how often all is shown; 0: for ever"),
        number("rest", 0.0, [0.0, f64::MAX], "seconds that the last frame stands longer"),
    ],
);
const SHEET: Schema = Schema::new(
    "image::sheet",
    &[
        value("columns", Of::ARRAY, "[]", "captions"),
        value("title", Of::Text, "none", "a line above"),
        value("scale", Of::Count(1, usize::MAX), "as makes pictures 72 pixels high", "pixels per pixel"),
        count("pad", 4, [0, usize::MAX], "pixels between"),
        number("font", 15.0, [4.0, 400.0], "pixels"),
    ],
);
const GRID: Schema = Schema::new(
    "image::grid",
    &[
        value("cols", Of::Count(1, usize::MAX), "about √B", "pictures in a row"),
        count("scale", 1, [1, usize::MAX], "pixels per pixel"),
        count("pad", 2, [0, usize::MAX], "pixels between"),
        count("background", 255, [0, 255], "grey level between"),
    ],
);
const SAVE_IMAGE: Schema =
    Schema::method("Image", "save", &[count("quality", QUALITY as usize, [1, 100], "of a JPEG")]);
const SAVE_PLOT: Schema = Schema::method("Plot", "save", &[count("scale", 2, [1, 8], "pixels per unit in a PNG")]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] =
    &[LINES, BARS, HISTOGRAM, HEAT, SCHEDULES, ANIMATION, SHEET, GRID, SAVE_IMAGE, SAVE_PLOT];

fn animate(frames: &Dynamic, path: &str, map: Map) -> RhaiResult<()> {
    let o = ANIMATION.read(map)?;
    // the range is that of a u16
    let repeat = u16::try_from(o.count("repeat")).unwrap_or(u16::MAX);
    let (fps, rest) = (o.number("fps"), o.number("rest"));
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
    let o = read(&what, SERIES.iter(), map)?;
    let given = |key: &str| o.get(key).map(|v| numbers(&format!("{what}: {key}"), &v)).transpose();
    let Some(y) = given("y")? else {
        return Err(Error::value(format!("{what} has no `y`")).into());
    };
    let x = given("x")?.unwrap_or_else(|| (0..y.len()).map(|i| i as f64).collect());
    let band = match (given("low")?, given("high")?) {
        (Some(low), Some(high)) => Some([low, high]),
        (None, None) => None,
        _ => return Err(Error::value(format!("{what}: a band needs both `low` and `high`")).into()),
    };
    let line = o.flag("line");
    let points = o.some_flag("points").unwrap_or(!line || y.len() <= 40);
    Ok(Series { name: o.text("name"), x, y, line, points, band })
}

/// The texts around a plot, and its size.
fn around(o: &Given) -> LinesOptions {
    let d = LinesOptions::default();
    let size = match o.counts("size").as_deref() {
        Some(&[w, h]) => (w, h),
        _ => d.size,
    };
    LinesOptions { title: o.text("title"), x_label: o.text("x_label"), y_label: o.text("y_label"), size, ..d }
}

fn make_bars(map: Map) -> RhaiResult<ScriptPlot> {
    let o = BARS.read(map)?;
    let (options, groups) = (around(&o), o.texts("groups"));
    let all = o.array("series").unwrap_or_default();
    let one = |(i, v): (usize, &Dynamic)| -> RhaiResult<Bars> {
        let what = format!("plot::bars, series {i}");
        let map = v
            .read_lock::<Map>()
            .map(|m| m.clone())
            .ok_or_else(|| wrong(format!("{what} must be a map #{{ name, y }}")))?;
        let o = read(&what, BAR.iter(), map)?;
        let values = o.get("y").ok_or_else(|| Error::value(format!("{what} has no `y`")))?;
        let errors = o.get("error").map(|e| numbers(&format!("{what}: error"), &e)).transpose()?;
        Ok(Bars { name: o.text("name"), values: numbers(&format!("{what}: y"), &values)?, errors })
    };
    let all = all.iter().enumerate().map(one).collect::<RhaiResult<Vec<_>>>()?;
    Ok(ScriptPlot(Rc::new(charts::bars(&groups, &all, &options)?)))
}

fn make_histogram(values: &Dynamic, map: Map) -> RhaiResult<ScriptPlot> {
    let o = HISTOGRAM.read(map)?;
    let values = numbers("plot::histogram", values)?;
    Ok(ScriptPlot(Rc::new(charts::histogram(&values, o.count("bins"), &around(&o))?)))
}

fn make_heat(values: &Dynamic, map: Map) -> RhaiResult<ScriptPlot> {
    let o = HEAT.read(map)?;
    let names = [o.texts("rows"), o.texts("columns")];
    let (log, write) = (o.flag("log"), o.flag("numbers"));
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
    Ok(ScriptPlot(Rc::new(charts::heat(&Heat { values: rows, names, log, numbers: write }, &around(&o))?)))
}

fn make_lines(map: Map) -> RhaiResult<ScriptPlot> {
    let o = LINES.read(map)?;
    let options = LinesOptions { log_x: o.flag("log_x"), log_y: o.flag("log_y"), ..around(&o) };
    let all = o.array("series").unwrap_or_default();
    let all = all.iter().enumerate().map(|(i, v)| series(v, i)).collect::<RhaiResult<Vec<_>>>()?;
    Ok(ScriptPlot(Rc::new(draw_lines(&all, &options)?)))
}

fn make_schedules(all: Array, map: Map) -> RhaiResult<ScriptPlot> {
    let o = SCHEDULES.read(map)?;
    let space = match o.word("axis") {
        "lambda" => Space::Lambda,
        "t" => Space::Time,
        _ => Space::Sigma,
    };
    let (title, width) = (o.text("title"), o.count("width"));
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
    let o = SHEET.read(map)?;
    let options = SheetOptions {
        scale: o.some_count("scale"),
        pad: o.count("pad"),
        title: o.some_text("title"),
        columns: o.texts("columns"),
        font: o.number("font"),
    };
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
    /// Example: `image::grid(randn([6, 1, 8, 8], #{ seed: 0 }), #{ cols: 3, scale: 2 }).save(out("x.png"));`
    #[rhai_fn(name = "grid", return_raw)]
    pub fn grid_with(x: Tensor, options: Map) -> RhaiResult<Image> {
        let o = GRID.read(options)?;
        // the range is that of a u8
        let background = u8::try_from(o.count("background")).unwrap_or(u8::MAX);
        let (cols, scale, pad) = (o.some_count("cols"), o.count("scale"), o.count("pad"));
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
    /// Example: `plot::lines(#{ title: "loss", log_y: true, series: [#{ name: "train", y: [0.3, 0.1, 0.02] }] }).save(out("loss.svg"));`
    #[rhai_fn(return_raw)]
    pub fn lines(options: Map) -> RhaiResult<ScriptPlot> {
        make_lines(options)
    }
    /// Bars in groups, from 0, with their errors.
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
    /// Example: `image::from(zeros([1, 8, 8])).save(out("x.jpg"), #{ quality: 80 });`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_image_with(image: &mut Image, path: &str, options: Map) -> RhaiResult<()> {
        let quality = SAVE_IMAGE.read(options)?.count("quality");
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
    /// Example: `plot::schedules([schedule::edm(noise::edm(), 5)]).save(out("steps.png"), #{ scale: 1 });`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_plot_with(plot: &mut ScriptPlot, path: &str, options: Map) -> RhaiResult<()> {
        Ok(plot.0.save(path, SAVE_PLOT.read(options)?.count("scale"))?)
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
