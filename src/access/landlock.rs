//! Linux's Landlock behind the checks of `--untrusted`: the kernel refuses what they might let through.
use super::Policy;
use super::resolve::resolve;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    make_bitflags, path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// What programs need of any system: libraries, `stty`, certificates, names of hosts, the state of the process.
const SYSTEM: [&str; 15] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix/store",
    "/etc",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/var/lib/ca-certificates",
    "/var/cache/fontconfig",
];
/// Devices: the terminal, random numbers, GPUs.
const DEVICES: &str = "/dev";
/// The newest rights that are asked for; an older kernel knows fewer.
const RIGHTS: ABI = ABI::V5;

/// Confines this thread, and those that it starts, to what `policy` may need.
///
/// # Errors
/// A note for the user, where the kernel has no Landlock.
pub fn confine(policy: &Policy) -> Result<(), String> {
    let alone = "ld3sh's own checks alone keep the script in";
    match restrict(policy) {
        Ok(RulesetStatus::NotEnforced) => Err(format!("this kernel has no Landlock: {alone}")),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("Landlock cannot be used ({e}): {alone}")),
    }
}

fn restrict(policy: &Policy) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::from_read(RIGHTS);
    let data = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let device = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | IoctlDev});
    let change: BitFlags<AccessFs> = AccessFs::from_all(RIGHTS) & !AccessFs::Execute;
    let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let reads = policy.scripts.iter().chain(&policy.read).chain(&policy.own_read).cloned().chain(certificates);
    let out = policy.out_root().into_iter().inspect(make);
    let own = policy.own_write.iter().cloned().inspect(make);
    let writes = policy.write.iter().map(|p| nearest(p)).chain(out).chain(own);
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?;
    if policy.offline {
        // no rule allows an address
        rules = rules.handle_access(AccessNet::from_all(RIGHTS))?;
    }
    let status = rules
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules([DEVICES], device))?
        .add_rules(path_beneath_rules(reads, data))?
        .add_rules(path_beneath_rules(writes, change))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// A rule needs a folder that is there. One that cannot be made will be missed when it is written to.
fn make(folder: &PathBuf) {
    let _ = std::fs::create_dir_all(folder);
}

/// The folder that is opened for a granted path: a file is written beside its place first, and then renamed.
fn nearest(path: &Path) -> PathBuf {
    let real = resolve(path, true).unwrap_or_else(|_| path.to_path_buf());
    real.ancestors().find(|p| p.is_dir()).unwrap_or(&real).to_path_buf()
}
