//! Rhai module `cloud`: point clouds in files, in frames and in pictures.
use crate::draw::cloud::{CloudOptions, clouds};
use crate::files::cloud;
use crate::files::image::Image;
use crate::metric::clouds::{Frame, frame as frame_of};
use crate::real::host_values;
use crate::schema::{Kind as Of, Schema, Span, count, flag, value, word};
use crate::script::error::RhaiResult;
use crate::tensor::aside;
use crate::{Error, Result};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Dynamic, Engine, Map};

/// Adds this area's functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_static_module("cloud", rhai::exported_module!(cloud_api).into());
}

/// The points of clouds [B, N, 3], or of one cloud [N, 3].
fn points(what: &str, x: &Tensor) -> Result<Vec<Vec<[f64; 3]>>> {
    let n = match *x.dims() {
        [n, 3] | [_, n, 3] if n > 0 && x.elem_count() > 0 => n,
        _ => {
            let m = format!("{what}: expected clouds [B, N, 3] or one cloud [N, 3], got {:?}", x.dims());
            return Err(Error::shape(m, &[x.dims()]).hint("each point is x, y, z"));
        }
    };
    let all = host_values(&x.detach())?;
    let cloud = |c: &[f64]| c.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
    Ok(all.chunks_exact(3 * n).map(cloud).collect())
}

/// Clouds as they are drawn where nothing is said of how.
pub fn drawn(x: &Tensor) -> Result<Image> {
    clouds(&points("show", x)?, &CloudOptions::default())
}

