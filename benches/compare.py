#!/usr/bin/env python3
"""Times ld3sh beside PyTorch in one run and prints the ratios as a Markdown table.

    python benches/compare.py [--bin target/release/ld3sh] [--threads 2] [--runs 20] [--seconds 20] [CASE ...]

Needs torch and safetensors. For each case both sides get the same inputs; outputs and gradients must agree to 1e-3 (of the
largest entry) before anything is timed. Then the two run in turns, one repetition each, and the minima are compared, of
elapsed time and of CPU time: what else the machine does in the meantime falls on both. On a busy machine `--threads 1` and
CPU times tell the most, because PyTorch's threads spin while they wait. Each side is a process of its own, so peak resident
sizes are per case."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CIFAR = dict(img_resolution=32, img_channels=3, augment_dim=9, channel_mult=[2, 2, 2])
FFHQ = dict(img_resolution=64, img_channels=3, augment_dim=9, channel_mult=[1, 2, 2, 2])
NETS = {'cifar10': CIFAR, 'ffhq64': FFHQ}
SIZES = [(128, 32), (256, 16), (64, 64), (256, 32)]


def cases():
    out = {}
    for c, s in SIZES:
        for g in (False, True):
            out[f'conv {c}x{s} {"gradient" if g else "forward"}'] = dict(what='conv', channels=c, size=s, batch=2, gradient=g)
    for g in (False, True):
        out[f'norm {"gradient" if g else "forward"}'] = dict(what='norm', channels=128, size=32, batch=2, gradient=g)
    for g in (False, True):
        name = 'forward + gradient' if g else 'forward'
        out[f'attention {name}'] = dict(what='attention', channels=256, size=16, batch=2, heads=1, gradient=g)
    for net, batch in (('cifar10', 2), ('ffhq64', 2), ('fashion28', 2), ('fashion28', 16)):
        for g in (False, True):
            name = 'evaluation + VJP' if g else 'evaluation'
            out[f'{net} {name}, batch {batch}'] = dict(what='net', net=net, batch=batch, gradient=g)
    for net in ('cifar10', 'fashion28'):
        for solver in ('ipndm', 'unipc'):
            for nfe in (5, 10):
                for remat in (True, False):
                    name = f'{net} step {solver} NFE {nfe} {"remat" if remat else "kept"}'
                    out[name] = dict(what='step', net=net, batch=2, nfe=nfe, solver=solver, remat=remat)
    for net, batch in (('cifar10', 8), ('fashion28', 50)):
        out[f'{net} pairs, batch {batch}, NFE 20'] = dict(what='pairs', net=net, batch=batch, nfe=20)
    return out


def peer(path):
    """The PyTorch side, a process of its own: the protocol of `ld3sh bench --serve`."""
    import torch
    import torch.nn.functional as F
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    sys.path.insert(0, os.path.join(HERE, 'pytorch'))
    from net import Net
    from solvers import SOLVERS
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    with safe_open(path, 'pt') as f:
        case = json.loads(f.metadata()['case'])
    x = load_file(path)
    gradient = case.get('gradient', False)

    def image(t):
        return t.permute(0, 3, 1, 2)        # NHWC in memory: channels_last

    def last(t):
        return t.permute(0, 2, 3, 1).contiguous()

    def network():
        with safe_open(case['net'], 'pt') as f:
            config = json.loads(f.metadata()['config'])
        return Net(load_file(case['net']), config)

    if case['what'] in ('conv', 'norm'):
        inp, cot = image(x['x']).requires_grad_(gradient), image(x['cot'])
        if case['what'] == 'conv':
            weight = x['weight'].contiguous(memory_format=torch.channels_last)
            f = lambda v: F.conv2d(v, weight, x['bias'], padding=1)
        else:
            f = lambda v: F.silu(F.group_norm(v, 32, x['weight'], x['bias'], 1e-6))
        y = f(inp) if gradient else None

        def run():
            if not gradient:
                with torch.no_grad():
                    return {'y': f(inp)}
            return {'gx': torch.autograd.grad(y, inp, cot, retain_graph=True)[0]}
        outputs = lambda r: {k: last(v) for k, v in r.items()}
    elif case['what'] == 'attention':
        b, s, c, n = case['batch'], case['size'] ** 2, case['channels'], case['heads']
        inp = x['x'].requires_grad_(gradient)

        def run():
            with torch.set_grad_enabled(gradient):
                q, k, v = inp.reshape(b, s, 3, n, c // n).permute(2, 0, 3, 1, 4).unbind(0)
                y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x['cot'].shape)
                return {'y': y, 'gx': torch.autograd.grad(y, inp, x['cot'])[0]} if gradient else {'y': y}
        outputs = lambda r: {k: v.detach().contiguous() for k, v in r.items()}
    elif case['what'] == 'net':
        net = network()
        inp, c = x['x'].requires_grad_(gradient), x['c_noise'].requires_grad_(gradient)

        def run():
            if not gradient:
                with torch.inference_mode():
                    return {'y': net(inp, c)}
            y = net(inp, c)
            gx, gc = torch.autograd.grad(y, (inp, c), x['cot'])
            return {'y': y, 'gx': gx, 'gc': gc}
        outputs = lambda r: {k: v.detach().clone().contiguous() for k, v in r.items()}
    else:
        net, nfe = network(), case['nfe']
        a, z = 80 ** (1 / 7), 0.002 ** (1 / 7)
        t0 = torch.tensor([(a + (z - a) * i / nfe) ** 7 for i in range(nfe + 1)], dtype=torch.float64)

        def run():
            if case['what'] == 'pairs':
                with torch.inference_mode():
                    return {'y': SOLVERS['unipc'](net, x['x'] * 80, t0, t0, False)}
            t = t0.clone().requires_grad_()
            e = (t0 * 0.98).clamp(min=0.002).requires_grad_()
            v = (x['x'] * 80).requires_grad_()
            y = SOLVERS[case['solver']](net, v, t, e, case['remat'])
            gx, gt, ge = torch.autograd.grad((y - x['target']).square().mean(), (v, t, e))
            return {'y': y, 'gx': gx, 'gt': gt, 'ge': ge}
        outputs = lambda r: {k: v.detach().clone().contiguous() for k, v in r.items()}
    save_file(outputs(run()), os.path.splitext(path)[0] + '.peer')
    print(json.dumps({'ready': True}), flush=True)
    # operations run in bursts, as on the other side
    times = 10 if case['what'] in ('conv', 'norm', 'attention') else 1
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(times):
            run()
        ms = (time.perf_counter() - start) * 1e3 / times
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({'ms': ms, 'times': times, 'peak_mib': peak}), flush=True)


class Side:
    def __init__(self, command, env):
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.ms, self.cpu, self.peak = [], [], 0.0

    def line(self):
        text = self.p.stdout.readline()
        if not text:
            raise SystemExit(f'{self.p.args} ended')
        return json.loads(text)

    def computed(self):
        """Milliseconds that the process's threads have computed so far."""
        root, total = f'/proc/{self.p.pid}/task', 0
        for task in os.listdir(root):
            with open(f'{root}/{task}/schedstat') as f:
                total += int(f.read().split()[0])
        return total / 1e6

    def rep(self):
        before = self.computed()
        self.p.stdin.write('\n')
        self.p.stdin.flush()
        r = self.line()
        self.cpu.append((self.computed() - before) / r['times'])
        self.ms.append(r['ms'])
        self.peak = r['peak_mib']

    def end(self):
        self.p.stdin.close()
        self.p.wait()


