//! The error of every native part: a kind to match on, a message, and the fix.
use std::cmp::Reverse;
use std::fmt;

/// What went wrong, for scripts that catch (`e.kind`) and for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Shapes that do not fit together.
    Shape,
    /// A value of the wrong type.
    Type,
    /// A value outside its range, NaN, or steps that do not descend.
    Value,
    /// An option or name that does not exist.
    Name,
    /// A file that cannot be read or written.
    Io,
    /// A file that a script may not touch.
    Permission,
    /// A file whose content is not what it should be.
    Format,
    /// A device that is missing or failed.
    Device,
    /// Not enough memory.
    Memory,
    /// Stopped by Ctrl-C.
    Cancelled,
    /// Raised by a script function that native code called.
    Script,
    /// Anything else that a library reported.
    Internal,
}

impl Kind {
    /// The name that scripts see in `e.kind`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Shape => "shape",
            Kind::Type => "type",
            Kind::Value => "value",
            Kind::Name => "name",
            Kind::Io => "io",
            Kind::Permission => "permission",
            Kind::Format => "format",
            Kind::Device => "device",
            Kind::Memory => "memory",
            Kind::Cancelled => "cancelled",
            Kind::Script => "script",
            Kind::Internal => "internal",
        }
    }
}

/// An error with its kind, one clear sentence, and where possible the fix and the shapes involved.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    shapes: Vec<Vec<usize>>,
    compared: Compared,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

/// How two shapes of an error were to agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compared {
    /// Every dimension.
    #[default]
    Equal,
    /// Every dimension, but for those that are 1.
    Broadcast,
    /// The last dimension of one with the last but one of the other.
    Product,
}

/// The result of every fallible native function.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, shapes: vec![], compared: Compared::Equal, source: None }
    }
    /// Adds the fix.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds the shapes that were involved.
    pub fn shapes(mut self, shapes: &[&[usize]]) -> Self {
        self.shapes = shapes.iter().map(|s| s.to_vec()).collect();
        self
    }
    /// Says how the shapes were to agree.
    pub fn compared(mut self, how: Compared) -> Self {
        self.compared = how;
        self
    }
    /// Adds the error that caused this one.
    pub fn source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
    /// Puts `what` in front of the message: `"{what}: {message}"`.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The sentence, without the fix.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// The fix, if one is known.
    pub fn fix(&self) -> Option<&str> {
        self.hint.as_deref()
    }
    /// The shapes involved, if any.
    pub fn shapes_involved(&self) -> &[Vec<usize>] {
        &self.shapes
    }
    /// Two shapes that were to agree, one above the other, aligned from the last dimension as broadcasting does, with a mark
    /// under each dimension that differs; `None` where there are not two, or where nothing would be marked.
    pub fn compared_shapes(&self) -> Option<String> {
        let [a, b] = self.shapes.as_slice() else { return None };
        let n = a.len().max(b.len());
        let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(n).and_then(|i| s.get(i).copied());
        let differ = |i: usize| match (at(a, i), at(b, i)) {
            _ if self.compared == Compared::Product => i + 1 == n || i + 2 == n,
            (Some(x), Some(y)) if self.compared == Compared::Broadcast => x != y && x != 1 && y != 1,
            (Some(x), Some(y)) => x != y,
            _ => false,
        };
        let width = |i: usize| [a, b].iter().filter_map(|s| at(s, i)).map(|d| d.to_string().len()).max().unwrap_or(0);
        // each column is a bracket or a space, the number, and a comma or a bracket
        let row = |s: &[usize]| -> String {
            let column = |i: usize| match at(s, i) {
                None => " ".repeat(width(i) + 2),
                Some(d) => {
                    let open = if i + s.len() == n { '[' } else { ' ' };
                    let close = if i + 1 == n { ']' } else { ',' };
                    format!("{open}{d:>w$}{close}", w = width(i))
                }
            };
            (0..n).map(column).collect()
        };
        let mark = |i: usize| format!(" {} ", if differ(i) { "^" } else { " " }.repeat(width(i)));
        let marks: String = (0..n).map(mark).collect();
        let marks = marks.trim_end();
        (!marks.is_empty()).then(|| format!("{}\n{}\n{marks}", row(a), row(b)))
    }
    /// The error underneath, taken out (the script layer finds its own errors again this way).
    pub fn take_source(&mut self) -> Option<Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.source.take()
    }

    /// The message of [`Error::cancelled`].
    pub const CANCELLED: &'static str = "stopped by Ctrl-C";

    /// Shapes that do not fit.
    pub fn shape(message: impl Into<String>, shapes: &[&[usize]]) -> Self {
        Error::new(Kind::Shape, message).shapes(shapes)
    }
    /// A value out of range.
    pub fn value(message: impl Into<String>) -> Self {
        Error::new(Kind::Value, message)
    }
    /// A name that is not among `known`: suggests the nearest.
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let e = Error::new(Kind::Name, format!("unknown {what} `{name}`"));
        match nearest(name, known.iter().copied()) {
            Some(n) => e.hint(format!("did you mean `{n}`? Known: {}", known.join(", "))),
            None if known.is_empty() => e,
            None => e.hint(format!("known: {}", known.join(", "))),
        }
    }
    /// A file that cannot be read or written.
    pub fn io(path: impl AsRef<std::path::Path>, doing: &str, e: std::io::Error) -> Self {
        Error::new(Kind::Io, format!("cannot {doing} `{}`: {e}", path.as_ref().display())).source(e)
    }
    /// Stopped by Ctrl-C.
    pub fn cancelled() -> Self {
        Error::new(Kind::Cancelled, Error::CANCELLED)
    }
}

