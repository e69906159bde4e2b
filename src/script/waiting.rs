//! Rhai's functions that would not hear Ctrl-C: waiting, and sorting with a function of the script's.
use super::error::RhaiResult;
use crate::host::check_cancelled;
use rhai::{Array, Dynamic, Engine, EvalAltResult, FLOAT, FnPtr, FuncRegistration, INT, NativeCallContext};
use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How often a wait looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(10);

/// Replaces Rhai's functions.
pub fn register(engine: &mut Engine) {
    let doc = "/// Waits so many seconds. Ctrl-C ends the wait.\n///\n/// Example: `sleep(0.01)`";
    let named = |name: &str, doc: &str| {
        FuncRegistration::new(name).in_global_namespace().with_purity(false).with_comments([doc.to_string()])
    };
    named("sleep", doc).with_params_info(["seconds: f64", "()"]).register_into_engine(engine, sleep);
    named("sleep", doc)
        .with_params_info(["seconds: i64", "()"])
        .register_into_engine(engine, |seconds: INT| sleep(seconds as FLOAT));
    let doc = "/// Sorts an array by a function of two values, which returns a number below 0 or true where the first comes first.\n///\n\
               /// An error in the function ends it.\n///\n/// Example: `let a = [1, 3, 2]; a.sort(|x, y| y - x); a` is [3, 2, 1]";
    for name in ["sort", "sort_by"] {
        let params = ["array: &mut Array", "comparer: FnPtr", "()"];
        named(name, doc).with_params_info(params).register_into_engine(engine, sort);
    }
    let doc = "/// Removes values that a function of two says are equal to the one before.\n///\n\
               /// An error in the function ends it.\n///\n/// Example: `let a = [1, -1, 2]; a.dedup(|x, y| x.abs() == y.abs()); a` is [1, 2]";
    let params = ["array: &mut Array", "comparer: FnPtr", "()"];
    named("dedup", doc).with_params_info(params).register_into_engine(engine, dedup);
}

fn sleep(seconds: FLOAT) -> RhaiResult<()> {
    let start = Instant::now();
    loop {
        check_cancelled()?;
        let left = seconds - start.elapsed().as_secs_f64();
        if left.is_nan() || left <= 0.0 {
            return Ok(());
        }
        std::thread::sleep(LOOK.min(Duration::try_from_secs_f64(left).unwrap_or(LOOK)));
    }
}

/// A function of the script's as a comparison: after its first error it is not called again.
struct Comparer<'a> {
    ctx: &'a NativeCallContext<'a>,
    function: &'a FnPtr,
    failed: Option<Box<EvalAltResult>>,
}

impl Comparer<'_> {
    fn call(&mut self, x: &Dynamic, y: &Dynamic) -> Dynamic {
        if self.failed.is_some() {
            return Dynamic::UNIT;
        }
        let called = self.function.call_raw(self.ctx, None, [x.clone(), y.clone()]);
        called.unwrap_or_else(|e| {
            self.failed = Some(e);
            Dynamic::UNIT
        })
    }
    fn done(self) -> RhaiResult<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

fn sort(ctx: NativeCallContext, array: &mut Array, function: FnPtr) -> RhaiResult<()> {
    let mut by = Comparer { ctx: &ctx, function: &function, failed: None };
    // a function that contradicts itself leaves some order: the standard library may panic at it, with all values still there
    let _ = catch_unwind(AssertUnwindSafe(|| {
        array.sort_by(|x, y| {
            let v = by.call(x, y);
            match (v.as_int(), v.as_float(), v.as_bool()) {
                (Ok(i), ..) => i.cmp(&0),
                (_, Ok(f), _) => f.partial_cmp(&0.0).unwrap_or(Ordering::Equal),
                (.., Ok(true)) => Ordering::Less,
                (.., Ok(false)) => Ordering::Greater,
                _ => Ordering::Equal,
            }
        });
    }));
    by.done()
}

fn dedup(ctx: NativeCallContext, array: &mut Array, function: FnPtr) -> RhaiResult<()> {
    let mut by = Comparer { ctx: &ctx, function: &function, failed: None };
    array.dedup_by(|x, y| by.call(y, x).as_bool().unwrap_or(false));
    by.done()
}
