"""Rectified flows of the same latents: `flow.py 1` makes one of the denoiser, `flow.py 2` straightens it by its own pairs of noise and data.

As InstaFlow has it, the network gives data − noise and is told 1000 at noise.
"""
import sys

import torch

from common import NAMES, WORK, fit, start
from denoise import dropped, latents, save
from nets import Unet

WHICH = sys.argv[1]
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else {"1": 1000, "2": 600}[WHICH]
PAIRS, HALVES = 5500, 8


def velocity(net, x, t, label):
    return net(x, torch.full((len(x),), 1000.0 * t), label)


@torch.no_grad()
def pairs(net):
    """Noise, and where the flow takes it by `HALVES` steps of the midpoint rule; classes in turn, one in eleven without."""
    noise, label = torch.randn(PAIRS, 4, 7, 7), torch.arange(PAIRS) % (len(NAMES) + 1)
    done = []
    for x, c in zip(noise.split(500), label.split(500)):
        for k in range(HALVES):
            t, h = 1.0 - k / HALVES, 1.0 / HALVES
            half = x + 0.5 * h * velocity(net, x, t, c)
            x = x + h * velocity(net, half, t - 0.5 * h, c)
        done.append(x)
    return noise, torch.cat(done), label


start(2 + int(WHICH))
net = Unet()
net.load_state_dict(torch.load(WORK / {"1": "denoise.pt", "2": "flow1.pt"}[WHICH]))
if WHICH == "1":
    sample, labels = latents()

    def drawn(i):
        return torch.randn(len(i), 4, 7, 7), sample(i), dropped(labels[i])

    count = len(labels)
else:
    noise, data, label = pairs(net)
    torch.save((noise, data, label), WORK / "pairs.pt")

    def drawn(i):
        return noise[i], data[i], label[i]

    count = PAIRS


def loss(batch):
    e, x, c = drawn(torch.randint(count, (batch,)))
    t = torch.rand(batch)
    at = t.view(-1, 1, 1, 1)
    return (net((1.0 - at) * x + at * e, 1000.0 * t, c) - (x - e)).square().mean()


net = fit(net, STEPS, {"1": 2e-3, "2": 1e-3}[WHICH], 64, loss, average=0.998)
torch.save(net.state_dict(), WORK / f"flow{WHICH}.pt")
save({"1": "fashion28-flow", "2": "fashion28-reflow"}[WHICH], net, {}, {"predicts": "velocity"})
