//! Rhai's functions that make arrays, strings and blobs as long as asked: a length for which there is no memory is an
//! error here, and not the end of the process.
use super::error::RhaiResult;
use crate::tensor::memory;
use crate::{Error, Kind};
use rhai::{Array, Blob, Dynamic, Engine, FuncRegistration, INT, ImmutableString};

/// Replaces Rhai's functions.
pub fn register(engine: &mut Engine) {
    let pad = |doc: &str, params: [&str; 4]| {
        FuncRegistration::new("pad")
            .in_global_namespace()
            .with_purity(false)
            .with_params_info(params)
            .with_comments([doc.to_string()])
    };
    let doc = "/// Makes an array `len` values long, with copies of a value at its end; a longer one stays.\n///\n\
               /// Errors, kind `memory`, where there is not so much.\n///\n\
               /// Example: `let a = [1]; a.pad(3, 0); a` is [1, 0, 0]";
    pad(doc, ["array: &mut Array", "len: i64", "value: Dynamic", "()"]).register_into_engine(
        engine,
        |a: &mut Array, n: INT, value: Dynamic| -> RhaiResult<()> {
            let n = fits("pad", n, size_of::<Dynamic>())?;
            if n > a.len() {
                a.resize(n, value);
            }
            Ok(())
        },
    );
    let doc = "/// Makes a blob `len` bytes long, with a byte at its end; a longer one stays.\n///\n\
               /// Errors, kind `memory`, where there is not so much.\n///\n\
               /// Example: `let b = blob(1); b.pad(3, 7); b.len` is 3";
    pad(doc, ["blob: &mut Blob", "len: i64", "value: i64", "()"]).register_into_engine(
        engine,
        |b: &mut Blob, n: INT, value: INT| -> RhaiResult<()> {
            let n = fits("pad", n, 1)?;
            if n > b.len() {
                b.resize(n, value as u8);
            }
            Ok(())
        },
    );
    let doc = "/// Makes a text `len` characters long, with another one at its end, again and again; a longer one stays.\n///\n\
               /// Errors, kind `memory`, where there is not so much.\n///\n\
               /// Example: `let s = \"a\"; s.pad(4, \"xy\"); s` is \"axyx\"";
    pad(doc, ["string: &mut ImmutableString", "len: i64", "with: char", "()"])
        .register_into_engine(engine, |s: &mut ImmutableString, n: INT, c: char| text(s, n, &c.to_string()));
    pad(doc, ["string: &mut ImmutableString", "len: i64", "with: &str", "()"])
        .register_into_engine(engine, |s: &mut ImmutableString, n: INT, with: &str| text(s, n, with));
    growing(engine);
    let doc = "/// So many bytes, 0 or as given.\n///\n/// Errors, kind `memory`, where there is not so much.\n///\n\
               /// Example: `blob(4, 255).len` is 4";
    let blob = || FuncRegistration::new("blob").in_global_namespace().with_comments([doc]);
    blob()
        .with_params_info(["len: i64", "Blob"])
        .register_into_engine(engine, |n: INT| -> RhaiResult<Blob> { Ok(vec![0; fits("blob", n, 1)?]) });
    blob()
        .with_params_info(["len: i64", "value: i64", "Blob"])
        .register_into_engine(engine, |n: INT, value: INT| -> RhaiResult<Blob> {
            Ok(vec![value as u8; fits("blob", n, 1)?])
        });
}

/// Characters between two looks at Ctrl-C.
const PIECE: usize = 1 << 20;

/// `s` in `n` characters, with `with` behind it.
fn text(s: &mut ImmutableString, n: INT, with: &str) -> RhaiResult<()> {
    let n = fits("pad", n, with.len().max(1))?;
    let mut missing = n.saturating_sub(s.chars().count());
    let mut more = with.chars().cycle();
    while missing > 0 && !with.is_empty() {
        crate::host::check_cancelled()?;
        let now = missing.min(PIECE);
        s.make_mut().extend(more.by_ref().take(now));
        missing -= now;
    }
    Ok(())
}

