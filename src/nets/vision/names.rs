//! What the two kinds of vision transformers are called in their files, and what shapes do not tell of them.

/// Names of weights and constants of a kind.
pub(super) struct Names {
    pub kind: &'static str,
    /// What to do where a tensor does not fit.
    pub advice: &'static str,
    /// The token of the whole picture, and the table of places.
    pub class: &'static str,
    pub places: &'static str,
    /// The convolution that makes tokens of patches, and whether it has a bias.
    pub patches: &'static str,
    pub biased: bool,
    /// A norm before all layers.
    pub before: Option<&'static str>,
    /// What stands before a layer's number.
    pub layer: &'static str,
    pub norms: [&'static str; 2],
    /// q, k and v, as one weight or as three.
    pub qkv: &'static [&'static str],
    pub out: &'static str,
    pub maps: [&'static str; 2],
    /// Scales of what both halves of a layer add.
    pub scales: &'static [&'static str],
    /// The final norm.
    pub norm: &'static str,
    /// The map of the result, which is of unit length then.
    pub projection: Option<&'static str>,
    /// Quick GELU in the place of the exact one.
    pub quick: bool,
    /// What norms add to the variance.
    pub eps: f64,
    /// Height and width of the picture, where the table of places is made for another.
    pub size: Option<usize>,
    /// Whether the middle square is looked at, or all of the picture, squeezed.
    pub crop: bool,
    /// Of the colours, in [0, 1].
    pub mean: [f64; 3],
    pub deviation: [f64; 3],
}

/// The distances of Stein et al. 2023 (dgm-eval): pictures squeezed to 224×224.
pub(super) static DINO: Names = Names {
    kind: "DINOv2",
    advice: "the file must hold DINOv2 without registers as it is published, such as `dinov2_vitl14_pretrain.pth`",
    class: "cls_token",
    places: "pos_embed",
    patches: "patch_embed.proj",
    biased: true,
    before: None,
    layer: "blocks",
    norms: ["norm1", "norm2"],
    qkv: &["attn.qkv"],
    out: "attn.proj",
    maps: ["mlp.fc1", "mlp.fc2"],
    scales: &["ls1.gamma", "ls2.gamma"],
    norm: "norm",
    projection: None,
    quick: false,
    eps: 1e-6,
    size: Some(224),
    crop: false,
    mean: [0.485, 0.456, 0.406],
    deviation: [0.229, 0.224, 0.225],
};

/// CMMD's: the middle square of a picture.
pub(super) static CLIP: Names = Names {
    kind: "CLIP",
    advice: "the file must hold OpenAI's CLIP as transformers has it, with `vision_model` and `visual_projection`",
    class: "vision_model.embeddings.class_embedding",
    places: "vision_model.embeddings.position_embedding.weight",
    patches: "vision_model.embeddings.patch_embedding",
    biased: false,
    before: Some("vision_model.pre_layrnorm"),
    layer: "vision_model.encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.out_proj",
    maps: ["mlp.fc1", "mlp.fc2"],
    scales: &[],
    norm: "vision_model.post_layernorm",
    projection: Some("visual_projection"),
    quick: true,
    eps: 1e-5,
    size: None,
    crop: true,
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    deviation: [0.268_629_54, 0.261_302_58, 0.275_777_11],
};
