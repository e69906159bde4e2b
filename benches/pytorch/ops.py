"""The tensor operations of scripts beside PyTorch's, each at three sizes, forward and with all gradients.

    python benches/pytorch/ops.py [--threads 1] [--seconds 0.4] [--binary target/release/ld3sh] [NAME ...]

Both sides are measured in turns within one run; a row has the least CPU time of each (all threads), and their ratio.
"""
import argparse
import json
import re
import subprocess
import time

import torch
import torch.nn.functional as F

SIDE, CHANNELS = [8, 16, 32], [32, 64, 128]
parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--seconds", type=float, default=0.4)
parser.add_argument("--binary", default="target/release/ld3sh")
parser.add_argument("names", nargs="*")
args = parser.parse_args()
torch.set_num_threads(args.threads)


def images(k):
    return [4, CHANNELS[k], SIDE[k], SIDE[k]]


def tokens(k):
    return [4, SIDE[k] ** 2, CHANNELS[k]]


def channels(k):
    return [CHANNELS[k]]


def square(k):
    return [CHANNELS[k], CHANNELS[k]]


OPERATIONS = {
    "silu": (lambda k: [images(k)], F.silu),
    "sigmoid": (lambda k: [images(k)], torch.sigmoid),
    "gelu": (lambda k: [images(k)], F.gelu),
    "exp": (lambda k: [images(k)], torch.exp),
    "sum of two": (lambda k: [images(k), images(k)], torch.add),
    "product with channels": (lambda k: [images(k), [CHANNELS[k], 1, 1]], torch.mul),
    "sum over pixels": (lambda k: [images(k)], lambda x: x.sum((2, 3))),
    "softmax": (lambda k: [tokens(k)], lambda x: x.softmax(-1)),
    "layer_norm": (lambda k: [tokens(k), channels(k), channels(k)], lambda x, w, b: F.layer_norm(x, w.shape, w, b)),
    "group_norm": (lambda k: [images(k), channels(k), channels(k)], lambda x, w, b: F.group_norm(x, 8, w, b)),
    "matmul": (lambda k: [tokens(k), square(k)], torch.matmul),
    "linear": (lambda k: [tokens(k), square(k), channels(k)], F.linear),
    "conv2d": (lambda k: [images(k), square(k) + [3, 3], channels(k)], lambda x, w, b: F.conv2d(x, w, b, padding=1)),
    "conv_transpose2d": (
        lambda k: [images(k), [CHANNELS[k], CHANNELS[k] // 2, 4, 4], [CHANNELS[k] // 2]],
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
    ),
}


def theirs(name, size, gradient):
    """The least CPU milliseconds of one run."""
    shapes, f = OPERATIONS[name]
    given = [(0.5 * torch.randn(s)).requires_grad_(gradient) for s in shapes(size)]

    def once():
        y = f(*given)
        if gradient:
            torch.autograd.grad(y, given, torch.ones_like(y))

    once()
    start = time.perf_counter()
    once()
    times = max(1, min(1000, int(0.005 / max(time.perf_counter() - start, 1e-6)) + 1))
    best, end = 1e9, time.perf_counter() + args.seconds
    while time.perf_counter() < end:
        before = time.process_time()
        for _ in range(times):
            once()
        best = min(best, (time.process_time() - before) / times)
    return best * 1e3


def ours(name, size, gradient):
    case = json.dumps({"what": "op", "op": name, "size": size, "gradient": gradient})
    command = [args.binary, "bench", "--threads", str(args.threads), "--json", case]
    row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0])
    return row["cpu_ms"]


print(f"PyTorch {re.split('[+]', torch.__version__)[0]}, {args.threads} threads; CPU ms, least of many runs\n")
print("| operation | size | ld3sh | PyTorch | ratio | with gradients | PyTorch | ratio |")
print("|---|---|---|---|---|---|---|---|")
for name in args.names or OPERATIONS:
    for size in range(3):
        row = [name, "×".join(map(str, OPERATIONS[name][0](size)[0]))]
        for gradient in [False, True]:
            a, b = ours(name, size, gradient), theirs(name, size, gradient)
            row += [f"{a:.3f}", f"{b:.3f}", f"**{a / b:.2f}**"]
        print("| " + " | ".join(row) + " |", flush=True)
