//! The processes that share a run's work: one alone, shards that meet in files, or ranks of MPI that also talk.
//!
//! Whoever divides work asks [`current`] for its [`Shard`]; whoever needs what the others made calls [`World::gather`]. What is done
//! inside a part of shared work belongs to that part alone, and runs in [`within`] a world of one.
#[cfg(feature = "mpi")]
mod mpi;
pub mod scheduler;

use crate::{Error, Result};
use std::cell::Cell;

/// One part of work that is shared out: `index` of `count`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1 to `count`.
    pub index: u64,
    /// At least 1.
    pub count: u64,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };

    /// Shard `index` of `count`.
    ///
    /// # Errors
    /// An index that is not from 1 to `count`.
    pub fn new(index: i64, count: i64) -> Result<Shard> {
        match (u64::try_from(index), u64::try_from(count)) {
            (Ok(i), Ok(n)) if 1 <= i && i <= n => Ok(Shard { index: i, count: n }),
            _ => Err(Error::value(format!("there is no shard {index}/{count}"))
                .hint("shards count from 1: `1/4`, `2/4`, `3/4`, `4/4`")),
        }
    }
    /// From text like `2/4`.
    ///
    /// # Errors
    /// Any other text; numbers that are no shard.
    pub fn parse(text: &str) -> Result<Shard> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match numbers {
            Some((i, n)) => Shard::new(i, n),
            None => Err(Error::value(format!("`{text}` is not a shard"))
                .hint("like `2/4`: the second of four; `auto`: what the scheduler says")),
        }
    }
    /// The numbers of this shard's samples among `all`.
    pub fn of(self, all: &std::ops::Range<u64>) -> std::ops::Range<u64> {
        let n = u128::from(all.end.saturating_sub(all.start));
        // less than n, which is a u64
        let at = |i: u64| all.start + (n * u128::from(i) / u128::from(self.count)) as u64;
        at(self.index - 1)..at(self.index)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// How the processes of a run know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// There are no others.
    Alone,
    /// By what they leave in files.
    Files,
    /// By messages.
    Mpi,
}

impl Link {
    /// As scripts name it.
    pub fn name(self) -> &'static str {
        match self {
            Link::Alone => "alone",
            Link::Files => "files",
            Link::Mpi => "mpi",
        }
    }
}

/// This process among those that share its run's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    /// Which part of shared work is this process's.
    pub shard: Shard,
    /// How it knows of the others.
    pub link: Link,
}

impl World {
    /// One process for all of the work.
    pub const ALONE: World = World { shard: Shard::WHOLE, link: Link::Alone };

    /// A process that does one shard, and knows the others by their files.
    pub fn of(shard: Shard) -> World {
        World { shard, link: if shard.count == 1 { Link::Alone } else { Link::Files } }
    }
    /// This process's number, from 0.
    pub fn rank(self) -> u64 {
        self.shard.index - 1
    }
    /// How many processes there are.
    pub fn size(self) -> u64 {
        self.shard.count
    }
    /// Whether this process speaks for the run: shows results, keeps the record. Each shard does for itself.
    pub fn reports(self) -> bool {
        self.link != Link::Mpi || self.rank() == 0
    }
    /// What every process gives, in the order of their numbers. All must call it, equally often.
    ///
    /// # Errors
    /// Shards, which meet in files only; messages of more than 2 GiB together.
    pub fn gather(self, part: &[u8]) -> Result<Vec<Vec<u8>>> {
        match self.link {
            Link::Alone => Ok(vec![part.to_vec()]),
            Link::Files => {
                let e = Error::value(format!("gather: shard {} cannot hear the others", self.shard));
                Err(e.hint("shards meet in files: `shares::pieces` and `shares::cells`; ranks of MPI (`mpirun`, built with the feature `mpi`) can"))
            }
            #[cfg(feature = "mpi")]
            Link::Mpi => mpi::gather(part),
            #[cfg(not(feature = "mpi"))]
            Link::Mpi => Err(without_mpi()),
        }
    }
    /// Waits until all ranks of MPI have come here; nobody waits for shards.
    ///
    /// # Errors
    /// Those of [`World::gather`].
    pub fn meet(self) -> Result<()> {
        match self.link {
            Link::Mpi => self.gather(&[]).map(drop),
            _ => Ok(()),
        }
    }
}

#[cfg(not(feature = "mpi"))]
fn without_mpi() -> Error {
    Error::new(crate::Kind::Internal, "this ld3sh was built without the feature `mpi`")
}

thread_local! {
    static WORLD: Cell<World> = const { Cell::new(World::ALONE) };
}