const PICTURE: Schema = Schema::new(
    "cloud::picture",
    &[
        value(
            "views",
            Of::List(&Of::List(&Of::NUMBER, 2), 0),
            "[[-52, 26]]",
            "azimuth and elevation of the eye in degrees; several lie side by side",
        ),
        count("size", 200, [8, 4096], "pixels of a view's side"),
        word("up", &["z", "x", "y"], "or \"x\", \"y\" (as in ShapeNet)"),
        value("color", Of::List(&Of::Number(Span::between(0.0, 255.0)), 3), "[92, 132, 190]", "red, green and blue"),
        value("radius", ABOVE_0, "less for more points", "of a ball, over the cloud's extent"),
        value(
            "extent",
            ABOVE_0,
            "that of each cloud",
            "half of the side of the cube that is seen, for clouds that are to be compared in size",
        ),
        value("columns", Of::Count(1, usize::MAX), "about √B", "clouds in a row"),
    ],
);
const ABOVE_0: Of = Of::Number(Span { low: 0.0, high: f64::MAX, open: [true, false] });
const SAVE: Schema = Schema::new("cloud::save", &[flag("ascii", false, "a PLY as text")]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[PICTURE, SAVE];

fn picture_of(x: Tensor, options: Map) -> RhaiResult<Image> {
    let o = PICTURE.read(options)?;
    let d = CloudOptions::default();
    let views = o.lists("views").map(|all| all.iter().map(|v| (v[0], v[1])).collect());
    let color = o.numbers("color").map(|c| [c[0] as u8, c[1] as u8, c[2] as u8]);
    let options = CloudOptions {
        size: o.count("size"),
        views: views.unwrap_or(d.views),
        radius: o.some_number("radius"),
        color: color.unwrap_or(d.color),
        up: match o.word("up") {
            "x" => 0,
            "y" => 1,
            _ => 2,
        },
        extent: o.some_number("extent"),
        columns: o.some_count("columns"),
    };
    Ok(aside::run(usize::MAX, move || clouds(&points("cloud::picture", &x)?, &options))?)
}

/// Point clouds, tensors [N, 3] or [B, N, 3] of points x, y, z.
#[export_module]
mod cloud_api {
    /// Reads a cloud [N, 3] from a PLY, XYZ or npy file, or several [B, N, 3] from npy; told apart by the name's ending.
    ///
    /// PLY as text or bytes of either order, of whose vertices x, y and z are taken; XYZ (`.xyz`, `.txt`) has a point on each line. f32, or
    /// f64 where a PLY or npy has its numbers so. Errors name the line, point or byte.
    ///
    /// Example: `cloud::save(out("x.ply"), ones([5, 3])); cloud::load(out("x.ply")).shape` is [5, 3]
    #[rhai_fn(return_raw)]
    pub fn load(path: &str) -> RhaiResult<Tensor> {
        let path = path.to_string();
        Ok(aside::run(usize::MAX, move || cloud::load(path))?)
    }
    /// Writes a cloud [N, 3] as PLY (bytes, little-endian), XYZ or npy, several [B, N, 3] as npy; by the name's ending.
    ///
    /// As a whole or not at all. What is read back has the same bits. Errors on points that are not finite.
    ///
    /// Example: `cloud::save(out("x.xyz"), randn([5, 3], #{ seed: 0 }));`
    #[rhai_fn(return_raw)]
    pub fn save(path: &str, x: Tensor) -> RhaiResult<()> {
        save_with(path, x, Map::new())
    }
    /// Writes a cloud, as without options.
    ///
    /// Example: `cloud::save(out("x.ply"), ones([5, 3]), #{ ascii: true });`
    #[rhai_fn(name = "save", return_raw)]
    pub fn save_with(path: &str, x: Tensor, options: Map) -> RhaiResult<()> {
        let ascii = SAVE.read(options)?.flag("ascii");
        Ok(cloud::save(path, &x, ascii)?)
    }
    /// Each cloud in its bounding box: moved to its middle, and scaled so that coordinates are in [−1, 1].
    ///
    /// Example: `cloud::normalize(tensor([[0.0, 0.0, 0.0], [4.0, 2.0, 0.0]]))` is [[-1, -0.5, 0], [1, 0.5, 0]]
    #[rhai_fn(return_raw)]
    pub fn normalize(x: Tensor) -> RhaiResult<Tensor> {
        normalize_as(x, "bbox")
    }
    /// Each cloud less its place, over its size, by one of the frames of diffusion-point-cloud.
    ///
    /// `frame`: "bbox" (the box's middle, half of its largest side), "unit" (the mean, the standard deviation of all its numbers; what
    /// generators are trained on), "half" and "34" (twice that and 4/3 of it), "global" (the mean, the standard deviation of the whole set).
    ///
    /// Errors on a cloud without extent. Nothing here is differentiated.
    ///
    /// Example: `cloud::normalize(randn([4, 100, 3], #{ seed: 0 }), "unit").std().item()` is about 1
    #[rhai_fn(name = "normalize", return_raw)]
    pub fn normalize_as(x: Tensor, frame: &str) -> RhaiResult<Tensor> {
        let frame = frame.to_string();
        Ok(aside::run(aside::load(&[&x]), move || frame_of(&x, &frame)?.normalized(&x))?)
    }
    /// The place and size of each cloud, `#{ shift: [B, 1, 3], scale: [B, 1, 1] }`: normalized · scale + shift is the cloud.
    ///
    /// Example: `cloud::frame(tensor([[0.0, 0.0, 0.0], [4.0, 2.0, 0.0]]), "bbox").scale` is [[2]]
    #[rhai_fn(return_raw)]
    pub fn frame(x: Tensor, frame: &str) -> RhaiResult<Map> {
        let frame = frame.to_string();
        let Frame { shift, scale } = aside::run(aside::load(&[&x]), move || frame_of(&x, &frame))?;
        Ok(Map::from([("shift".into(), Dynamic::from(shift)), ("scale".into(), Dynamic::from(scale))]))
    }
    /// A picture of clouds: shaded balls, paler in the distance, z up.
    #[rhai_fn(return_raw)]
    pub fn picture(x: Tensor) -> RhaiResult<Image> {
        picture_of(x, Map::new())
    }
    /// A picture of clouds [B, N, 3] or of one cloud [N, 3]: shaded balls, paler in the distance, each cloud as large as fills its square.
    ///
    /// Example: `cloud::picture(randn([3, 64, 3], #{ seed: 0 }), #{ size: 40, views: [[0, 0], [90, 0]], columns: 3 }).width` is 240
    #[rhai_fn(name = "picture", return_raw)]
    pub fn picture_with(x: Tensor, options: Map) -> RhaiResult<Image> {
        picture_of(x, options)
    }
}
