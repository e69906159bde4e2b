//! The overview: what there is, by topic.

/// A topic: what one wants to do, and the names that do it.
pub type Topic = (&'static str, &'static [&'static str]);

/// The overview's topics.
pub const TOPICS: &[Topic] = &[
    (
        "Denoisers",
        &[
            "denoiser::load",
            "denoiser::gaussian",
            "denoiser::mixture",
            "denoiser::empirical",
            "denoiser::from_fn",
            "Denoiser.guided",
            "text::load",
        ],
    ),
    ("Noise and steps", &["noise", "schedule", "tau", "tau_inverse", "schedule::load", "Schedule.save"]),
    ("Sampling", &["solver", "sample", "solve", "generate", "plan", "image::grid"]),
    ("Learning steps", &["ld3", "learn", "loss", "metric", "optim", "grad", "variable", "clip_norm"]),
    ("Numbers", &["Tensor", "tensor", "zeros", "randn", "noise", "matmul", "where", "einsum", "conv2d"]),
    ("Files", &["load", "save", "json", "csv", "state", "data", "cloud", "image", "plot", "table", "out"]),
    ("Scripts", &["param", "params", "seed", "device", "progress", "provenance", "for", "fn", "import", "try"]),
];