/// The world of this thread's scripts.
pub fn current() -> World {
    WORLD.get()
}

/// Sets the world of this thread's scripts.
pub fn set(world: World) {
    WORLD.set(world);
}

/// Does `f` in another world: what is part of a share already is not shared out again.
pub fn within<T>(world: World, f: impl FnOnce() -> T) -> T {
    struct Back(World);
    impl Drop for Back {
        fn drop(&mut self) {
            WORLD.set(self.0);
        }
    }
    let _back = Back(WORLD.replace(world));
    f()
}

/// What a run belongs to for as long as the process lives.
#[derive(Default)]
pub struct Member {
    #[cfg(feature = "mpi")]
    ranks: Option<mpi::Ranks>,
}

impl Member {
    /// Ends the process's part. After a failure the other ranks, which may wait for this one, are ended too, and this does not return.
    pub fn leave(self, code: u8) {
        #[cfg(feature = "mpi")]
        if let Some(ranks) = self.ranks {
            ranks.leave(code);
        }
        let _ = code;
    }
}

/// Finds out which world this process is in: what `told` says (`--shard`, else `LD3SH_SHARD`: `I/N`, or `auto` for what the scheduler
/// says), or else the ranks of MPI, if it was built in and has started this process. Returns a note where that may be meant otherwise.
///
/// # Errors
/// What is no shard; `auto` without a scheduler that says which; MPI that cannot be started.
pub fn enter(told: Option<&str>) -> Result<(World, Member, Option<String>)> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let (text, from) = match (told, var("LD3SH_SHARD")) {
        (Some(t), _) => (Some(t.to_string()), "--shard"),
        (None, t) => (t, "LD3SH_SHARD"),
    };
    match text.as_deref() {
        Some("auto") => {
            match scheduler::told(&var).map_err(|e| e.context(from))? {
                Some(found) => Ok((World::of(found.shard), Member::default(), None)),
                None => {
                    let e = Error::value(format!("{from}: no scheduler says which part of the work this process has"));
                    Err(e.hint("known are Slurm (`srun`, job arrays), mpirun, Grid Engine and LSF; else give it: `--shard 2/4`"))
                }
            }
        }
        Some(text) => {
            let shard = Shard::parse(text).map_err(|e| e.context(from))?;
            Ok((World::of(shard), Member::default(), None))
        }
        None => by_launcher(&var),
    }
}

/// Without a shard: the ranks of MPI, or one process that does not know of its copies, which a note tells.
fn by_launcher(var: &dyn Fn(&str) -> Option<String>) -> Result<(World, Member, Option<String>)> {
    #[cfg(feature = "mpi")]
    if scheduler::under_mpi(var) {
        let (world, ranks) = mpi::start()?;
        return Ok((world, Member { ranks: Some(ranks) }, None));
    }
    let copies = scheduler::launched(var).ok().flatten().filter(|t| t.shard.count > 1 && t.shard.index == 1);
    let note = copies.map(|t| {
        let n = t.shard.count;
        format!("{} started {n} processes, and each does all of the work: `--shard auto` shares it out", t.by)
    });
    Ok((World::ALONE, Member::default(), note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_out_all_numbers() {
        for (n, count) in [(10, 3), (2, 5), (7, 1), (1 << 40, 7)] {
            let all = 5..5 + n;
            let parts: Vec<_> = (1..=count).map(|i| Shard { index: i, count }.of(&all)).collect();
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (5, 5 + n));
            assert!(parts.windows(2).all(|p| p[0].end == p[1].start), "{parts:?}");
            let sizes: Vec<u64> = parts.iter().map(|p| p.end - p.start).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }
    #[test]
    fn wrong_shards_are_errors() {
        for text in ["", "3", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/2/3", "99999999999999999999/1"] {
            assert!(Shard::parse(text).is_err(), "{text}");
        }
        assert_eq!(Shard::parse("2/4").unwrap(), Shard { index: 2, count: 4 });
    }
    #[test]
    fn worlds_of_one_gather_and_come_back() {
        assert_eq!(World::ALONE.gather(b"x").unwrap(), [b"x"]);
        let half = World::of(Shard { index: 2, count: 2 });
        assert!(half.gather(b"x").is_err() && half.meet().is_ok());
        set(half);
        let caught = std::panic::catch_unwind(|| within(World::ALONE, || panic!("inside")));
        assert!(caught.is_err());
        assert_eq!(within(World::ALONE, current), World::ALONE);
        assert_eq!(current(), half);
        set(World::ALONE);
    }
}
