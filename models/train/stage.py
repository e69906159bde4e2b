"""The first stage: an autoencoder of garments with a normal distribution (KL) over 4×7×7 latents. About 8 minutes of one core."""
import sys

import torch

from common import MODELS, WORK, fit, garments, start, store
from nets import GROUPS, Stage

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
# the weight of the divergence, beside squared errors summed over pixels: errors of standard deviation 0.07
KL = 0.01

start(1)
images, _ = garments("train")
net = Stage()


def loss(batch):
    x = images[torch.randint(len(images), (batch,))]
    x = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, x.flip(3), x)
    with torch.autocast("cpu", torch.bfloat16):
        mean, logvar = net.moments(x)
        mean, logvar = mean.float(), logvar.float()
        y = net.decode(mean + (0.5 * logvar).exp() * torch.randn_like(mean)).float()
    divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    return ((x - y).square().sum() + KL * divergence.sum()) / batch


net = fit(net, STEPS, 2e-3, 64, loss)
with torch.no_grad():
    many = lambda x: [torch.cat(m) for m in zip(*(net.moments(b) for b in x.split(500)))]
    mean, logvar = many(images)
    spread = (mean.square() + logvar.exp()).mean() - mean.mean().square()
    factor = 1.0 / spread.sqrt()
    test, _ = garments("t10k")
    kept, _ = many(test)
    back = torch.cat([net.decode(z) for z in kept.split(500)])
    print(f"scale factor {factor:.5f}; per channel: mean {mean.mean((0, 2, 3)).tolist()}, spread {mean.std((0, 2, 3)).tolist()}")
    print(f"on the test set: squared error per pixel {(back - test).square().mean():.5f}, absolute {(back - test).abs().mean():.5f}")
torch.save({"net": net.state_dict(), "factor": factor}, WORK / "stage.pt")
torch.save({"mean": mean.half(), "std": (0.5 * logvar).exp().half()}, WORK / "latents.pt")
tensors = {f"first_stage_model.{k}": v for k, v in net.state_dict().items()}
config = {"embed_dim": 4, "ddconfig": {"double_z": True, "z_channels": 4, "resolution": 28, "in_channels": 1, "out_ch": 1, "ch": 8,
    "ch_mult": [1, 3, 6], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}}
store(MODELS / "fashion28-stage.safetensors", tensors | {"scale_factor": factor.float()},
    {"stage.config": config, "vae.config": {"norm_num_groups": GROUPS}})
