//! The published files that are known by name.
//!
//! Names, addresses and licences of EDM's networks: README.md of github.com/NVlabs/edm (sections "Pre-trained models",
//! "License") and the listings of its two folders as others' code names them. Of the trunks: torchvision's model code
//! and its licence. Latent diffusion's: README.md and scripts/download_models.sh of github.com/CompVis/latent-diffusion and its ImageNet
//! notebook; improved-diffusion's and guided-diffusion's: README.md of github.com/openai/improved-diffusion and …/guided-diffusion. EDM2's:
//! generate_images.py of github.com/NVlabs/edm2. Text encoders as they are distributed for ComfyUI.
//! FID's InceptionV3 as pytorch-fid names it, DINOv2 as hubconf.py of github.com/facebookresearch/dinov2 does, CLIP as CMMD's code. Sizes and SHA-256 stand here only where they are published or known from several independent sources; for
//! the other files they are recorded at the first download.

/// What a file is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A network that `denoiser::load` takes.
    Denoiser,
    /// A classifier whose features a perceptual loss compares.
    Trunk,
    /// A network whose features Fréchet distances and their like are of.
    Metric,
    /// A text encoder or its tokenizer, which `text::load` takes.
    Text,
}

impl Role {
    /// One word for tables: `"denoiser"`, `"trunk"`, `"metric"` or `"text"`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Denoiser => "denoiser",
            Role::Trunk => "trunk",
            Role::Metric => "metric",
            Role::Text => "text",
        }
    }
}

/// A published file.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The name that scripts use.
    pub name: &'static str,
    /// The file's name in the cache and at a mirror, and at its source where `at` does not say otherwise.
    pub file: &'static str,
    /// Its name at the source, where that tells nothing.
    pub at: Option<&'static str>,
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
        format!("{}{}", self.folder, self.at.unwrap_or(self.file))
    }
}

const EDM: &str = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/";
const BASELINE: &str = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/baseline/";
const TORCH: &str = "https://download.pytorch.org/models/";
const NVIDIA: &str = "CC BY-NC-SA 4.0";

/// A denoiser: name, file, folder, what it is, licence.
const fn edm(
    name: &'static str,
    file: &'static str,
    folder: &'static str,
    about: &'static str,
    licence: &'static str,
) -> Entry {
    Entry { name, file, at: None, folder, role: Role::Denoiser, about, licence, size: None, sha256: None }
}

/// A torchvision classifier: name, file, what it is, bytes, SHA-256.
const fn trunk(name: &'static str, file: &'static str, about: &'static str, size: u64, sha256: &'static str) -> Entry {
    let licence = "BSD-3-Clause (torchvision)";
    Entry {
        name,
        file,
        at: None,
        folder: TORCH,
        role: Role::Trunk,
        about,
        licence,
        size: Some(size),
        sha256: Some(sha256),
    }
}

const LATENT: &str = "https://ommer-lab.com/files/latent-diffusion/";
const IMPROVED: &str = "https://openaipublic.blob.core.windows.net/diffusion/march-2021/";
const SD15: &str = "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main/";
const SD15_HALF: &str = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/";
const OPENRAIL: &str = "CreativeML OpenRAIL-M";
/// Nothing is said of the weights.
const COMPVIS: &str = "code MIT (CompVis/latent-diffusion); nothing is said of the weights";
const OPENAI: &str = "MIT (openai/improved-diffusion)";
const GUIDED: &str = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/";
const OPENAI_GUIDED: &str = "MIT (openai/guided-diffusion)";
const EDM2: &str = "https://nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions/";
const ENCODERS: &str = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/";
const T5: &str = "https://huggingface.co/google/t5-v1_1-xxl/resolve/main/";

/// A network of guided-diffusion, whose file's name at its source tells little.
const fn guided(name: &'static str, file: &'static str, at: &'static str, about: &'static str) -> Entry {
    Entry { at: Some(at), ..edm(name, file, GUIDED, about, OPENAI_GUIDED) }
}

/// A network whose features are measured.
const fn metric(
    name: &'static str,
    file: &'static str,
    folder: &'static str,
    about: &'static str,
    licence: &'static str,
) -> Entry {
    Entry { role: Role::Metric, ..edm(name, file, folder, about, licence) }
}

