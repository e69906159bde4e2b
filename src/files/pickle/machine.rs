//! The stack machine of pickles, building nodes instead of objects.
use super::literal::{DIGITS, decimal, quoted, raw_unicode, small};
use super::value::Blob;
use super::{Fault, Id, Outcome, Record, Shared, Tree, Value};
use std::collections::HashMap;

/// The most values in one pickle: far more than the largest published checkpoint has, and at most half a gigabyte of memory.
const NODES: usize = 1 << 22;
/// The most instructions in one pickle.
const STEPS: usize = 1 << 26;
/// The most references that wait on the stack.
const STACK: usize = 1 << 24;

/// Reads the pickle that begins at byte `start` of `data`. Returns it, and the byte after it.
///
/// Fails where the file ends too early, an instruction is unknown or finds something else than it needs, or there are
/// more values than a checkpoint can have.
pub fn parse(data: &Shared, start: usize) -> Outcome<(Tree, usize)> {
    let mut m = Machine {
        data,
        bytes: data,
        at: start,
        pos: start,
        nodes: vec![],
        offsets: vec![],
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
    };
    for _ in 0..STEPS {
        m.at = m.pos;
        if let Some(root) = m.step()? {
            let tree = Tree { data: data.clone(), nodes: m.nodes, offsets: m.offsets, root };
            return Ok((tree, m.pos));
        }
    }
    Err(m.fault(format!("the pickle has more than {STEPS} instructions")))
}

