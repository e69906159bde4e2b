//! A machine that runs launches on the host, with the kernels compiled by an ordinary C++ compiler.
use candle_core::{DType, Result, bail};
use half::{bf16, f16};
use ld3sh::nets::kernels::gpu::{Arg, Array, ByColumns, Convolution, Gemm, Kept, Machine, Make, Matrix, index};
use libloading::{Library, Symbol};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes before and after each array; they and what was not written yet are NaN in all types.
const GUARD: usize = 4096;
/// Threads of a block: few, so that small shapes have several blocks.
const BLOCK: usize = 32;

/// The kernels of one type, and the turn to run them: their thread indices are global variables.
fn library(t: DType) -> &'static (Library, Mutex<()>) {
    static LIBRARIES: [OnceLock<(Library, Mutex<()>)>; 3] = [const { OnceLock::new() }; 3];
    let (i, element) = match t {
        DType::F32 => (0, "float"),
        DType::F16 => (1, "half_t"),
        _ => (2, "bfloat_t"),
    };
    LIBRARIES[i].get_or_init(|| {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda_kernels_{element}.so"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nets/kernels/gpu/cu/kernels.cu");
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O1", "-Wall", "-Werror", "-Wno-unused-function", "-shared", "-fPIC"]);
        // overflows, shifts and casts that C++ does not define end the test
        compiler.args(["-fsanitize=undefined", "-fno-sanitize-recover=all"]);
        compiler.arg(format!("-DELEMENT={element}")).args(["-x", "c++"]).arg(source).arg("-o").arg(&to);
        let done = compiler.output().expect("this test needs a C++ compiler called c++, such as g++");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (unsafe { Library::new(to) }.unwrap(), Mutex::new(()))
    })
}

struct Memory {
    words: Vec<u64>,
    len: usize,
    dtype: DType,
}

impl Memory {
    fn new(len: usize, dtype: DType) -> Memory {
        let bytes = 2 * GUARD + len * dtype.size_in_bytes();
        Memory { words: vec![u64::MAX; bytes.div_ceil(8)], len, dtype }
    }
    fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), 8 * self.words.len()) }
    }
    fn pointer(&mut self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "an offset of {offset} in an array of {}", self.len);
        let at = GUARD + offset * self.dtype.size_in_bytes();
        unsafe { self.words.as_mut_ptr().cast::<u8>().add(at) }
    }
    fn get(&self, i: usize) -> f32 {
        assert!(i < self.len, "element {i} of an array of {}", self.len);
        let size = self.dtype.size_in_bytes();
        let b = &self.bytes()[GUARD + i * size..][..size];
        match self.dtype {
            DType::F32 => f32::from_ne_bytes(b.try_into().unwrap()),
            DType::F16 => f16::from_ne_bytes(b.try_into().unwrap()).to_f32(),
            _ => bf16::from_ne_bytes(b.try_into().unwrap()).to_f32(),
        }
    }
    fn set(&mut self, i: usize, v: f32) {
        assert!(i < self.len, "element {i} of an array of {}", self.len);
        let to = self.pointer(i);
        match self.dtype {
            DType::F32 => unsafe { to.cast::<f32>().write(v) },
            DType::F16 => unsafe { to.cast::<f16>().write(f16::from_f32(v)) },
            _ => unsafe { to.cast::<bf16>().write(bf16::from_f32(v)) },
        }
    }
    fn is_whole(&self) -> bool {
        let end = GUARD + self.len * self.dtype.size_in_bytes();
        self.bytes()[..GUARD].iter().chain(&self.bytes()[end..]).all(|b| *b == u8::MAX)
    }
}

/// How launches are run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Threads and blocks in the opposite order.
    pub backwards: bool,
    /// Convolutions by a library, here plain loops.
    pub library: bool,
    /// Room for intermediate values that a call takes at a time.
    pub room: usize,
}

pub struct Host {
    way: Way,
    memory: Vec<Memory>,
    /// The kernels that were launched.
    pub launched: Vec<&'static str>,
}

