"""One training step of the U-Net of stdlib/nn.rhai (28x28, EDM's loss, Adam), beside scripts/train_step.rhai.

python unet_step.py --threads 2 --batch 64 --channels 32 --steps 10
"""
import argparse, math, time
import torch
from torch import nn
from torch.nn import functional as F


def groups(c):
    g = min(32, max(1, c // 4))
    while c % g:
        g -= 1
    return g


class Block(nn.Module):
    def __init__(self, cin, cout, width):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups(cin), cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.told = nn.Linear(width, cout)
        self.norm2, self.conv2 = nn.GroupNorm(groups(cout), cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, told):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.told(told)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    def __init__(self, shape, channels, multiples):
        super().__init__()
        width, at, kept = 4 * channels, channels, [channels]
        self.register_buffer("freq", torch.randn(channels // 2) * 2 * math.pi)
        self.time = nn.Sequential(nn.Linear(channels // 2 * 2, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(shape[0], at, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for k, m in enumerate(multiples):
            self.down.append(Block(at, channels * m, width))
            at = channels * m
            kept.append(at)
            if k + 1 < len(multiples):
                kept.append(at)
        self.middle = Block(at, at, width)
        for m in reversed(multiples):
            for _ in range(2):
                self.up.append(Block(at + kept.pop(), channels * m, width))
                at = channels * m
        self.norm, self.last = nn.GroupNorm(groups(at), at), nn.Conv2d(at, shape[0], 3, padding=1)

    def forward(self, x, t):
        phase = t[:, None] * self.freq
        told = F.silu(self.time(torch.cat([phase.cos(), phase.sin()], 1)))
        x = self.first(x)
        kept, n = [x], len(self.down)
        for k, b in enumerate(self.down):
            x = b(x, told)
            kept.append(x)
            if k + 1 < n:
                x = F.avg_pool2d(x, 2)
                kept.append(x)
        x = self.middle(x, told)
        for k in range(n):
            for b in self.up[2 * k : 2 * k + 2]:
                x = b(torch.cat([x, kept.pop()], 1), told)
            if k + 1 < n:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.last(F.silu(self.norm(x)))


def main():
    a = argparse.ArgumentParser()
    for name, default in [("threads", 2), ("batch", 64), ("channels", 32), ("steps", 10)]:
        a.add_argument(f"--{name}", type=int, default=default)
    a.add_argument("--channels-last", action="store_true")
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    net = UNet([1, 28, 28], a.channels, [1, 2, 2])
    if a.channels_last:
        net = net.to(memory_format=torch.channels_last)
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    x = torch.rand(a.batch, 1, 28, 28) * 2 - 1
    wall, cpu = [], []
    for _ in range(a.steps):
        w, c = time.perf_counter(), time.process_time()
        s = (torch.randn(a.batch) * 1.2 - 1.2).exp()[:, None, None, None]
        y, root = x + s * torch.randn_like(x), (s * s + 0.25).sqrt()
        target = (x - 0.25 / (s * s + 0.25) * y) / (s * 0.5 / root)
        loss = ((net(y / root, s.flatten().log() / 4) - target) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    n = sum(p.numel() for p in net.parameters())
    print(f"{n} parameters, {min(wall) * 1e3:.0f} ms, CPU {min(cpu) * 1e3:.0f} ms")


main()
