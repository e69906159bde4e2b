"""A class-conditional denoiser of the latents that `stage.py` made, in latent diffusion's schedule. About 6 minutes of one core."""
import sys

import torch

from common import MODELS, NAMES, WORK, fit, garments, start, store
from nets import GROUPS, HEADS, Unet

NONE = len(NAMES)


def latents():
    """Samples of the scaled latents by index, and their labels."""
    kept, factor = torch.load(WORK / "latents.pt"), torch.load(WORK / "stage.pt")["factor"]
    mean, std = kept["mean"] * factor, kept["std"] * factor
    return lambda i: mean[i].float() + std[i].float() * torch.randn(len(i), *mean.shape[1:]), garments("train")[1]


def dropped(labels):
    """A tenth of the labels is that of no class, so that guidance has something to lead away from."""
    return torch.where(torch.rand(len(labels)) < 0.1, NONE, labels)


def alphas_cumprod():
    """β linear in its root from 0.0015 to 0.0195."""
    return (1.0 - torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64).square()).cumprod(0)


def save(name, net, more, metadata):
    """As a checkpoint of latent diffusion has it, less the first stage."""
    tensors = {("cond_stage_model." if k == "embedding.weight" else "model.diffusion_model.") + k: v for k, v in net.state_dict().items()}
    config = {"image_size": 7, "in_channels": 4, "out_channels": 4, "model_channels": net.c, "attention_resolutions": [1],
        "num_res_blocks": 1, "channel_mult": [1], "num_heads": HEADS, "use_spatial_transformer": True, "context_dim": 32}
    store(MODELS / f"{name}.safetensors", tensors | more, {"config": config, "unet.config": {"norm_num_groups": GROUPS},
        "classes": NAMES} | metadata)


if __name__ == "__main__":
    start(2)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    (sample, labels), net, alphas = latents(), Unet(), alphas_cumprod().float()

    def loss(batch):
        i, t = torch.randint(len(labels), (batch,)), torch.randint(1000, (batch,))
        z, noise, a = sample(i), torch.randn(batch, 4, 7, 7), alphas[t].view(-1, 1, 1, 1)
        return (net(a.sqrt() * z + (1.0 - a).sqrt() * noise, t.float(), dropped(labels[i])) - noise).square().mean()

    net = fit(net, steps, 2e-3, 64, loss, average=0.998)
    torch.save(net.state_dict(), WORK / "denoise.pt")
    save("fashion28-latent", net, {"alphas_cumprod": alphas}, {})
