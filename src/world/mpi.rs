//! Ranks of MPI, which talk by messages.
use super::{Link, Shard, World};
use crate::{Error, Kind, Result};
use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};

/// MPI for as long as the process is part of it; made and ended on the main thread.
pub struct Ranks(Universe);

/// Starts MPI: the first thread does, before any other is there; the script's thread alone talks later.
pub fn start() -> Result<(World, Ranks)> {
    // Open MPI would let ranks of one machine read each other's memory, which Landlock forbids processes that it has confined apart
    for (name, value) in [("OMPI_MCA_btl_vader_single_copy_mechanism", "none"), ("OMPI_MCA_smsc", "^cma,knem,xpmem")] {
        if std::env::var_os(name).is_none() {
            // SAFETY: there are no other threads yet
            unsafe { std::env::set_var(name, value) };
        }
    }
    let failed = |what: &str| Error::new(Kind::Internal, format!("MPI {what}"));
    let (universe, threads) =
        mpi::initialize_with_threading(Threading::Serialized).ok_or_else(|| failed("was started before"))?;
    if threads < Threading::Serialized {
        return Err(failed("does not let another thread than the first one talk (MPI_THREAD_SERIALIZED)"));
    }
    let all = universe.world();
    let shard = Shard::new(i64::from(all.rank()) + 1, i64::from(all.size()))?;
    Ok((World { shard, link: Link::Mpi }, Ranks(universe)))
}

impl Ranks {
    /// Ends MPI; after a failure, for all ranks.
    pub fn leave(self, code: u8) {
        if code != 0 {
            self.0.world().abort(code.into());
        }
    }
}

/// What every rank gives, in the order of ranks.
pub fn gather(part: &[u8]) -> Result<Vec<Vec<u8>>> {
    let world = SimpleCommunicator::world();
    // Open MPI refuses buffers without bytes: each has one more at its end
    let part = [part, &[0]].concat();
    let own = part.len() as u64;
    let mut lengths = vec![0u64; world.size() as usize];
    world.all_gather_into(&own, &mut lengths[..]);
    // all ranks see the same lengths, so that all fail together
    let total: u64 = lengths.iter().sum();
    let Ok(total) = i32::try_from(total) else {
        let e = Error::new(
            Kind::Memory,
            format!("gather: {total} bytes come together; one message of MPI has less than 2 GiB"),
        );
        return Err(e.hint("gather smaller pieces"));
    };
    let counts: Vec<i32> = lengths.iter().map(|n| *n as i32).collect();
    let starts: Vec<i32> = counts.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
    let mut all = vec![0u8; total as usize];
    {
        let mut parts = PartitionMut::new(&mut all[..], &counts[..], &starts[..]);
        world.all_gather_varcount_into(&part[..], &mut parts);
    }
    Ok(starts.iter().zip(&counts).map(|(s, n)| all[*s as usize..(*s + *n - 1) as usize].to_vec()).collect())
}
