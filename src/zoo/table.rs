//! The published files that are known by name.
//!
//! Names, addresses and licences of EDM's networks: README.md of github.com/NVlabs/edm (sections "Pre-trained models",
//! "License") and the listings of its two folders as others' code names them. Of the trunks: torchvision's model code
//! and its licence. FID's InceptionV3 as pytorch-fid names it. Sizes and SHA-256 stand here only where they are published or known from several independent sources; for
//! the other files they are recorded at the first download.

/// What a file is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A network that `denoiser::load` takes.
    Denoiser,
    /// A classifier whose features a perceptual loss compares.
    Trunk,
    /// A classifier whose features Fréchet distances are of.
    Metric,
}

impl Role {
    /// One word for tables: `"denoiser"`, `"trunk"` or `"metric"`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Denoiser => "denoiser",
            Role::Trunk => "trunk",
            Role::Metric => "metric",
        }
    }
}

/// A published file.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The name that scripts use.
    pub name: &'static str,
    /// The file's name, at its source and in the cache.
    pub file: &'static str,
    /// The folder that it is published in, with a slash at the end.
    pub folder: &'static str,
    /// What it is good for.
    pub role: Role,
    /// What it is, in a few words.
    pub about: &'static str,
    /// The licence under which it is published.
    pub licence: &'static str,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// SHA-256 in lower-case hexadecimal, where known.
    pub sha256: Option<&'static str>,
}

impl Entry {
    /// The public address of the file.
    pub fn address(&self) -> String {
        format!("{}{}", self.folder, self.file)
    }
}

const EDM: &str = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/";
const BASELINE: &str = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/baseline/";
const TORCH: &str = "https://download.pytorch.org/models/";
const NVIDIA: &str = "CC BY-NC-SA 4.0";

/// An EDM network: name, file, folder, what it is, licence.
const fn edm(
    name: &'static str,
    file: &'static str,
    folder: &'static str,
    about: &'static str,
    licence: &'static str,
) -> Entry {
    Entry { name, file, folder, role: Role::Denoiser, about, licence, size: None, sha256: None }
}

/// A torchvision classifier: name, file, what it is, bytes, SHA-256.
const fn trunk(name: &'static str, file: &'static str, about: &'static str, size: u64, sha256: &'static str) -> Entry {
    let licence = "BSD-3-Clause (torchvision)";
    Entry { name, file, folder: TORCH, role: Role::Trunk, about, licence, size: Some(size), sha256: Some(sha256) }
}

macro_rules! network {
    ($name:literal, $folder:expr, $about:literal) => {
        network!($name, $folder, $about, NVIDIA)
    };
    ($name:literal, $folder:expr, $about:literal, $licence:expr) => {
        edm($name, concat!($name, ".pkl"), $folder, $about, $licence)
    };
}

/// All published files that are known by name.
pub const ENTRIES: &[Entry] = &[
    network!("edm-cifar10-32x32-uncond-vp", EDM, "EDM, CIFAR-10 32×32, unconditional, DDPM++"),
    network!("edm-cifar10-32x32-uncond-ve", EDM, "EDM, CIFAR-10 32×32, unconditional, NCSN++"),
    network!("edm-cifar10-32x32-cond-vp", EDM, "EDM, CIFAR-10 32×32, 10 classes, DDPM++"),
    network!("edm-cifar10-32x32-cond-ve", EDM, "EDM, CIFAR-10 32×32, 10 classes, NCSN++"),
    network!("edm-ffhq-64x64-uncond-vp", EDM, "EDM, FFHQ 64×64, unconditional, DDPM++"),
    network!("edm-ffhq-64x64-uncond-ve", EDM, "EDM, FFHQ 64×64, unconditional, NCSN++"),
    network!("edm-afhqv2-64x64-uncond-vp", EDM, "EDM, AFHQv2 64×64, unconditional, DDPM++"),
    network!("edm-afhqv2-64x64-uncond-ve", EDM, "EDM, AFHQv2 64×64, unconditional, NCSN++"),
    network!("edm-imagenet-64x64-cond-adm", EDM, "EDM, ImageNet 64×64, 1000 classes, ADM"),
    network!(
        "baseline-cifar10-32x32-uncond-vp",
        BASELINE,
        "VP baseline, CIFAR-10 32×32, unconditional, DDPM++",
        "CC BY-NC-SA 4.0; from score_sde_pytorch, Apache-2.0"
    ),
    network!(
        "baseline-cifar10-32x32-uncond-ve",
        BASELINE,
        "VE baseline, CIFAR-10 32×32, unconditional, NCSN++",
        "CC BY-NC-SA 4.0; from score_sde_pytorch, Apache-2.0"
    ),
    network!("baseline-cifar10-32x32-cond-vp", BASELINE, "VP baseline, CIFAR-10 32×32, 10 classes, DDPM++"),
    network!("baseline-cifar10-32x32-cond-ve", BASELINE, "VE baseline, CIFAR-10 32×32, 10 classes, NCSN++"),
    network!("baseline-ffhq-64x64-uncond-vp", BASELINE, "VP baseline, FFHQ 64×64, unconditional, DDPM++"),
    network!("baseline-ffhq-64x64-uncond-ve", BASELINE, "VE baseline, FFHQ 64×64, unconditional, NCSN++"),
    network!("baseline-afhqv2-64x64-uncond-vp", BASELINE, "VP baseline, AFHQv2 64×64, unconditional, DDPM++"),
    network!("baseline-afhqv2-64x64-uncond-ve", BASELINE, "VE baseline, AFHQv2 64×64, unconditional, NCSN++"),
    network!(
        "baseline-imagenet-64x64-cond-adm",
        BASELINE,
        "iDDPM baseline, ImageNet 64×64, 1000 classes, ADM",
        "CC BY-NC-SA 4.0; from guided-diffusion, MIT"
    ),
    trunk(
        "vgg16",
        "vgg16-397923af.pth",
        "VGG-16, ImageNet: the trunk of LPIPS (vgg)",
        553_433_881,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    trunk(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        "AlexNet, ImageNet: the trunk of LPIPS (alex)",
        244_408_911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    trunk(
        "squeezenet1_1",
        "squeezenet1_1-b8a52dc0.pth",
        "SqueezeNet 1.1, ImageNet: the trunk of LPIPS (squeeze)",
        4_958_839,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
    Entry {
        name: "inception",
        file: "pt_inception-2015-12-05-6726825d.pth",
        folder: "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
        role: Role::Metric,
        about: "InceptionV3 of 2015-12-05: the features of FID",
        licence: "Apache-2.0 (TensorFlow, pytorch-fid)",
        size: None,
        sha256: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_files_are_unique_and_plain() {
        let all: BTreeSet<&str> = ENTRIES.iter().flat_map(|e| [e.name, e.file]).collect();
        assert_eq!(all.len(), 2 * ENTRIES.len());
        assert!(all.iter().all(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))));
        assert!(ENTRIES.iter().all(|e| e.folder.starts_with("https://") && e.folder.ends_with('/')));
    }

    /// torchvision ends a file's name with the first eight digits of its SHA-256.
    #[test]
    fn checksums_agree_with_the_file_names() {
        for e in ENTRIES.iter().filter(|e| e.role == Role::Trunk) {
            let sha = e.sha256.expect("a checksum");
            assert_eq!(sha.len(), 64);
            assert!(e.file.ends_with(&format!("-{}.pth", &sha[..8])), "{}", e.file);
        }
    }
}
