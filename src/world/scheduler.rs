//! Which of its processes a scheduler or launcher says this one is, by the variables that each documents.
use super::Shard;
use crate::{Error, Result};

/// What the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// This process among all.
    pub shard: Shard,
    /// Who says so.
    pub by: &'static str,
}

/// How variables are read, so that tests need no environment.
type Var<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Who says it, the variable of the number from 0, that of the count, and one without which the two mean something else.
const LAUNCHERS: [(&str, &str, &str, Option<&str>); 4] = [
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
    ("mpirun", "PMI_RANK", "PMI_SIZE", None),
    ("mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", None),
    // in a batch script outside of srun SLURM_PROCID is 0, and SLURM_NTASKS what srun would start
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", Some("SLURM_STEP_ID")),
];

/// Job arrays: who, the variables of the number, of the first, the last and the step.
const ARRAYS: [(&str, &str, Option<&str>, &str, &str); 3] = [
    (
        "the Slurm array",
        "SLURM_ARRAY_TASK_ID",
        Some("SLURM_ARRAY_TASK_MIN"),
        "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_STEP",
    ),
    ("the Grid Engine array", "SGE_TASK_ID", Some("SGE_TASK_FIRST"), "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
    ("the LSF array", "LSB_JOBINDEX", None, "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"),
];

/// Variables that say a number but not of how many.
const WITHOUT_COUNT: [&str; 2] = ["PBS_ARRAY_INDEX", "PMIX_RANK"];

fn number(var: Var, name: &str) -> Result<Option<u64>> {
    match var(name) {
        // Grid Engine says so outside of arrays
        Some(v) if v == "undefined" => Ok(None),
        Some(v) => v.trim().parse().map(Some).map_err(|_| {
            Error::value(format!("{name} is `{v}`, not a number")).hint("give the part of the work: `--shard 2/4`")
        }),
        None => Ok(None),
    }
}

fn shard(rank: u64, count: u64, names: &str) -> Result<Shard> {
    if rank < count {
        return Ok(Shard { index: rank + 1, count });
    }
    let e = Error::value(format!("{names} say process {rank}, counted from 0, of {count}"));
    Err(e.hint("give the part of the work: `--shard 2/4`"))
}

/// What the launcher of this process says: mpirun of Open MPI, MPICH and MVAPICH, or srun.
///
/// # Errors
/// Variables that are no numbers, or do not fit together.
pub fn launched(var: Var) -> Result<Option<Told>> {
    for (by, rank, size, needs) in LAUNCHERS {
        if needs.is_some_and(|n| var(n).is_none()) {
            continue;
        }
        if let (Some(r), Some(n)) = (number(var, rank)?, number(var, size)?) {
            return Ok(Some(Told { shard: shard(r, n, &format!("{rank} and {size}"))?, by }));
        }
    }
    Ok(None)
}

/// Which task of a job array this is.
fn arrayed(var: Var) -> Result<Option<Told>> {
    for (by, id, first, last, step) in ARRAYS {
        let Some(at) = number(var, id)? else { continue };
        let from = first.map_or(Ok(Some(1)), |f| number(var, f))?;
        let (Some(from), Some(to)) = (from, number(var, last)?) else { continue };
        let step = number(var, step)?.unwrap_or(1).max(1);
        // LSF: 0 outside of arrays
        if at == 0 && first.is_none() {
            continue;
        }
        let count = to.saturating_sub(from) / step + 1;
        let listed = number(var, "SLURM_ARRAY_TASK_COUNT")?.filter(|_| id.starts_with("SLURM"));
        if listed.is_some_and(|n| n != count) || at < from || !(at - from).is_multiple_of(step) {
            let e = Error::value(format!("{by} is a list with gaps: which part task {at} has cannot be told"));
            return Err(e.hint("number the tasks evenly (`--array=1-8`), or give the part: `--shard 2/8`"));
        }
        return Ok(Some(Told { shard: shard((at - from) / step, count, &format!("{id} and {last}"))?, by }));
    }
    Ok(None)
}

/// What the environment says of this process: its task in a job array, its rank under a launcher, or both together.
///
/// # Errors
/// Variables that are no numbers or do not fit together; a number without a count.
pub fn told(var: Var) -> Result<Option<Told>> {
    match (arrayed(var)?, launched(var)?) {
        (Some(a), Some(l)) => {
            let (inner, outer) = (l.shard, a.shard);
            let count = inner.count * outer.count;
            let index = (outer.index - 1) * inner.count + inner.index;
            Ok(Some(Told { shard: Shard { index, count }, by: a.by }))
        }
        (Some(one), None) | (None, Some(one)) => Ok(Some(one)),
        (None, None) => match WITHOUT_COUNT.into_iter().find(|name| var(name).is_some()) {
            Some(name) => {
                let e = Error::value(format!("{name} says which process this is, and nothing says of how many"));
                Err(e.hint(format!("give both: `--shard ${name}/N`, counted from 1")))
            }
            None => Ok(None),
        },
    }
}

/// Whether a launcher of MPI has started this process.
pub fn under_mpi(var: Var) -> bool {
    ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK"].into_iter().any(|name| var(name).is_some())
}

/// Which of this machine's GPUs is this process's: by its number among those of the machine, in turn among the GPUs that it may see.
/// None where nothing says so.
pub fn gpu(var: Var) -> Option<u64> {
    let names = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"];
    let local = names.into_iter().find_map(|name| number(var, name).ok().flatten())?;
    let seen = var("CUDA_VISIBLE_DEVICES").map_or(0, |v| v.split(',').filter(|d| !d.trim().is_empty()).count() as u64);
    Some(if seen > 0 { local % seen } else { local })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &str) -> impl Fn(&str) -> Option<String> + '_ {
        |name| all.split(' ').filter_map(|s| s.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
    }
    fn answer(all: &str) -> Option<String> {
        told(&of(all)).unwrap().map(|t| t.shard.to_string())
    }

    #[test]
    fn documented_environments() {
        for (all, wanted) in [
            ("", None),
            // sbatch alone, outside of srun
            ("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=7", None),
            ("SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_ID=0", Some("3/4")),
            (
                "SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_STEP=1 SLURM_ARRAY_TASK_COUNT=8",
                Some("4/8"),
            ),
            (
                "SLURM_ARRAY_TASK_ID=9 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=9 SLURM_ARRAY_TASK_STEP=4 SLURM_ARRAY_TASK_COUNT=3",
                Some("3/3"),
            ),
            // an array of two jobs with srun -n 2 in each
            (
                "SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=2 SLURM_ARRAY_TASK_COUNT=2 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2",
                Some("4/4"),
            ),
            ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 PMIX_RANK=0", Some("1/2")),
            ("PMI_RANK=7 PMI_SIZE=8", Some("8/8")),
            ("SGE_TASK_ID=undefined SGE_TASK_FIRST=undefined SGE_TASK_LAST=undefined", None),
            ("SGE_TASK_ID=5 SGE_TASK_FIRST=1 SGE_TASK_LAST=10 SGE_TASK_STEPSIZE=2", Some("3/5")),
            ("LSB_JOBINDEX=0", None),
            ("LSB_JOBINDEX=2 LSB_JOBINDEX_END=6 LSB_JOBINDEX_STEP=1", Some("2/6")),
        ] {
            assert_eq!(answer(all).as_deref(), wanted, "{all}");
        }
    }
    #[test]
    fn what_does_not_fit_is_an_error_with_the_way_out() {
        for (all, says) in [
            ("PMI_RANK=x PMI_SIZE=2", "PMI_RANK is `x`"),
            ("PMI_RANK=2 PMI_SIZE=2", "PMI_RANK and PMI_SIZE"),
            ("PBS_ARRAY_INDEX=3", "PBS_ARRAY_INDEX"),
            ("SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_COUNT=3", "gaps"),
        ] {
            let e = told(&of(all)).unwrap_err();
            assert!(e.message().contains(says) && e.fix().is_some_and(|h| h.contains("--shard")), "{all}: {e}");
        }
    }
    #[test]
    fn each_process_of_a_machine_gets_a_gpu_in_turn() {
        for (all, wanted) in [
            ("", None),
            ("OMPI_COMM_WORLD_LOCAL_RANK=3", Some(3)),
            ("SLURM_LOCALID=3 CUDA_VISIBLE_DEVICES=0,1", Some(1)),
            // Slurm shows each task its own
            ("SLURM_LOCALID=3 CUDA_VISIBLE_DEVICES=3", Some(0)),
        ] {
            assert_eq!(gpu(&of(all)), wanted, "{all}");
        }
    }
}