/// The name among `known` nearest to `name`, if one is near enough to be a likely slip.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), &k.to_lowercase()), k))
        // of short names hardly a letter may differ: `x` is no slip of `y`
        .filter(|(d, k)| *d <= 1 + k.len().max(name.len()) / 4 && 2 * d <= k.len().max(name.len()))
        // of those equally near the one that begins alike for longest, and the longest: letters are left out more often than added
        .min_by_key(|(d, k)| {
            let alike = name.chars().zip(k.chars()).take_while(|(a, b)| a == b).count();
            (*d, Reverse(alike), Reverse(k.len()), *k)
        })
        .map(|(_, k)| k)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(h) => write!(f, "\n  help: {h}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

/// The kind of an error of candle's, and the shapes that it names.
fn of_candle(e: &candle_core::Error) -> (Kind, Vec<Vec<usize>>) {
    use candle_core::Error as C;
    match e {
        C::WithBacktrace { inner, .. } | C::WithPath { inner, .. } => of_candle(inner),
        C::Context { inner, .. } => of_candle(inner),
        C::ShapeMismatchBinaryOp { lhs, rhs, .. } => (Kind::Shape, vec![lhs.dims().to_vec(), rhs.dims().to_vec()]),
        C::UnexpectedShape { expected, got, .. } => (Kind::Shape, vec![expected.dims().to_vec(), got.dims().to_vec()]),
        C::DimOutOfRange { .. }
        | C::ShapeMismatchCat { .. }
        | C::ShapeMismatchSplit { .. }
        | C::OnlySingleDimension { .. }
        | C::DuplicateDimIndex { .. }
        | C::UnexpectedNumberOfDims { .. }
        | C::ShapeMismatch { .. }
        | C::NarrowInvalidArgs { .. }
        | C::InvalidIndex { .. }
        | C::MatMulUnexpectedStriding(_) => (Kind::Shape, vec![]),
        C::DTypeMismatchBinaryOp { .. } | C::UnexpectedDType { .. } | C::UnsupportedDTypeForOp(..) => {
            (Kind::Type, vec![])
        }
        C::DeviceMismatchBinaryOp { .. } | C::Cuda(_) | C::NotCompiledWithCudaSupport => (Kind::Device, vec![]),
        C::SafeTensor(_) | C::Npy(_) | C::Zip(_) => (Kind::Format, vec![]),
        C::Io(_) => (Kind::Io, vec![]),
        _ => (Kind::Internal, vec![]),
    }
}

/// What an error of the driver's means to a user, where that is not what it says.
#[cfg(feature = "cuda")]
pub(crate) fn of_driver(e: candle_core::cuda_backend::cudarc::driver::sys::CUresult) -> Option<String> {
    use candle_core::cuda_backend::cudarc::driver::sys::CUresult as R;
    Some(match e {
        R::CUDA_ERROR_OUT_OF_MEMORY => "the GPU has no memory left".into(),
        R::CUDA_ERROR_INVALID_DEVICE => "there is no such GPU".into(),
        R::CUDA_ERROR_NO_DEVICE => "there is no GPU that the driver sees".into(),
        R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => "the driver is too old for this build's kernels".into(),
        R::CUDA_ERROR_NO_BINARY_FOR_GPU | R::CUDA_ERROR_INVALID_PTX => {
            "this build has no kernels for this GPU".to_string()
        }
        _ => return None,
    })
}

/// What an error of candle's about a GPU means to a user: its kind, a sentence and a way on.
#[cfg(feature = "cuda")]
fn explained(e: &(dyn std::error::Error + 'static)) -> Option<(Kind, String, Option<&'static str>)> {
    use candle_core::cuda_backend::CudaError;
    use candle_core::cuda_backend::cudarc::driver::{DriverError, sys::CUresult as R};
    let code = match e.downcast_ref::<CudaError>() {
        Some(CudaError::Cuda(e) | CudaError::Load { cuda: e, .. }) => e.0,
        _ => e.downcast_ref::<DriverError>()?.0,
    };
    let said = of_driver(code)?;
    Some(match code {
        R::CUDA_ERROR_OUT_OF_MEMORY => {
            (Kind::Memory, said, Some("take smaller batches, `remat: true`, or `dtype: \"bf16\"`"))
        }
        _ => (Kind::Device, said, None),
    })
}
#[cfg(not(feature = "cuda"))]
fn explained(_: &(dyn std::error::Error + 'static)) -> Option<(Kind, String, Option<&'static str>)> {
    None
}

/// The error that a library reported and candle wrapped.
fn inner(e: &candle_core::Error) -> Option<&(dyn std::error::Error + 'static)> {
    use candle_core::Error as C;
    match e {
        C::WithBacktrace { inner: e, .. } | C::WithPath { inner: e, .. } => inner(e),
        C::Context { inner: e, .. } => inner(e),
        C::Cuda(e) => Some(&**e),
        _ => None,
    }
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        if let Some((kind, said, hint)) = inner(&e).and_then(explained) {
            return hint.into_iter().fold(Error::new(kind, said), Error::hint);
        }
        let (kind, shapes) = of_candle(&e);
        // candle appends a backtrace after the first line when RUST_BACKTRACE is set; users never see one
        let text = e.to_string();
        Error { shapes, ..Error::new(kind, text.lines().next().unwrap_or_default()) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_error_crosses_threads() {
        fn crosses<T: Send + Sync + std::error::Error>() {}
        crosses::<super::Error>();
    }
}
