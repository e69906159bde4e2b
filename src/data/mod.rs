//! Pictures with labels for training and measuring: found when a data set is opened, read as they are asked for.
//!
//! A [`Source`] knows where pictures are (a folder, arrays, idx files, CIFAR's, tar shards); a [`Dataset`] is a choice among them in an
//! order, and how each is prepared: cut, resized, grey or coloured. What a file is, its content says.
mod arrays;
mod cifar;
mod folder;
mod idx;
mod open;
mod prepare;
mod shards;

pub use open::{Labels, Opening, open};
pub use prepare::{FILTERS, Prepare, Resize};

use crate::files::hash::sha256;
use crate::files::image::Image;
use crate::host::check_cancelled;
use crate::tensor::memory;
use crate::tensor::random::{generator, shuffled, stream};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::HashSet;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A picture as its source has it.
pub enum Picture {
    /// 8 bits per channel.
    Bytes(Image),
    /// Numbers [C, H, W], taken as they are.
    Values(Tensor),
}

/// Where pictures are.
pub trait Source: Send + Sync + Debug {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Picture `i`, read now.
    ///
    /// # Errors
    /// A file that is gone or damaged.
    fn read(&self, i: usize) -> Result<Picture>;
    /// What picture `i` is called: its file, or the array and its row.
    fn name(&self, i: usize) -> String;
    /// Its class, counted from 0.
    fn label(&self, i: usize) -> Option<usize>;
    /// What tells picture `i` from another one in its place, without reading it: a size, for example.
    fn trace(&self, _i: usize) -> u64 {
        0
    }
}

/// The order of an epoch, drawn once.
type Drawn = Mutex<Option<(u64, u64, Arc<[usize]>)>>;

/// Some of the pictures of a source, in an order, prepared alike. Copies share what was found.
#[derive(Debug, Clone)]
pub struct Dataset {
    source: Arc<dyn Source>,
    /// What it was opened from.
    path: Arc<str>,
    classes: Arc<[String]>,
    items: Arc<[usize]>,
    how: Prepare,
    drawn: Arc<Drawn>,
}

impl Dataset {
    /// All pictures of `source`. `classes` are the names of its labels; none where it has no names.
    pub fn new(source: Arc<dyn Source>, path: &str, classes: Vec<String>, how: Prepare) -> Dataset {
        let items = (0..source.len()).collect();
        Dataset { source, path: path.into(), classes: classes.into(), items, how, drawn: Arc::default() }
    }
    /// Pictures [N, C, H, W] that a script holds, with a class for each or none.
    ///
    /// # Errors
    /// Another shape; another number of labels.
    pub fn of(x: &Tensor, labels: Option<Vec<i64>>, how: Prepare) -> Result<Dataset> {
        arrays::of(x, labels, "the tensor").map(|source| Dataset::new(Arc::new(source), "a tensor", vec![], how))
    }

    fn choose(&self, items: Arc<[usize]>) -> Dataset {
        Dataset { items, drawn: Arc::default(), ..self.clone() }
    }
    fn at(&self, i: usize) -> Result<usize> {
        self.items.get(i).copied().ok_or_else(|| {
            let e = Error::value(format!("data: there is no picture {i} among {}", self.len()));
            e.hint("pictures count from 0")
        })
    }