/// `n` as a length, if so many values of `each` bytes fit into the memory that is left.
fn fits(what: &str, n: INT, each: usize) -> RhaiResult<usize> {
    let n = usize::try_from(n).unwrap_or(0);
    let bytes = n.saturating_mul(each);
    memory::room(what, bytes).map_err(|_| {
        let e = Error::new(Kind::Memory, format!("{what}: {n} values are too many for the memory that is left"));
        e.hint("is a length wrong?")
    })?;
    Ok(n)
}

/// The operators and functions by which texts and arrays grow: what they take counts.
fn growing(engine: &mut Engine) {
    fn joined(a: &str, b: &str) -> RhaiResult<ImmutableString> {
        memory::room("a text", a.len().saturating_add(b.len()))?;
        Ok([a, b].concat().into())
    }
    fn longer(s: &mut ImmutableString, more: &str) -> RhaiResult<()> {
        // it may be copied, to have room or because it is shared
        memory::room("a text", s.len().saturating_add(more.len()))?;
        *s += more;
        Ok(())
    }
    fn more(a: &mut Array, n: usize) -> RhaiResult<()> {
        // a full array moves to twice the room
        let room = if a.capacity() - a.len() < n { a.len().saturating_add(n) } else { 0 };
        Ok(memory::room("an array", room.saturating_mul(size_of::<Dynamic>()))?)
    }
    fn extend(a: &mut Array, b: Array) -> RhaiResult<()> {
        more(a, b.len())?;
        a.extend(b);
        Ok(())
    }
    engine.register_fn("+", |a: &str, b: &str| joined(a, b));
    engine.register_fn("+", |a: &str, c: char| joined(a, c.encode_utf8(&mut [0; 4])));
    engine.register_fn("+", |c: char, b: &str| joined(c.encode_utf8(&mut [0; 4]), b));
    engine.register_fn("+=", |s: &mut ImmutableString, b: ImmutableString| longer(s, &b));
    engine.register_fn("+=", |s: &mut ImmutableString, c: char| longer(s, c.encode_utf8(&mut [0; 4])));
    engine.register_fn("+", |mut a: Array, b: Array| extend(&mut a, b).map(|()| a));
    engine.register_fn("+=", extend);
    fn replace(s: &mut ImmutableString, find: &str, with: &str) -> RhaiResult<()> {
        let places = if find.is_empty() { s.len() + 1 } else { s.matches(find).count() };
        memory::room("a text", s.len().saturating_add(places.saturating_mul(with.len())))?;
        *s = s.replace(find, with).into();
        Ok(())
    }
    let doc = "/// Replaces each place of one text in another.\n///\n/// Errors, kind `memory`, where there is no room.\n///\n\
               /// Example: `let s = \"a-b\"; s.replace(\"-\", \"+\"); s` is \"a+b\"";
    FuncRegistration::new("replace")
        .in_global_namespace()
        .with_purity(false)
        .with_params_info(["string: &mut ImmutableString", "find: &str", "with: &str", "()"])
        .with_comments([doc])
        .register_into_engine(engine, replace);
    let named = |name: &str, doc: &str, params: [&str; 3]| {
        let doc = doc.to_string();
        FuncRegistration::new(name)
            .in_global_namespace()
            .with_purity(false)
            .with_params_info(params)
            .with_comments([doc])
    };
    let doc = "/// Adds a value at the end of an array.\n///\n/// Errors, kind `memory`, where there is no room.\n///\n\
               /// Example: `let a = [1]; a.push(2); a` is [1, 2]";
    named("push", doc, ["array: &mut Array", "value: Dynamic", "()"]).register_into_engine(
        engine,
        |a: &mut Array, v: Dynamic| -> RhaiResult<()> {
            more(a, 1)?;
            a.push(v);
            Ok(())
        },
    );
    let doc = "/// Adds the values of another array at the end of an array.\n///\n/// Errors, kind `memory`, where there is no room.\n///\n\
               /// Example: `let a = [1]; a.append([2, 3]); a` is [1, 2, 3]";
    named("append", doc, ["array: &mut Array", "values: Array", "()"]).register_into_engine(engine, extend);
}