impl Host {
    pub fn new(way: Way) -> Host {
        Host { way, memory: vec![], launched: vec![] }
    }
    /// An array within a larger one.
    pub fn input(&mut self, values: &[f32], dtype: DType) -> Array {
        let before = 3;
        let mut memory = Memory::new(before + values.len(), dtype);
        values.iter().enumerate().for_each(|(i, v)| memory.set(before + i, *v));
        self.memory.push(memory);
        Array { id: self.memory.len() - 1, offset: before, dtype }
    }
    /// The values of a result; checks that nothing was written outside of any array.
    pub fn values(&self, a: Array, n: usize) -> Vec<f32> {
        for (i, memory) in self.memory.iter().enumerate() {
            assert!(
                memory.is_whole(),
                "array {i} of {} was written over its end, by one of {:?}",
                memory.len,
                self.launched
            );
        }
        assert_eq!((self.memory[a.id].dtype, self.memory[a.id].len - a.offset), (a.dtype, n));
        (0..n).map(|i| self.memory[a.id].get(a.offset + i)).collect()
    }
    fn at(&self, m: &Matrix, which: usize, row: usize, col: usize) -> f32 {
        let (row, col) = if m.transposed { (col, row) } else { (row, col) };
        self.memory[m.array.id].get(m.array.offset + which * m.step + row + col * m.ld)
    }
    fn launch(&mut self, kernel: &'static str, t: DType, grid: usize, block: usize, args: &[Arg]) {
        self.launched.push(kernel);
        let (library, turn) = library(t);
        let _turn: MutexGuard<()> = turn.lock().unwrap_or_else(PoisonError::into_inner);
        unsafe {
            let kinds: Symbol<unsafe extern "C" fn() -> *const c_char> =
                library.get(format!("kinds_{kernel}").as_bytes()).unwrap_or_else(|e| panic!("{kernel}: {e}"));
            let kinds = CStr::from_ptr(kinds()).to_str().unwrap();
            let got: String = args.iter().zip(kinds.chars()).map(|(a, kind)| self.kind(a, kind, t)).collect();
            assert_eq!((got.as_str(), args.len()), (kinds, kinds.len()), "the arguments of {kernel}");
            let backwards: Symbol<*mut c_int> = library.get(b"backwards").unwrap();
            **backwards = self.way.backwards.into();
            let launch: Symbol<unsafe extern "C" fn(c_uint, c_uint, *mut *mut c_void)> =
                library.get(format!("launch_{kernel}").as_bytes()).unwrap();
            let mut cells: Vec<(*mut u8, c_int, f32)> = vec![];
            for a in args {
                cells.push(match *a {
                    Arg::Array(a) => (self.memory[a.id].pointer(a.offset), 0, 0.0),
                    Arg::Null => (std::ptr::null_mut(), 0, 0.0),
                    Arg::Int(v) => (std::ptr::null_mut(), v, 0.0),
                    Arg::Float(v) => (std::ptr::null_mut(), 0, v),
                });
            }
            let address = |(cell, a): (&mut (*mut u8, c_int, f32), &Arg)| match a {
                Arg::Array(_) | Arg::Null => (&raw mut cell.0).cast::<c_void>(),
                Arg::Int(_) => (&raw mut cell.1).cast(),
                Arg::Float(_) => (&raw mut cell.2).cast(),
            };
            let mut addresses: Vec<*mut c_void> = cells.iter_mut().zip(args).map(address).collect();
            launch(grid as c_uint, block as c_uint, addresses.as_mut_ptr());
        }
    }
    /// An argument as the kernel's signature spells it: t is a pointer to T, p one to float, i an int, f a float.
    fn kind(&self, a: &Arg, wanted: char, t: DType) -> char {
        match a {
            Arg::Array(a) if a.dtype == t && wanted == 't' => 't',
            Arg::Array(a) if a.dtype == DType::F32 => 'p',
            Arg::Array(_) => 't',
            Arg::Null => wanted,
            Arg::Int(_) => 'i',
            Arg::Float(_) => 'f',
        }
    }
}

