"""Writes tests/fixtures/latent/fashion28.io.safetensors: values and gradients in f64 of the weights as they are stored."""
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from common import MODELS, NAMES, garments, start
from evaluate import loaded

start(11)
torch.set_grad_enabled(True)
OUT, io = MODELS.parent / "tests/fixtures/latent/fashion28.io.safetensors", {}


def record(name, f, inputs, fixed=()):
    """Values at `inputs`, a cotangent, and the gradients of its product with them."""
    given = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    y = f(*given.values(), *fixed)
    bar = torch.randn_like(y)
    y.backward(bar)
    io.update({f"{name}.{k}": v for k, v in inputs.items()} | {f"{name}.out": y.detach(), f"{name}.cotangent": bar})
    io.update({f"{name}.grad_{k}": v.grad for k, v in given.items()})


x, t, label = torch.randn(3, 4, 7, 7).double(), torch.tensor([3.25, 420.0, 998.5]).double(), torch.tensor([3, 9, len(NAMES)])
io["label"] = F.one_hot(label, len(NAMES) + 1)[:, : len(NAMES)].double()
for name in ("latent", "flow", "reflow"):
    net = loaded(name).double()
    # a flow is noise − data in ld3sh, the network's own output is the opposite
    sign = 1.0 if name == "latent" else -1.0
    record(name, lambda x, t: sign * net(x, t, label), {"x": x, "t": t})
stage, factor = loaded("stage").double(), load_file(MODELS / "fashion28-stage.safetensors")["scale_factor"].double()
images = garments("t10k")[0][:2].double()
record("decode", lambda z: stage.decode(z / factor), {"z": stage.moments(images)[0].detach() * factor})
record("encode", lambda x: torch.cat(stage.moments(x), 1), {"x": images})
save_file({k: v.float().contiguous() for k, v in io.items()}, OUT)