/// A text encoder or a tokenizer.
const fn text(
    name: &'static str,
    file: &'static str,
    folder: &'static str,
    about: &'static str,
    licence: &'static str,
) -> Entry {
    Entry { role: Role::Text, ..edm(name, file, folder, about, licence) }
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
    edm("ldm-lsun-bedrooms-256", "lsun_bedrooms.zip", LATENT, "latent diffusion, LSUN-Bedroom 256×256, VQ-f4", COMPVIS),
    Entry {
        at: Some("model.ckpt"),
        ..edm(
            "ldm-cin256-v2",
            "ldm-cin256-v2.ckpt",
            "https://ommer-lab.com/files/latent-diffusion/nitro/cin/",
            "latent diffusion, ImageNet 256×256, 1000 classes and none, VQ-f4",
            COMPVIS,
        )
    },
    edm(
        "stable-diffusion-v1-5",
        "v1-5-pruned-emaonly.safetensors",
        SD15,
        "Stable Diffusion 1.5 with its text encoder and autoencoder, f32",
        OPENRAIL,
    ),
    edm(
        "stable-diffusion-v1-5-fp16",
        "v1-5-pruned-emaonly-fp16.safetensors",
        SD15_HALF,
        "Stable Diffusion 1.5 with its text encoder and autoencoder, f16",
        OPENRAIL,
    ),
    edm(
        "iddpm-imagenet64-uncond",
        "imagenet64_uncond_100M_1500K.pt",
        IMPROVED,
        "improved-diffusion, ImageNet 64×64, unconditional, cosine",
        OPENAI,
    ),
    edm(
        "iddpm-lsun-bedroom-256-uncond",
        "lsun_uncond_100M_1200K_bs128.pt",
        IMPROVED,
        "improved-diffusion, LSUN-Bedroom 256×256, unconditional, linear, 1.2 M steps of batch 128",
        OPENAI,
    ),
    edm(
        "iddpm-lsun-bedroom-256-uncond-2400k",
        "lsun_uncond_100M_2400K_bs64.pt",
        IMPROVED,
        "improved-diffusion, LSUN-Bedroom 256×256, unconditional, linear, 2.4 M steps of batch 64",
        OPENAI,
    ),
    guided("adm-imagenet64", "adm-64x64_diffusion.pt", "64x64_diffusion.pt", "ADM, ImageNet 64×64, 1000 classes"),
    guided(
        "adm-imagenet128",
        "adm-128x128_diffusion.pt",
        "128x128_diffusion.pt",
        "ADM, ImageNet 128×128, 1000 classes",
    ),
    guided(
        "adm-imagenet256",
        "adm-256x256_diffusion.pt",
        "256x256_diffusion.pt",
        "ADM, ImageNet 256×256, 1000 classes",
    ),
    guided(
        "adm-imagenet256-uncond",
        "adm-256x256_diffusion_uncond.pt",
        "256x256_diffusion_uncond.pt",
        "ADM, ImageNet 256×256, unconditional",
    ),
    guided(
        "adm-imagenet512",
        "adm-512x512_diffusion.pt",
        "512x512_diffusion.pt",
        "ADM, ImageNet 512×512, 1000 classes",
    ),
    guided(
        "adm-lsun-bedroom-256",
        "adm-lsun_bedroom.pt",
        "lsun_bedroom.pt",
        "ADM, LSUN-Bedroom 256×256, unconditional",
    ),
    network!("edm2-img512-xs-2147483-0.135", EDM2, "EDM2 XS, ImageNet 512×512 (latents), 1000 classes"),
    network!("edm2-img512-s-2147483-0.130", EDM2, "EDM2 S, ImageNet 512×512 (latents), 1000 classes"),
    network!("edm2-img512-s-2147483-0.070", EDM2, "EDM2 S, the same, to be guided by the next one at 2.1"),
    network!("edm2-img512-xs-0134217-0.125", EDM2, "EDM2 XS, the same, less trained: for autoguidance"),
    network!("edm2-img64-s-1073741-0.075", EDM2, "EDM2 S, ImageNet 64×64, 1000 classes"),
    text("clip-l", "clip_l.safetensors", ENCODERS, "CLIP ViT-L/14, text encoder, f16", "MIT (openai/CLIP)"),
    text("t5xxl-fp16", "t5xxl_fp16.safetensors", ENCODERS, "T5-XXL v1.1, text encoder, f16", "Apache-2.0"),
    text("t5xxl-fp8", "t5xxl_fp8_e4m3fn.safetensors", ENCODERS, "T5-XXL v1.1, text encoder, FP8", "Apache-2.0"),
    Entry {
        at: Some("spiece.model"),
        ..text("t5-tokenizer", "t5-spiece.model", T5, "T5's tokenizer, 0.8 MB", "Apache-2.0")
    },
    trunk(
        "vgg16",
        "vgg16-397923af.pth",
        "VGG-16, ImageNet: the trunk of LPIPS (vgg) and of DISTS",
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
        at: None,
        folder: "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
        role: Role::Metric,
        about: "InceptionV3 of 2015-12-05: the features of FID",
        licence: "Apache-2.0 (TensorFlow, pytorch-fid)",
        size: None,
        sha256: None,
    },
    metric(
        "dinov2_vitl14",
        "dinov2_vitl14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/",
        "DINOv2 ViT-L/14: the features of FD-DINOv2",
        "Apache-2.0 (facebookresearch/dinov2)",
    ),
    metric(
        "dinov2_vitb14",
        "dinov2_vitb14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/",
        "DINOv2 ViT-B/14",
        "Apache-2.0 (facebookresearch/dinov2)",
    ),
    Entry {
        at: Some("pytorch_model.bin"),
        ..metric(
            "clip-vit-large-patch14-336",
            "clip-vit-large-patch14-336.bin",
            "https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/main/",
            "CLIP ViT-L/14 at 336 pixels: the features of CMMD",
            "MIT (openai/CLIP)",
        )
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