def inputs(case, root):
    import torch
    from safetensors.torch import save_file
    g = torch.Generator().manual_seed(1)
    rand = lambda *s: torch.randn(s, generator=g)
    b, case = case['batch'], dict(case)
    if case['what'] in ('net', 'step', 'pairs'):
        name = case['net']
        path = os.path.join(HERE, '..', 'models', f'{name}-edm.safetensors')
        if name in NETS:
            path = os.path.join(root, f'{name}.safetensors')
            if not os.path.exists(path):
                sys.path.insert(0, os.path.join(HERE, 'pytorch'))
                from net import random_weights
                meta = {'config': json.dumps(NETS[name]), 'precond': 'EDMPrecond'}
                save_file(random_weights(NETS[name]), path, meta)
        from safetensors import safe_open
        with safe_open(path, 'pt') as f:
            config = json.loads(f.metadata()['config'])
        case['net'] = os.path.abspath(path)
        dims = (b, config['img_channels'], config['img_resolution'], config['img_resolution'])
        t = {'x': rand(*dims), 'cot': rand(*dims), 'target': rand(*dims) * 0.5, 'c_noise': rand(b) * 0.5}
    else:
        c, s = case['channels'], case['size']
        k = 3 * c if case['what'] == 'attention' else c
        t = {'x': rand(b, s, s, k), 'cot': rand(b, s, s, c), 'bias': rand(c)}
        t['weight'] = rand(c, c, 3, 3) / (3 * c ** 0.5) if case['what'] == 'conv' else rand(c)
    path = os.path.join(root, 'case.safetensors')
    save_file(t, path, {'case': json.dumps(case)})
    return path