struct Machine<'a> {
    data: &'a Shared,
    bytes: &'a [u8],
    /// The instruction being carried out.
    at: usize,
    /// The next byte to read.
    pos: usize,
    nodes: Vec<Value>,
    offsets: Vec<usize>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl<'a> Machine<'a> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.data.start() + self.at, message)
    }

    // what an instruction reads

    fn take(&mut self, n: usize, what: &str) -> Outcome<&'a [u8]> {
        let left = self.bytes.len().saturating_sub(self.pos);
        match self.bytes.get(self.pos..).and_then(|rest| rest.get(..n)) {
            Some(part) => {
                self.pos += n;
                Ok(part)
            }
            None => Err(self.fault(format!("{what} of {n} bytes, but the file ends after {left}"))),
        }
    }
    /// An unsigned little-endian number of `n` bytes.
    fn number(&mut self, n: usize) -> Outcome<usize> {
        let b = self.take(n, "an instruction's number")?;
        let v = b.iter().rev().fold(0u64, |v, b| v << 8 | *b as u64);
        usize::try_from(v).map_err(|_| self.fault(format!("the length {v} is too large")))
    }
    fn line(&mut self) -> Outcome<&'a [u8]> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        match rest.iter().position(|b| *b == b'\n') {
            Some(n) => {
                self.pos += n + 1;
                Ok(&rest[..n])
            }
            None => Err(self.fault("a line of text that does not end")),
        }
    }
    fn line_text(&mut self, what: &str) -> Outcome<&'a str> {
        let line = self.line()?;
        str::from_utf8(line).map(str::trim).map_err(|_| self.fault(format!("{what} that is not text")))
    }
    /// Bytes behind a length of `n` bytes, left where they are.
    fn blob(&mut self, n: usize, what: &str) -> Outcome<Blob> {
        let len = self.number(n)?;
        let start = self.pos;
        self.take(len, what)?;
        Ok(Blob::Here(start, len))
    }
    fn integer(&mut self, bytes: Vec<u8>) -> Value {
        small(&bytes).map_or(Value::Big(Blob::Own(bytes.into())), Value::Int)
    }

    // the stack

    fn node(&mut self, v: Value) -> Outcome<Id> {
        if self.nodes.len() >= NODES {
            return Err(self.fault(format!("the pickle has more than {NODES} values")));
        }
        self.nodes.push(v);
        self.offsets.push(self.data.start() + self.at);
        Ok(Id(self.nodes.len() as u32 - 1))
    }
    fn push_id(&mut self, id: Id) -> Outcome<()> {
        if self.stack.len() >= STACK {
            return Err(self.fault(format!("the pickle keeps more than {STACK} values waiting")));
        }
        self.stack.push(id);
        Ok(())
    }
    fn push(&mut self, v: Value) -> Outcome<()> {
        let id = self.node(v)?;
        self.push_id(id)
    }
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }
    fn pop(&mut self) -> Outcome<Id> {
        match self.stack.len() > self.floor() {
            true => self.stack.pop().ok_or_else(|| self.fault("nothing on the stack")),
            false => Err(self.fault("an instruction needs a value, but the stack is empty")),
        }
    }
    fn top(&self) -> Outcome<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err(self.fault("an instruction needs a value, but the stack is empty")),
        }
    }
    fn since_mark(&mut self) -> Outcome<Vec<Id>> {
        match self.marks.pop() {
            Some(m) => Ok(self.stack.split_off(m.min(self.stack.len()))),
            None => Err(self.fault("an instruction needs a mark on the stack, but there is none")),
        }
    }
    fn pairs(&mut self) -> Outcome<Vec<(Id, Id)>> {
        let flat = self.since_mark()?;
        match flat.len().is_multiple_of(2) {
            true => Ok(flat.chunks_exact(2).map(|p| (p[0], p[1])).collect()),
            false => Err(self.fault(format!("keys and values do not pair up: there are {} of them", flat.len()))),
        }
    }
    fn tuple(&mut self, n: usize) -> Outcome<()> {
        let mut items = vec![];
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items.into()))
    }

    // what is done to the value on top

    fn append(&mut self, new: Vec<Id>) -> Outcome<()> {
        let target = self.top()?;
        match self.nodes.get_mut(target.0 as usize) {
            Some(Value::List(items) | Value::Set(items)) => items.extend(new),
            Some(Value::Record(r)) => r.items.extend(new),
            _ => return Err(self.fault("something is added to a value that is no list, set or object")),
        }
        Ok(())
    }
    fn set(&mut self, new: Vec<(Id, Id)>) -> Outcome<()> {
        let target = self.top()?;
        match self.nodes.get_mut(target.0 as usize) {
            Some(Value::Dict(pairs)) => pairs.extend(new),
            Some(Value::Record(r)) => r.pairs.extend(new),
            _ => return Err(self.fault("a key is set in a value that is no dictionary or object")),
        }
        Ok(())
    }
    fn build(&mut self) -> Outcome<()> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.nodes.get_mut(target.0 as usize) {
            Some(Value::Record(r)) if r.state.is_none() => r.state = Some(state),
            Some(Value::Record(_)) => return Err(self.fault("an object is given its state twice")),
            _ => return Err(self.fault("a state is given to a value that is no object")),
        }
        Ok(())
    }
    fn record(&mut self, class: Id, args: Id, kwargs: Option<Id>) -> Outcome<()> {
        self.push(Value::Record(Box::new(Record { class, args, kwargs, state: None, items: vec![], pairs: vec![] })))
    }
    fn global(&mut self, module: Blob, name: Blob) -> Outcome<Id> {
        let (module, name) = (self.node(Value::Text(module))?, self.node(Value::Text(name))?);
        self.node(Value::Global(module, name))
    }
    /// Module and name, a line each.
    fn global_lines(&mut self) -> Outcome<Id> {
        let start = self.pos;
        let module = Blob::Here(start, self.line()?.len());
        let start = self.pos;
        let name = Blob::Here(start, self.line()?.len());
        self.global(module, name)
    }

    // the memo

    fn get(&mut self, index: usize) -> Outcome<()> {
        match self.memo.get(&index) {
            Some(id) => self.push_id(*id),
            None => Err(self.fault(format!("memo entry {index} is used before it is set"))),
        }
    }
    fn put(&mut self, index: usize) -> Outcome<()> {
        let id = self.top()?;
        if self.memo.len() >= NODES && !self.memo.contains_key(&index) {
            return Err(self.fault(format!("the memo has more than {NODES} entries")));
        }
        self.memo.insert(index, id);
        Ok(())
    }
    fn index_line(&mut self) -> Outcome<usize> {
        let text = self.line_text("a memo index")?;
        text.parse().map_err(|_| self.fault(format!("`{}` is no memo index", excerpt(text))))
    }

    /// Carries out one instruction. The last one gives the result.
    fn step(&mut self) -> Outcome<Option<Id>> {
        let code = self.take(1, "an instruction")?[0];
        match code {
            // the frame of the program
            b'.' => {
                let root = self.pop()?;
                return match self.stack.is_empty() && self.marks.is_empty() {
                    true => Ok(Some(root)),
                    false => Err(self.fault("the pickle ends with values left on the stack")),
                };
            }
            0x80 => {
                let v = self.number(1)?;
                if v > 5 {
                    return Err(self.fault(format!("pickle protocol {v} is not known, only 0 to 5 are")));
                }
            }
            0x95 => {
                let (n, left) = (self.number(8)?, self.bytes.len().saturating_sub(self.pos));
                if n > left {
                    return Err(self.fault(format!("a frame of {n} bytes, but the file ends after {left}")));
                }
            }
            // the stack
            b'(' => {
                if self.marks.len() >= STACK {
                    return Err(self.fault(format!("the pickle sets more than {STACK} marks")));
                }
                self.marks.push(self.stack.len());
            }
            b'0' if self.stack.len() == self.floor() && !self.marks.is_empty() => {
                self.marks.pop();
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.since_mark()?;
            }
            b'2' => {
                let id = self.top()?;
                self.push_id(id)?;
            }
            // the memo
            b'g' => {
                let i = self.index_line()?;
                self.get(i)?;
            }
            b'h' | b'j' => {
                let i = self.number(if code == b'h' { 1 } else { 4 })?;
                self.get(i)?;
            }
            b'p' => {
                let i = self.index_line()?;
                self.put(i)?;
            }
            b'q' | b'r' => {
                let i = self.number(if code == b'q' { 1 } else { 4 })?;
                self.put(i)?;
            }
            0x94 => self.put(self.memo.len())?,
            // constants and numbers
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool(code == 0x88))?,
            b'K' | b'M' => {
                let v = self.number(if code == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(v as i64))?;
            }
            b'J' => {
                let v = self.number(4)?;
                self.push(Value::Int(v as u32 as i32 as i64))?;
            }
            0x8a | 0x8b => {
                let n = self.number(if code == 0x8a { 1 } else { 4 })?;
                let start = self.pos;
                let bytes = self.take(n, "an integer")?;
                self.push(small(bytes).map_or(Value::Big(Blob::Here(start, n)), Value::Int))?;
            }
            b'G' => {
                let b = self.take(8, "a float")?;
                let bits = b.iter().fold(0u64, |v, b| v << 8 | *b as u64);
                self.push(Value::Float(f64::from_bits(bits)))?;
            }
            b'F' => {
                let text = self.line_text("a float")?;
                let v = text.parse().map_err(|_| self.fault(format!("`{}` is no float", excerpt(text))))?;
                self.push(Value::Float(v))?;
            }
            b'I' | b'L' => {
                let text = self.line_text("an integer")?;
                let v = match (code, text) {
                    (b'I', "00") => Value::Bool(false),
                    (b'I', "01") => Value::Bool(true),
                    _ => match decimal(text.strip_suffix('L').unwrap_or(text)) {
                        Some(bytes) => self.integer(bytes),
                        None => {
                            let m = format!("`{}` is no integer of at most {DIGITS} digits", excerpt(text));
                            return Err(self.fault(m));
                        }
                    },
                };
                self.push(v)?;
            }
            // text and bytes
            b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                let n = match code {
                    b'X' | b'T' => 4,
                    0x8d => 8,
                    _ => 1,
                };
                let blob = self.blob(n, "a text")?;
                self.push(Value::Text(blob))?;
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let n = match code {
                    b'B' => 4,
                    b'C' => 1,
                    _ => 8,
                };
                let blob = self.blob(n, "a value")?;
                self.push(Value::Bytes(blob))?;
            }
            b'S' => {
                let line = self.line()?;
                let text = quoted(line).ok_or_else(|| self.fault("a string that is not well quoted"))?;
                self.push(Value::Text(Blob::Own(text.into())))?;
            }
            b'V' => {
                let line = self.line()?;
                let text = raw_unicode(line).ok_or_else(|| self.fault("a text with a broken escape"))?;
                self.push(Value::Text(Blob::Own(text.into_bytes().into())))?;
            }
            0x97 => return Err(self.fault("the pickle refers to buffers that were sent apart from it")),
            // the buffer on top is only to be made read-only
            0x98 => {
                self.top()?;
            }
            // containers
            b']' => self.push(Value::List(vec![]))?,
            b'}' => self.push(Value::Dict(vec![]))?,
            b')' => self.push(Value::Tuple([].into()))?,
            0x8f => self.push(Value::Set(vec![]))?,
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items.into()))?;
            }
            0x91 => {
                let items = self.since_mark()?;
                self.push(Value::Set(items))?;
            }
            b'd' => {
                let pairs = self.pairs()?;
                self.push(Value::Dict(pairs))?;
            }
            0x85..=0x87 => self.tuple(code as usize - 0x84)?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let pairs = self.pairs()?;
                self.set(pairs)?;
            }
            // classes and objects: written down, not made
            b'c' => {
                let id = self.global_lines()?;
                self.push_id(id)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let is_text = |id: Id| matches!(self.nodes.get(id.0 as usize), Some(Value::Text(_)));
                if !is_text(name) || !is_text(module) {
                    return Err(self.fault("the name of a class that is no text"));
                }
                self.push(Value::Global(module, name))?;
            }
            0x82..=0x84 => {
                let v = self.number(1 << (code - 0x82))?;
                self.push(Value::Extension(v as u32))?;
            }
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.record(class, args, None)?;
            }
            0x92 => {
                let (kwargs, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.record(class, args, Some(kwargs))?;
            }
            b'i' => {
                let class = self.global_lines()?;
                let args = self.since_mark()?;
                let args = self.node(Value::Tuple(args.into()))?;
                self.record(class, args, None)?;
            }
            b'o' => {
                let mut args = self.since_mark()?;
                if args.is_empty() {
                    return Err(self.fault("an object without a class"));
                }
                let class = args.remove(0);
                let args = self.node(Value::Tuple(args.into()))?;
                self.record(class, args, None)?;
            }
            b'b' => self.build()?,
            b'P' => {
                let start = self.pos;
                let name = Blob::Here(start, self.line()?.len());
                let id = self.node(Value::Text(name))?;
                self.push(Value::Persistent(id))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))?;
            }
            other => return Err(self.fault(format!("0x{other:02x} is no instruction of a pickle"))),
        }
        Ok(None)
    }
}

/// The beginning of a text from the file, fit to be shown.
fn excerpt(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect()
}
