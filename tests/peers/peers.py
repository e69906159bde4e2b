"""Steps the real schedulers of diffusers and the real samplers of k-diffusion through what ld3sh exported (cases.json, by cases.rhai):
the same noise levels, and the same samples of a denoiser in closed form. Prints `N passed, N failed`."""
import json
import re
import sys
import types

import torch

torch.set_default_dtype(torch.float64)


class Stand(types.ModuleType):
    """Takes the place of packages that k-diffusion imports for training alone."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stand(name)

    def __call__(self, *args, **kwargs):
        return None


def k_diffusion():
    """k_diffusion with its sampling.py, without what its __init__ imports beside."""
    import importlib.util

    spec = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    stands = []
    for name in ["torchvision", "torchvision.transforms", "torchvision.transforms.functional", "skimage", "PIL", "PIL.Image"]:
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = Stand(name)
            stands.append(name)
    import k_diffusion.sampling

    for name in stands:
        del sys.modules[name]


data = json.load(open(sys.argv[1]))
means, stds, weights = (torch.tensor(data[k]) for k in ["means", "stds", "weights"])
Z = torch.tensor(data["z"])
calls = 0


def mixture(x, sigma):
    """The mean of the data behind x = data + sigma * noise."""
    global calls
    calls += 1
    sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1)
    total = stds**2 + sigma**2
    diff = x[:, None, :] - means
    logp = weights.log() - (diff**2).sum(-1) / (2 * total) - 0.5 * x.shape[-1] * total.log()
    p = torch.softmax(logp, -1)
    post = means + diff * (stds**2 / total)[..., None]
    return (post * p[..., None]).sum(1)


SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)


def with_diffusers(case):
    import diffusers

    flow = "flow" in case["tool"]
    made = re.search(r"from diffusers import (\w+)", case["text"]).group(1)
    config = getattr(diffusers, made)(**({} if flow else SD)).config
    ns = {"pipe": types.SimpleNamespace(scheduler=types.SimpleNamespace(config=config))}
    exec(case["text"], ns)
    s = ns["pipe"].scheduler
    sigmas = torch.as_tensor(s.sigmas, dtype=torch.float64)
    first = sigmas[0]
    vp = not flow and made not in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")
    x = Z * first / (1 + first**2).sqrt() if vp else Z * first
    # UniPC solves small systems in the type of its levels
    torch.set_default_dtype(torch.float32)
    for t in s.timesteps:
        getattr(s, "scale_model_input", lambda x, t: x)(x, t)
        if s.step_index is None:
            s._init_step_index(t)
        sigma = torch.as_tensor(s.sigmas[s.step_index], dtype=torch.float64)
        if flow:
            d = mixture(x / (1 - sigma), sigma / (1 - sigma))
            out = (x - d) / sigma
        else:
            ve = x * (1 + sigma**2).sqrt() if vp else x
            out = (ve - mixture(ve, sigma)) / sigma
        x = s.step(out, t, x).prev_sample.double()
    torch.set_default_dtype(torch.float64)
    given = [sigmas[0]] + [b for a, b in zip(sigmas, sigmas[1:]) if b != a]
    given = torch.stack(given)
    return (given / (1 - given) if flow else given), x


def with_k_diffusion(case):
    ns = {}
    exec(case["text"].split("x_0 =")[0], ns)
    sigmas = ns["sigmas"]
    ns.update(model=lambda x, sigma: mixture(x, sigma), x=Z * sigmas[0])
    exec("x_0 =" + case["text"].split("x_0 =")[1], ns)
    return sigmas, ns["x_0"]


def euler(sigmas):
    x = Z * sigmas[0]
    for a, b in zip(sigmas, sigmas[1:]):
        x = x + (x - mixture(x, a)) / a * (b - a)
    return x


def with_comfyui(case):
    # as ManualSigmas reads it
    sigmas = torch.tensor([float(v) for v in re.findall(r"[-+]?(?:\d*\.*\d+)", case["text"])])
    return sigmas, euler(sigmas)


def with_a1111(case):
    class Scheduler:
        def __init__(self, name, label, function):
            self.name, self.label, self.function = name, label, function

    module = types.ModuleType("modules.sd_schedulers")
    module.Scheduler, module.schedulers, module.schedulers_map = Scheduler, [], {}
    package = types.ModuleType("modules")
    package.sd_schedulers = module
    sys.modules.update({"modules": package, "modules.sd_schedulers": module})
    for _ in range(2):
        exec(case["text"], {})
    assert len(module.schedulers) == 1, "registered once"
    sigmas = module.schedulers[0].function(case["nfe"], 0.0292, 14.6, "cpu").double()
    assert len(module.schedulers[0].function(7, 0.0292, 14.6, "cpu")) == 8
    return sigmas, euler(sigmas)


TOOLS = [("diffusers:", with_diffusers), ("k-diffusion", with_k_diffusion), ("comfyui", with_comfyui),
         ("stable-diffusion.cpp", with_comfyui), ("a1111", with_a1111)]


def far(a, b):
    b = torch.as_tensor(b, dtype=torch.float64)
    return ((torch.as_tensor(a, dtype=torch.float64) - b).abs().max() / b.abs().max()).item()


k_diffusion()
passed = failed = 0
worst = {}


def check(name, what):
    global passed, failed
    try:
        largest = what()
    except Exception as e:  # the tool's own error is a failure of the export
        torch.set_default_dtype(torch.float64)
        largest, name = float("inf"), f"{name}: {type(e).__name__}: {e}"
    key = name.split(" ")[0]
    if largest < 1e-5:
        passed += 1
        worst[key] = max(worst.get(key, 0.0), largest)
    else:
        failed += 1
        print(f"FAILED {name}: {largest:.2e}")


for case in data["cases"]:
    def run(case=case):
        global calls
        calls = 0
        tool = next(f for name, f in TOOLS if case["tool"].startswith(name))
        sigmas, x = tool(case)
        wanted = torch.tensor(case["sigmas"])
        assert len(sigmas) == len(wanted), f"{len(sigmas)} noise levels, not {len(wanted)}"
        error = ((sigmas - wanted).abs() / wanted.clamp(min=1e-3)).max().item()
        # diffusers keeps its training levels in f32, and its least is off by 1.3e-5
        assert error < 3e-5, f"noise levels differ by {error:.1e}"
        return far(x, case["x_0"])

    check(f"{case['tool']} {case['solver']} {case['nfe']}", run)

for plan in data["plans"]:
    def run(plan=plan):
        global calls
        calls = 0
        ns = {}
        exec(plan["text"], ns)
        x = ns["sample"](lambda x, alpha, sigma, t: mixture(x / alpha, sigma / alpha), Z)
        assert calls == plan["nfe"], f"{calls} evaluations, not {plan['nfe']}"
        return far(x, plan["x_0"])

    check(f"python {plan['solver']} {plan['noise']}", run)

for name, value in worst.items():
    print(f"{name}: within {value:.1e}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