def compare(name, case, root, args):
    import torch
    from safetensors.torch import load_file
    path = inputs(case, root)
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads),
               RAYON_NUM_THREADS=str(args.threads))
    sides = [Side([args.bin, 'bench', '--serve', path], env),
             Side([sys.executable, os.path.abspath(__file__), '--peer', path], env)]
    for s in sides:
        s.line()
    stem = os.path.splitext(path)[0]
    mine, theirs = load_file(stem + '.out'), load_file(stem + '.peer')
    assert mine.keys() == theirs.keys(), (mine.keys(), theirs.keys())
    worst = 0.0
    for k in mine:
        e = ((mine[k].double() - theirs[k].double()).abs().max() / theirs[k].abs().max()).item()
        worst = max(worst, e)
    if not worst < 1e-3:
        raise SystemExit(f'{name}: the sides differ by {worst:.1e}: {list(mine)}')
    begin = time.time()
    # short cases run several times in a turn, so that each side also meets its own warm caches
    burst = 1
    while len(sides[0].ms) < args.runs or (time.time() - begin < args.seconds and len(sides[0].ms) < 3000):
        for s in sides:
            for _ in range(burst):
                s.rep()
        burst = max(1, min(20, int(30 / min(sides[0].ms))))
        if time.time() - begin > 6 * args.seconds and len(sides[0].ms) >= 3:
            break
    for s in sides:
        s.end()
    a, b = (min(s.ms) for s in sides)
    c, d = (min(s.cpu) for s in sides)
    print(f'| {name} | {a:.2f} | {b:.2f} | **{b / a:.2f}** | {c:.2f} | {d:.2f} | {d / c:.2f} | {sides[0].peak:.0f} | '
          f'{sides[1].peak:.0f} | {worst:.0e} | {len(sides[0].ms)} |', flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--bin', default=os.path.join(HERE, '..', 'target', 'release', 'ld3sh'))
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--runs', type=int, default=10, help='at least so many repetitions of each side')
    p.add_argument('--seconds', type=float, default=10, help='at least so long, unless that takes six times as long')
    p.add_argument('--peer', help=argparse.SUPPRESS)
    p.add_argument('cases', nargs='*', help='words that a case must contain one of')
    args = p.parse_args()
    if args.peer:
        return peer(args.peer)
    print('| case | ld3sh ms | PyTorch ms | ratio | ld3sh CPU ms | PyTorch CPU ms | CPU ratio | ld3sh MiB | PyTorch MiB | '
          'differ | runs |')
    print('|---|---|---|---|---|---|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as root:
        for name, case in cases().items():
            if not args.cases or any(w in name for w in args.cases):
                compare(name, case, root, args)


if __name__ == '__main__':
    main()
