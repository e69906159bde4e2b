"""iPNDM (order 3) and UniPC (order 3, bh1) for the VE schedule, differentiable in the steps, the evaluation times and the
noise; checkpointed evaluations as in LD3's appendix D.3."""
import torch
from torch.utils.checkpoint import checkpoint

WEIGHTS = [[1.0], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12]]


def evaluate(net, x, sigma, remat):
    sigma = sigma.to(x.dtype)
    return checkpoint(net.denoise, x, sigma, use_reentrant=False) if remat else net.denoise(x, sigma)


def ipndm(net, x, t, e, remat):
    history = []
    for i in range(len(t) - 1):
        eps = (x - evaluate(net, x, e[i], remat)) / e[i].float()
        history = [eps] + history[:2]
        x = x + (t[i + 1] - t[i]).float() * sum(w * h for w, h in zip(WEIGHTS[len(history) - 1], history))
    return x


def unipc(net, x, t, e, remat):
    lam, n, order = -t.log(), len(t) - 1, 3
    m = [evaluate(net, x, e[0], remat)]
    for i in range(1, n + 1):
        p = min(order, i, n - i + 1)
        h = lam[i] - lam[i - 1]
        z, phi1 = -h, torch.expm1(-h)
        r = [(lam[i - 1 - k] - lam[i - 1]) / h for k in range(1, p)] + [torch.ones_like(h)]
        rows, rhs, phi, factorial = [], [], phi1 / z - 1, 1.0
        for j in range(1, p + 1):
            rows.append(torch.stack([v ** (j - 1) for v in r]))
            rhs.append(phi * factorial / z)
            factorial *= j + 1
            phi = phi / z - 1 / factorial
        rows, rhs = torch.stack(rows), torch.stack(rhs)
        base = (t[i] / t[i - 1]).float() * x - phi1.float() * m[0]
        d = [(mk - m[0]) / rk.float() for mk, rk in zip(m[1:], r[:-1])]
        if p == 1:
            predicted = base
        else:
            rho = [torch.tensor(0.5)] if p == 2 else torch.linalg.solve(rows[:-1, :-1], rhs[:-1])
            predicted = base - z.float() * sum(c.float() * v for c, v in zip(rho, d))
        if i == n:
            return predicted
        rho = [torch.tensor(0.5)] if p == 1 else torch.linalg.solve(rows, rhs)
        new = evaluate(net, predicted, e[i], remat)
        x = base - z.float() * (sum((c.float() * v for c, v in zip(rho, d)), rho[-1].float() * (new - m[0])))
        m = [new] + m[:2]


SOLVERS = {'ipndm': ipndm, 'unipc': unipc}