    /// What it was opened from.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// How many pictures it has.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// What tells it from other data sets: names, labels, sizes of files, order and preparation; of arrays the values. Files whose content
    /// changes while name and size stay are not told apart.
    pub fn key(&self) -> String {
        let mut text = format!("{:?} {:?}", self.how, self.classes);
        for i in self.items.iter() {
            text += &format!("\n{} {:?} {}", self.source.name(*i), self.source.label(*i), self.source.trace(*i));
        }
        sha256(text.as_bytes())
    }
    /// The names of its classes, by label; none where they have no names.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }
    /// What picture `i` is called.
    ///
    /// # Errors
    /// There is no such picture.
    pub fn name(&self, i: usize) -> Result<String> {
        Ok(self.source.name(self.at(i)?))
    }
    /// The class of picture `i`.
    ///
    /// # Errors
    /// There is no such picture.
    pub fn label(&self, i: usize) -> Result<Option<usize>> {
        Ok(self.source.label(self.at(i)?))
    }
    /// Picture `i` [C, H, W] in f32, prepared: from [−1, 1] where it was made of bytes.
    ///
    /// # Errors
    /// There is none, or it cannot be read; the message names it.
    pub fn get(&self, i: usize) -> Result<Tensor> {
        let at = self.at(i)?;
        let picture = self.source.read(at)?;
        self.how.apply(picture).map_err(|e| e.context(self.source.name(at)))
    }
    /// Pictures [B, C, H, W] by their places in this set.
    ///
    /// # Errors
    /// As [`Dataset::get`]; pictures of different shapes.
    pub fn batch(&self, places: &[usize]) -> Result<Tensor> {
        check_cancelled()?;
        let Some(first) = places.first() else {
            return Err(Error::value("data: a batch has at least one picture"));
        };
        let one = self.get(*first)?;
        memory::room("a batch of pictures", one.elem_count().saturating_mul(8).saturating_mul(places.len()))?;
        let rest: Vec<Result<Tensor>> = places[1..].par_iter().map(|i| self.get(*i)).collect();
        let mut all = vec![one];
        for (picture, place) in rest.into_iter().zip(&places[1..]) {
            let picture = picture?;
            if picture.dims() != all[0].dims() {
                let [a, b] = [self.name(*first)?, self.name(*place)?];
                let m = format!("data: `{b}` has {:?} where `{a}` has {:?}", picture.dims(), all[0].dims());
                let fix = match picture.dim(0)? == all[0].dim(0)? {
                    true => "bring them to one size: `size: 32`",
                    false => "bring them to grey or to colours: `channels: 1` or `channels: 3`",
                };
                return Err(Error::shape(m, &[all[0].dims(), picture.dims()]).hint(fix));
            }
            all.push(picture);
        }
        Ok(Tensor::stack(&all, 0)?)
    }
    /// The classes of pictures by their places; `None` where the set has no labels.
    ///
    /// # Errors
    /// There is no such picture; some have a label and others not.
    pub fn labels(&self, places: &[usize]) -> Result<Option<Vec<i64>>> {
        let all = places.iter().map(|i| self.label(*i)).collect::<Result<Vec<_>>>()?;
        if all.iter().all(Option::is_none) {
            return Ok(None);
        }
        let one = |(label, place): (Option<usize>, &usize)| match label {
            Some(l) => Ok(l as i64),
            None => Err(Error::value(format!("data: `{}` has no label where others have one", self.name(*place)?))),
        };
        all.into_iter().zip(places).map(one).collect::<Result<Vec<_>>>().map(Some)
    }
    /// The pictures whose places are in `range`.
    ///
    /// # Errors
    /// A range that leaves the set.
    pub fn part(&self, range: Range<usize>) -> Result<Dataset> {
        match self.items.get(range.clone()) {
            Some(items) => Ok(self.choose(items.into())),
            None => {
                let m = format!("data: there are no pictures {}..{} among {}", range.start, range.end, self.len());
                Err(Error::value(m))
            }
        }
    }
    /// The pictures of one class.
    ///
    /// # Errors
    /// No picture has it.
    pub fn only(&self, label: usize) -> Result<Dataset> {
        let items: Arc<[usize]> = self.items.iter().copied().filter(|i| self.source.label(*i) == Some(label)).collect();
        match items.is_empty() {
            true => Err(Error::value(format!("data: no picture has label {label}"))),
            false => Ok(self.choose(items)),
        }
    }
    /// The same pictures in an order drawn by `seed`.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn shuffled(&self, seed: u64) -> Result<Dataset> {
        Ok(self.choose(self.order(seed, 0)?.iter().map(|i| self.items[*i]).collect()))
    }
    /// The places of minibatch `step` among minibatches of `size`, which go through the set again and again, each time in another
    /// order drawn by `seed`. A rest that fills no batch is left out of its round.
    ///
    /// # Errors
    /// More pictures asked for than there are.
    pub fn minibatch(&self, step: u64, size: usize, seed: u64) -> Result<Vec<usize>> {
        let per = self.len().checked_div(size).unwrap_or(0) as u64;
        if per == 0 {
            return Err(Error::value(format!("data: a minibatch of {size} from {} pictures", self.len()))
                .hint("a minibatch has at least one picture, and no more than the set"));
        }
        let order = self.order(seed, step / per)?;
        let from = (step % per) as usize * size;
        Ok(order[from..from + size].to_vec())
    }
    /// The order of round `epoch`, another one for each seed and round.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn order(&self, seed: u64, epoch: u64) -> Result<Arc<[usize]>> {
        let mut drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((s, e, order)) = &*drawn
            && (*s, *e) == (seed, epoch)
        {
            return Ok(order.clone());
        }
        let order: Arc<[usize]> = shuffled(&mut generator(seed, stream::PERMUTATION, epoch), self.len())?.into();
        *drawn = Some((seed, epoch, order.clone()));
        Ok(order)
    }
    /// Reads every picture and tells which cannot be used, by place and why. Looks at Ctrl-C; `seen` hears of each part.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn broken(&self, seen: &mut dyn FnMut(usize)) -> Result<Vec<(usize, Error)>> {
        let mut found = vec![];
        let places: Vec<usize> = (0..self.len()).collect();
        for part in places.chunks(64) {
            check_cancelled()?;
            let faults: Vec<Option<Error>> = part.par_iter().map(|i| self.get(*i).err()).collect();
            found.extend(part.iter().zip(faults).filter_map(|(i, fault)| Some((*i, fault?))));
            seen(part.len());
        }
        check_cancelled()?;
        Ok(found)
    }
    /// The set without some places.
    pub fn without(&self, places: &[usize]) -> Dataset {
        let places: HashSet<usize> = places.iter().copied().collect();
        let kept = self.items.iter().enumerate().filter(|(i, _)| !places.contains(i));
        self.choose(kept.map(|(_, item)| *item).collect())
    }
}

impl std::fmt::Display for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} pictures from {}", self.len(), self.path)?;
        match self.classes.len() {
            0 => Ok(()),
            n => write!(f, ", {n} classes"),
        }
    }
}
