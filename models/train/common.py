"""What the training scripts share: the garments, seeds, a cooled step length, averaged weights, files."""
import copy
import gzip
import json
import math
import os
import pathlib
import time

import numpy as np
import torch
from safetensors.torch import save_file

# Debian's package dataset-fashion-mnist
DATA = pathlib.Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parent
WORK = pathlib.Path(os.environ.get("TRAIN_OUT", HERE / "out"))
NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def start(seed):
    torch.manual_seed(seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    WORK.mkdir(exist_ok=True)


def garments(part):
    """Images [N, 1, 28, 28] in [−1, 1] and labels of "train" or "t10k"."""
    read = lambda kind, skip: np.frombuffer(gzip.open(DATA / f"{part}-{kind}-ubyte.gz").read()[skip:], np.uint8)
    images = torch.from_numpy(read("images-idx3", 16).copy()).view(-1, 1, 28, 28)
    return images.float() / 127.5 - 1.0, torch.from_numpy(read("labels-idx1", 8).copy()).long()


def fit(net, steps, rate, batch, loss, average=0.999, every=100):
    """Adam with a step length that is warmed up and cooled to zero; `loss(batch indices)`. Returns the net with averaged weights."""
    adam, mean, began, sums = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99)), copy.deepcopy(net), time.time(), []
    for i in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * min(1.0, (i + 1) / 100) * 0.5 * (1.0 + math.cos(math.pi * i / steps))
        value = loss(batch)
        adam.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        keep = min(average, (i + 1) / (i + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(mean.parameters()), list(net.parameters()), 1.0 - keep)
        sums.append(value.item())
        if (i + 1) % every == 0:
            print(f"step {i + 1}: loss {np.mean(sums[-every:]):.5f}, {time.time() - began:.0f} s", flush=True)
    return mean.eval()


def store(path, tensors, metadata):
    """In f16, but for what is told in f32."""
    keep = {k: (v if k in ("alphas_cumprod", "scale_factor") else v.half()).contiguous() for k, v in tensors.items()}
    save_file(keep, path, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    os.chmod(path, 0o644)
    print(f"{path}: {os.path.getsize(path)} bytes, {sum(v.numel() for v in keep.values())} values")
