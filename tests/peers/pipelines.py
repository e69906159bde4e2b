"""Pipelines of diffusers with tiny random networks, against ld3sh on the files that they save.

    python pipelines.py make WORK     # saves the pipelines below WORK, and what each makes of its texts, step by step
    python pipelines.py compare WORK  # compares with WORK/ours.safetensors, by pipelines.rhai; prints `N passed, N failed`
"""
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parent / "fixtures"
TEXTS = ["a photo of a cat", "the night sky in the rain"]
NEGATIVE = "blurry"
STEPS = 4
HEIGHT, WIDTH = 16, 24


def seeded(model, seed):
    """Random weights of a size that leaves nothing near zero: zero-initialized layers too."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.ndim > 1:
                p.copy_(noise / (p[0].numel() if p.ndim > 1 else 1) ** 0.5)
            elif name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            else:
                p.copy_(0.1 * noise)
    return model.eval()


def clip(seed, projection=None, act="quick_gelu"):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=714, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
        hidden_act=act, projection_dim=projection or 32, bos_token_id=712, eos_token_id=713, pad_token_id=713)
    return seeded((CLIPTextModelWithProjection if projection else CLIPTextModel)(config), seed)


def t5(seed, width=32):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=256, d_model=width, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
    return seeded(T5EncoderModel(config), seed)


def clip_tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(FIXTURES / "latent/sd-tiny/tokenizer")


def t5_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FIXTURES / "t5/tokenizer")


def vae(seed, channels=4, **more):
    from diffusers import AutoencoderKL

    return seeded(AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32), layers_per_block=1, latent_channels=channels, norm_num_groups=8, sample_size=16, **more), seed)


SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1,
          clip_sample=False, set_alpha_to_one=False)


def sd():
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = seeded(UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4, norm_num_groups=8), 1)
    return StableDiffusionPipeline(
        vae=vae(2), text_encoder=clip(3), tokenizer=clip_tokenizer(), unet=unet, scheduler=DDIMScheduler(**SD), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)


def sdxl():
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = seeded(UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), attention_head_dim=(1, 2), use_linear_projection=True, cross_attention_dim=64,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=40 + 6 * 8,
        norm_num_groups=8), 11)
    return StableDiffusionXLPipeline(
        vae=vae(12, scaling_factor=0.13025), text_encoder=clip(13), text_encoder_2=clip(14, 40, "gelu"), tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(), unet=unet, scheduler=DDIMScheduler(**SD), add_watermarker=False)


def sd3():
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = seeded(SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=3, caption_projection_dim=24,
        joint_attention_dim=80, pooled_projection_dim=72, out_channels=4, pos_embed_max_size=16, qk_norm="rms_norm"), 21)
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(22, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(23, 32), tokenizer=clip_tokenizer(), text_encoder_2=clip(24, 40, "gelu"), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(25, 80), tokenizer_3=t5_tokenizer())


def flux():
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = seeded(FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 6, 6)), 31)
    return FluxPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(32, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(33), tokenizer=clip_tokenizer(), text_encoder_2=t5(34), tokenizer_2=t5_tokenizer())


def pixart():
    from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = seeded(PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=24, sample_size=8,
        patch_size=2, caption_channels=32, interpolation_scale=1, use_additional_conditions=False, norm_num_groups=8), 51)
    schedule = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", num_train_timesteps=1000, steps_offset=1,
                             clip_sample=False, set_alpha_to_one=False)
    return PixArtSigmaPipeline(
        transformer=transformer, scheduler=schedule, vae=vae(52, scaling_factor=0.13025), text_encoder=t5(54), tokenizer=t5_tokenizer())


def lightning(pipe, path):
    """The pipeline's weights as CompVis's training wrote them: names, prefixes, and what stands beside."""
    def named(file, prefix, state):
        names = json.loads((FIXTURES / f"latent/{file}.diffusers-names.json").read_text())["names"]
        shapes = {}
        for original, ours in names.items():
            t = state[ours]
            shapes[original] = t[:, :, None, None] if ".attn_1." in original and t.ndim == 2 else t
        return shapes

    state = named("sd_compvis", "model.diffusion_model.", pipe.unet.state_dict()) | named("kl_f2", "first_stage_model.", pipe.vae.state_dict())
    state |= {f"cond_stage_model.transformer.text_model.{k.removeprefix('text_model.')}": v for k, v in pipe.text_encoder.state_dict().items()}
    state["alphas_cumprod"] = pipe.scheduler.alphas_cumprod
    # averaged weights are those that count: these are others for the network itself
    names = [k for k in state if k.startswith("model.diffusion_model.")]
    for k in names:
        state["model_ema." + k.removeprefix("model.").replace(".", "").replace("diffusion_model", "diffusion_model", 1)] = state[k]
        state[k] = state[k] + 0.01
    state["model_ema.decay"], state["model_ema.num_updates"] = torch.tensor(0.9999), torch.tensor(7)
    torch.save({"epoch": 1, "global_step": 10, "pytorch-lightning_version": "1.4.2", "state_dict": state, "callbacks": {},
                "optimizer_states": [{"state": {0: {"step": 10, "exp_avg": torch.zeros(3)}}, "param_groups": []}], "lr_schedulers": []}, path)


def compvis():
    """As `sd`, in the configuration whose original names stand beside the fixtures."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    config = lambda name: json.loads((FIXTURES / f"latent/{name}.diffusers-names.json").read_text())["diffusers_config"]
    # a file without a configuration has heads of 64 channels
    unet = seeded(UNet2DConditionModel(**config("sd_compvis") | dict(cross_attention_dim=64)), 41)
    from transformers import CLIPTextConfig, CLIPTextModel

    text = seeded(CLIPTextModel(CLIPTextConfig(
        vocab_size=714, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=77,
        hidden_act="quick_gelu", bos_token_id=712, eos_token_id=713, pad_token_id=713)), 43)
    return StableDiffusionPipeline(
        vae=seeded(AutoencoderKL(**config("kl_f2")), 42), text_encoder=text, tokenizer=clip_tokenizer(), unet=unet,
        scheduler=DDIMScheduler(**SD), safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def run(name, pipe):
    """What the pipeline makes of its texts: latents before and after each step, the image, times and levels."""
    pipe.set_progress_bar_config(disable=True)
    is_flux, is_flow = name == "flux", name in ("flux", "sd3")
    channels = 4
    factor = pipe.vae_scale_factor * (2 if is_flux else 1)
    latent = [HEIGHT // pipe.vae_scale_factor, WIDTH // pipe.vae_scale_factor]
    z = torch.randn(2, channels, *latent, generator=torch.Generator().manual_seed(99))
    states = []

    def keep(pipe, i, t, kwargs):
        x = kwargs["latents"]
        states.append(x.view(2, latent[0] // 2, latent[1] // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(z.shape) if is_flux else x)
        return {}

    more = {}
    given = z
    if is_flux:
        given = pipe._pack_latents(z, 2, channels, *latent)
        more = dict(guidance_scale=2.5, max_sequence_length=24)
    else:
        more = dict(guidance_scale=4.0, negative_prompt=[NEGATIVE] * 2)
        if name in ("sd3", "pixart"):
            more |= dict(max_sequence_length=24)
    if name == "pixart":
        # this pipeline has the older way to look at its steps
        more |= dict(callback=lambda i, t, x: states.append(x.clone()), callback_steps=1, use_resolution_binning=False, clean_caption=False)
        more["negative_prompt"] = NEGATIVE
    else:
        more |= dict(callback_on_step_end=keep)
    image = pipe(prompt=TEXTS, height=HEIGHT, width=WIDTH, num_inference_steps=STEPS, latents=given, output_type="pt", **more).images
    levels = pipe.scheduler.sigmas if is_flow else pipe.scheduler.timesteps
    out = {"z": z, "image": image, "levels": levels.double()}
    return out | {f"step{i}": x for i, x in enumerate(states)}, factor


def make(work):
    io = {}
    for name, build in [("sd", sd), ("sdxl", sdxl), ("sd3", sd3), ("flux", flux), ("pixart", pixart), ("lightning", compvis)]:
        pipe = build()
        folder = work / name
        shutil.rmtree(folder, ignore_errors=True)
        # several files for each network, as large ones have
        pipe.save_pretrained(folder, max_shard_size="40KB" if name in ("sd3", "flux") else "10GB")
        if name == "lightning":
            lightning(pipe, work / "lightning.ckpt")
        found, _ = run(name, pipe)
        io |= {f"{name}.{k}": v for k, v in found.items()}
    save_file({k: v.detach().float().contiguous() if k.split(".")[1] != "levels" else v.contiguous() for k, v in io.items()}, work / "theirs.safetensors")


def compare(work):
    theirs, ours = load_file(work / "theirs.safetensors"), load_file(work / "ours.safetensors")
    passed = failed = 0
    for name in ["sd", "sdxl", "sd3", "flux", "pixart", "lightning"]:
        worst = {}
        for key in sorted(k for k in theirs if k.startswith(f"{name}.") and not k.endswith((".z", ".levels"))):
            a, b = ours.get(key), theirs[key].double()
            off = float("inf")
            if a is not None and a.shape == b.shape:
                off = ((a.double() - b).abs().max() / b.abs().max()).item()
            # the image is clamped, and the library's networks run in f32 too
            good = off < 1e-4
            passed, failed = passed + good, failed + (not good)
            worst[key.split(".")[1].rstrip("0123456789")] = max(off, worst.get(key.split(".")[1].rstrip("0123456789"), 0))
            if not good:
                print(f"FAILED {key}: {off:.2e}")
        print(f"{name}: " + ", ".join(f"{k} within {v:.1e}" for k, v in worst.items()))
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    what, work = sys.argv[1], pathlib.Path(sys.argv[2])
    sys.exit(make(work) if what == "make" else compare(work) > 0)
