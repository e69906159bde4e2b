"""What the networks reach: reconstruction, and 2,200 samples by the classifier `fashion28-features`. `evaluate.py [stage] [latent] [flow] [reflow]`

The Fréchet distance is that of the classifier's pooled features to those of the training set.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from common import MODELS, NAMES, garments, start
from denoise import NONE, alphas_cumprod
from nets import Stage, Unet

start(9)
torch.set_grad_enabled(False)
trunk = load_file(MODELS / "fashion28-features.safetensors")
COUNT = 2200


def features(x):
    done = []
    for h in x.clamp(-1, 1).split(500):
        for i in range(6):
            h = F.relu(F.conv2d(h, trunk[f"conv.{i}.weight"].float(), trunk[f"conv.{i}.bias"].float(), padding=1))
            h = F.avg_pool2d(h, 2) if i in (1, 3) else h
        done.append(h.mean((2, 3)))
    return torch.cat(done)


def frechet(f):
    mean, cov = f.double().mean(0).numpy(), np.cov(f.double().numpy().T)
    m, c = (trunk[f"stats.train.{k}"].double().numpy() for k in ("mean", "cov"))
    values, vectors = np.linalg.eigh(c)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov @ root).clip(0)).sum()
    return ((mean - m) ** 2).sum() + np.trace(cov) + np.trace(c) - 2 * cross


def load(net, name, prefixes):
    """The weights of a file, which are f16, by the names of a network here."""
    tensors, own = load_file(MODELS / f"fashion28-{name}.safetensors"), {}
    for key, value in tensors.items():
        for prefix in prefixes:
            if key.startswith(prefix):
                own[key[len(prefix):]] = value.float()
    net.load_state_dict(own)
    return net.eval()


def loaded(name):
    if name == "stage":
        return load(Stage(), name, ["first_stage_model."])
    return load(Unet(), name, ["model.diffusion_model.", "cond_stage_model."])


def dpmpp(net, x, label, scale, steps):
    """DPM-Solver++(2M) on equal steps of ln(σ/α)."""
    a = alphas_cumprod()
    known = ((1 - a) / a).log() / 2
    spaced = torch.linspace(known[-1], known[0], steps + 1, dtype=torch.float64)
    t = torch.tensor(np.interp(spaced.numpy(), known.numpy(), np.arange(1000)))
    alpha, sigma = (torch.sigmoid(s * 2 * spaced).sqrt().float() for s in (-1, 1))
    decay, last = (spaced[1] - spaced[0]).exp().float(), None
    for k in range(steps):
        e = net(x, torch.full((len(x),), float(t[k])), label)
        if scale != 1:
            none = net(x, torch.full((len(x),), float(t[k])), torch.full_like(label, NONE))
            e = none + scale * (e - none)
        data = (x - sigma[k] * e) / alpha[k]
        ahead = data if last is None else 1.5 * data - 0.5 * last
        x, last = sigma[k + 1] / sigma[k] * x + alpha[k + 1] * (1 - decay) * ahead, data
    return x


def euler(net, x, label, steps):
    for k in range(steps):
        x = x + net(x, torch.full((len(x),), 1000.0 * (1 - k / steps)), label) / steps
    return x


def report(what, x, label):
    f = features(x)
    agree = (F.linear(f, trunk["head.weight"].float(), trunk["head.bias"].float()).argmax(1) == label).float().mean()
    print(f"{what}: Fréchet distance {frechet(f):.2f}, the classifier agrees on {100 * agree:.1f} %", flush=True)


def main(which):
    stage, factor = loaded("stage"), load_file(MODELS / "fashion28-stage.safetensors")["scale_factor"]
    decode = lambda z: torch.cat([stage.decode(b / factor) for b in z.split(500)])
    if "stage" in which:
        test, label = garments("t10k")
        few, label = test[:COUNT], label[:COUNT]
        back = torch.cat([stage.decode(stage.moments(b)[0]) for b in few.split(500)])
        print(f"reconstruction: squared error per pixel {(back - few).square().mean():.5f}, absolute {(back - few).abs().mean():.5f}")
        report("test images", few, label)
        report("test images through the autoencoder", back, label)
    label, noise = torch.arange(COUNT) % len(NAMES), torch.randn(COUNT, 4, 7, 7)
    if "latent" in which:
        net = loaded("latent")
        for scale, steps in ((1.0, 16), (2.0, 16)):
            z = torch.cat([dpmpp(net, *b, scale, steps) for b in zip(noise.split(550), label.split(550))])
            report(f"latent, DPM-Solver++(2M) {steps}, guidance {scale}", decode(z), label)
    for name in ("flow", "reflow"):
        if name in which:
            net = loaded(name)
            for steps in (1, 2, 4, 16):
                z = torch.cat([euler(net, *b, steps) for b in zip(noise.split(550), label.split(550))])
                report(f"{name}, Euler {steps}", decode(z), label)


if __name__ == "__main__":
    main(sys.argv[1:] or ["stage", "latent", "flow", "reflow"])
