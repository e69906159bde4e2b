"""A generator of point clouds as diffusion-point-cloud's (Luo & Hu 2021), small: encoder, coupling flow, pointwise denoiser. About seven minutes of one core for 6,050 steps.

Clouds come from the module `shapes`: ld3sh -e 'import "shapes" as s; save("shapes.npy", s::clouds(0, 6000, 1024))'; the encoder is used in
training only and is not shipped. `points.py STEPS` trains, `points.py write` writes
the last snapshot of a run that was stopped, `points.py reference` writes tests/fixtures/points/shapes.io.safetensors.
"""
import copy
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from common import MODELS, WORK, start, store

LATENT, DEPTH, HIDDEN = 32, 14, 64
WIDTHS = [3, 32, 64, 128, 64, 32, 3]
ARGS = {"model": "flow", "latent_dim": LATENT, "num_steps": 100, "beta_1": 1e-4, "beta_T": 0.02, "sched_mode": "linear", "residual": True,
    "flexibility": 0.0, "latent_flow_depth": DEPTH, "latent_flow_hidden_dim": HIDDEN}
PRIOR, RATE = 1e-3, 3e-3
BATCH, LEVELS, POINTS = 32, 4, 32


class ConcatSquash(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self._layer, self._hyper_bias, self._hyper_gate = nn.Linear(i, o), nn.Linear(LATENT + 3, o, bias=False), nn.Linear(LATENT + 3, o)

    def forward(self, c, x):
        return self._layer(x) * torch.sigmoid(self._hyper_gate(c)) + self._hyper_bias(c)


class Pointwise(nn.Module):
    """ε from x [B, N, 3], β [B] and z [B, latent]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(ConcatSquash(i, o) for i, o in zip(WIDTHS, WIDTHS[1:]))

    def forward(self, x, beta, z):
        c = torch.cat([beta.view(-1, 1), beta.sin().view(-1, 1), beta.cos().view(-1, 1), z], 1).unsqueeze(1)
        h = x
        for i, layer in enumerate(self.layers):
            h = layer(c, h)
            h = F.leaky_relu(h) if i + 1 < len(self.layers) else h
        return x + h


class Coupling(nn.Module):
    def __init__(self, swap):
        super().__init__()
        d = LATENT // 2
        self.swap = swap
        self.net_s_t = nn.Sequential(nn.Linear(d, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * d))

    def halves(self, x):
        a, b = x.chunk(2, 1)
        return (b, a) if self.swap else (a, b)

    def joined(self, a, b):
        return torch.cat([b, a] if self.swap else [a, b], 1)

    def forward(self, x):
        a, b = self.halves(x)
        s, t = self.net_s_t(a).chunk(2, 1)
        s = torch.sigmoid(s + 2.0)
        return self.joined(a, b * s + t), s.log().sum(1)

    def inverse(self, y):
        a, b = self.halves(y)
        s, t = self.net_s_t(a).chunk(2, 1)
        return self.joined(a, (b - t) / torch.sigmoid(s + 2.0))


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.chain = nn.ModuleList(Coupling(i % 2 == 0) for i in range(DEPTH))

    def forward(self, z):
        total = 0.0
        for layer in self.chain:
            z, logdet = layer(z)
            total = total + logdet
        return z, total

    def inverse(self, w):
        for layer in reversed(self.chain):
            w = layer.inverse(w)
        return w


class Encoder(nn.Module):
    """Mean and log variance of z from a cloud: each point alone, the largest of each feature, a perceptron."""

    def __init__(self):
        super().__init__()
        self.points = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 128))
        self.whole = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2 * LATENT))

    def forward(self, x):
        return self.whole(self.points(x).max(1).values).chunk(2, 1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.flow = Encoder(), Flow()
        self.diffusion = nn.ModuleDict({"net": Pointwise()})


def schedule():
    beta = torch.linspace(ARGS["beta_1"], ARGS["beta_T"], ARGS["num_steps"], dtype=torch.float64)
    return beta, torch.log1p(-beta).cumsum(0).exp()


def train(steps, every=50):
    """Adam with a constant step length after a warm-up, and averaged weights in the place of cooling: what `steps` gives is on the way of more.

    Kept are snapshots, from which the file is written and a run goes on, so that it may be stopped where it is good enough.
    """
    start(7)
    data, model = torch.from_numpy(np.load(WORK / "shapes.npy")), Model()
    (beta, bar), mean, sums, began = (v.float() for v in schedule()), copy.deepcopy(model), [], time.process_time()
    adam, first = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.99)), 0
    if (WORK / "points.pt").exists():
        kept = torch.load(WORK / "points.pt")
        for part, name in [(model, "last"), (mean, "model"), (adam, "adam")]:
            part.load_state_dict(kept[name])
        torch.set_rng_state(kept["random"])
        first = kept["steps"]
    for i in range(first, steps):
        # clouds by some of their points, which are cut into parts at noise levels of their own
        some = data[torch.randint(len(data), (BATCH,))][:, torch.randperm(data.shape[1])[: LEVELS * POINTS]]
        mu, logvar = model.encoder(some)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        w, logdet = model.flow(z)
        prior = 0.5 * w.square().sum(1) - logdet - 0.5 * logvar.sum(1)
        x, z = some.reshape(LEVELS * BATCH, POINTS, 3), z.repeat_interleave(LEVELS, 0)
        t = torch.randint(ARGS["num_steps"], (len(x),))
        a, noise = bar[t].view(-1, 1, 1), torch.randn_like(x)
        guess = model.diffusion["net"](a.sqrt() * x + (1.0 - a).sqrt() * noise, beta[t], z)
        fit = (guess - noise).square().mean()
        adam.param_groups[0]["lr"] = RATE * min(1.0, (i + 1) / 50)
        adam.zero_grad(set_to_none=True)
        (fit + PRIOR * prior.mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        keep = min(0.99, (i + 1) / (i + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1.0 - keep)
        sums.append((fit.item(), prior.mean().item()))
        if (i + 1) % every == 0:
            print(f"step {i + 1}: noise {np.mean(sums[-every:], 0)[0]:.4f}, prior {np.mean(sums[-every:], 0)[1]:.2f}, {time.process_time() - began:.0f} s", flush=True)
            torch.save({"steps": i + 1, "model": mean.state_dict(), "last": model.state_dict(), "adam": adam.state_dict(),
                "random": torch.get_rng_state()}, WORK / "points.pt")


def write():
    """The last snapshot, less the encoder."""
    kept = torch.load(WORK / "points.pt")
    tensors = {k: v for k, v in kept["model"].items() if not k.startswith("encoder.")}
    store(MODELS / "shapes-points.safetensors", tensors, {"pointcloud": ARGS | {"points": 512}})
    print(f"after {kept['steps']} steps")


def loaded(dtype):
    model = Model().to(dtype)
    stored = load_file(MODELS / "shapes-points.safetensors")
    rest = model.load_state_dict({k: v.to(dtype) for k, v in stored.items()}, strict=False)
    assert all(k.startswith("encoder.") for k in rest.missing_keys) and not rest.unexpected_keys
    return model


def reference():
    """Values and gradients in f64 of the weights as they are stored."""
    start(11)
    model, (beta, _) = loaded(torch.float64), schedule()
    x, w = torch.randn(3, 48, 3).double().requires_grad_(), torch.randn(3, LATENT).double()
    b = beta[torch.tensor([0, 42, 99])].clone().requires_grad_()
    z = model.flow.inverse(w).detach()
    y = model.diffusion["net"](x, b, z)
    bar = torch.randn_like(y)
    y.backward(bar)
    io = {"x": x, "beta": b, "w": w, "z": z, "y": y, "cotangent": bar, "grad_x": x.grad, "grad_beta": b.grad}
    save_file({k: v.detach().contiguous() for k, v in io.items()}, MODELS.parent / "tests/fixtures/points/shapes.io.safetensors")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "1000"
    if what == "reference":
        reference()
    else:
        if what != "write":
            train(int(what))
        write()