impl Machine for Host {
    fn room(&self) -> usize {
        self.way.room
    }
    fn alloc(&mut self, n: usize, dtype: DType) -> Result<Array> {
        self.memory.push(Memory::new(n, dtype));
        Ok(Array { id: self.memory.len() - 1, offset: 0, dtype })
    }
    fn constant(&mut self, kept: &Kept, name: &'static str, dtype: DType, make: Make) -> Result<Array> {
        let values = kept.get(name, dtype, |_: &Vec<f32>| true, make)?;
        Ok(self.input(&values, dtype))
    }
    fn each(&mut self, kernel: &'static str, t: DType, n: usize, args: &[Arg]) -> Result<()> {
        let args = [&[Arg::Int(index(n)?)], args].concat();
        self.launch(kernel, t, n.div_ceil(BLOCK), BLOCK, &args);
        Ok(())
    }
    fn rows(&mut self, kernel: &'static str, t: DType, n: usize, args: &[Arg]) -> Result<()> {
        self.launch(kernel, t, n, 1, args);
        Ok(())
    }
    fn gemm(&mut self, g: &Gemm) -> Result<()> {
        let ByColumns { size: [m, n, k], a, b, out } = g.by_columns();
        let types = (a.array.dtype, b.array.dtype, out.array.dtype);
        if types.0 != types.1 || (types.2 != types.0 && types.2 != DType::F32) {
            bail!("no library computes products of {types:?}");
        }
        // as BLAS demands
        let rows = |x: &Matrix, [i, j]: [usize; 2]| if x.transposed { j } else { i };
        assert!(a.ld >= rows(&a, [m, k]) && b.ld >= rows(&b, [k, n]) && out.ld >= m && !out.transposed);
        for (which, (i, j)) in (0..g.batch).flat_map(|w| (0..m * n).map(move |ij| (w, (ij % m, ij / m)))) {
            let product = |l| self.at(&a, which, i, l) as f64 * self.at(&b, which, l, j) as f64;
            let mut sum: f64 = (0..k).map(product).sum();
            if g.add {
                sum += self.at(&out, which, i, j) as f64;
            }
            let at = out.array.offset + which * out.step + i + j * out.ld;
            self.memory[out.array.id].set(at, sum as f32);
        }
        Ok(())
    }
    fn convolve(&mut self, c: &Convolution) -> Result<bool> {
        if !self.way.library {
            return Ok(false);
        }
        let ([_, h, w, cin], [b, oh, ow, cout], [kh, kw]) = (c.x_dims, c.out_dims, c.kernel);
        // what a library would work out for itself
        let size = |n: usize, axis: usize| (n + 2 * c.padding[axis] - c.kernel[axis]) / c.stride + 1;
        assert_eq!([c.x_dims[0], size(h, 0), size(w, 1)], [b, oh, ow]);
        for i in 0..b * oh * ow * cout {
            let (co, x, y, n) = (i % cout, i / cout % ow, i / cout / ow % oh, i / cout / ow / oh);
            let mut sum = 0f64;
            for (ky, kx) in (0..kh * kw).map(|k| (k / kw, k % kw)) {
                let (iy, ix) =
                    ((y * c.stride + ky).wrapping_sub(c.padding[0]), (x * c.stride + kx).wrapping_sub(c.padding[1]));
                if iy >= h || ix >= w {
                    continue;
                }
                for ci in 0..cin {
                    let v = self.memory[c.x.id].get(c.x.offset + ((n * h + iy) * w + ix) * cin + ci);
                    let weight = self.memory[c.weight.id].get(c.weight.offset + ((co * kh + ky) * kw + kx) * cin + ci);
                    sum += v as f64 * weight as f64;
                }
            }
            self.memory[c.out.id].set(c.out.offset + i, sum as f32);
        }
        self.launched.push("convolve");
        Ok(true)
    }
}
