"""The peer: DDPM++ with EDM preconditioning in PyTorch, frozen, written for speed on a CPU.

Written from the description in Karras et al. 2022 (table 1 and appendix F), with the parameter names that EDM checkpoints
use. Tuned before it is timed: weights frozen, channels_last (faster than NCHW for every size here), fused attention
(`scaled_dot_product_attention`), no dropout, no autograd bookkeeping of weights."""
import math

import torch
import torch.nn.functional as F

EPS = 1e-6


def norm(w, name, x):
    groups = min(32, x.shape[1] // 4)
    return F.group_norm(x, groups, w[name + '.weight'], w[name + '.bias'], EPS)


def conv(w, name, x):
    k = w[name + '.weight']
    return F.conv2d(x, k, w[name + '.bias'], padding=k.shape[2] // 2)


def linear(w, name, x):
    return F.linear(x, w[name + '.weight'], w[name + '.bias'])


def block(w, name, x, emb, up, down, attention):
    skip = x
    h = F.silu(norm(w, name + '.norm0', x))
    if up:
        h, skip = (F.interpolate(v, scale_factor=2, mode='nearest') for v in (h, skip))
    if down:
        h, skip = F.avg_pool2d(h, 2), F.avg_pool2d(skip, 2)
    h = conv(w, name + '.conv0', h)
    h = F.silu(norm(w, name + '.norm1', h + linear(w, name + '.affine', emb)[:, :, None, None]))
    h = conv(w, name + '.conv1', h)
    if name + '.skip.weight' in w:
        skip = conv(w, name + '.skip', skip)
    h = (h + skip) * math.sqrt(0.5)
    if attention:
        b, c, height, width = h.shape
        qkv = conv(w, name + '.qkv', norm(w, name + '.norm2', h))
        q, k, v = qkv.reshape(b, 1, c, 3, height * width).transpose(2, 4).unbind(3)
        a = F.scaled_dot_product_attention(q, k, v)
        a = a.transpose(2, 3).reshape(b, c, height, width).contiguous(memory_format=torch.channels_last)
        h = (conv(w, name + '.proj', a) + h) * math.sqrt(0.5)
    return h


class Net:
    """F(x, c_noise) of a checkpoint: `weights` by name, `config` as in its metadata."""

    def __init__(self, weights, config, channels_last=True):
        def place(t):
            return t.contiguous(memory_format=torch.channels_last) if channels_last and t.dim() == 4 else t

        self.w = {k.removeprefix('model.'): place(v).requires_grad_(False) for k, v in weights.items()}
        self.channels_last, self.sd = channels_last, config.get('sigma_data', 0.5)
        self.res, self.mc = config['img_resolution'], config.get('model_channels', 128)
        self.mult, self.blocks = config.get('channel_mult', [1, 2, 2, 2]), config.get('num_blocks', 4)
        self.attn, self.channels = config.get('attn_resolutions', [16]), config['img_channels']
        self.label_dim = config.get('label_dim', 0)

    def __call__(self, x, c_noise):
        w, half = self.w, self.mc // 2
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        freqs = (1 / 10000) ** (torch.arange(half, dtype=torch.float32) / (half - 1))
        e = torch.outer(c_noise, freqs)
        e = torch.cat([e.sin(), e.cos()], 1)
        if self.label_dim:
            e = e + linear(w, 'map_label', torch.zeros(x.shape[0], self.label_dim))
        emb = F.silu(linear(w, 'map_layer1', F.silu(linear(w, 'map_layer0', e))))
        x = conv(w, f'enc.{self.res}x{self.res}_conv', x)
        skips = [x]
        for level, _ in enumerate(self.mult):
            r = self.res >> level
            if level:
                x = block(w, f'enc.{r}x{r}_down', x, emb, False, True, False)
                skips.append(x)
            for i in range(self.blocks):
                x = block(w, f'enc.{r}x{r}_block{i}', x, emb, False, False, r in self.attn)
                skips.append(x)
        for level in reversed(range(len(self.mult))):
            r = self.res >> level
            if level == len(self.mult) - 1:
                x = block(w, f'dec.{r}x{r}_in0', x, emb, False, False, True)
                x = block(w, f'dec.{r}x{r}_in1', x, emb, False, False, False)
            else:
                x = block(w, f'dec.{r}x{r}_up', x, emb, True, False, False)
            for i in range(self.blocks + 1):
                x = torch.cat([x, skips.pop()], 1)
                x = block(w, f'dec.{r}x{r}_block{i}', x, emb, False, False, i == self.blocks and r in self.attn)
        r = self.res
        return conv(w, f'dec.{r}x{r}_aux_conv', F.silu(norm(w, f'dec.{r}x{r}_aux_norm', x)))

    def denoise(self, x, sigma):
        """D(x; σ) for a scalar σ."""
        total = sigma ** 2 + self.sd ** 2
        f = self((x / total.sqrt()).float(), (sigma.log() / 4).float().expand(x.shape[0]))
        return (self.sd ** 2 / total) * x + (sigma * self.sd / total.sqrt()) * f


def random_weights(config, seed=0):
    """Weights of a network of `config`'s size, by EDM's names."""
    g = torch.Generator().manual_seed(seed)
    w, mc = {}, config.get('model_channels', 128)
    mult, blocks = config.get('channel_mult', [1, 2, 2, 2]), config.get('num_blocks', 4)
    attn, emb = config.get('attn_resolutions', [16]), mc * 4
    res = config['img_resolution']

    def layer(name, *shape):
        fan = math.prod(shape[1:])
        w[name + '.weight'] = torch.randn(shape, generator=g) / math.sqrt(fan)
        w[name + '.bias'] = torch.randn(shape[0], generator=g) * 0.1

    def gn(name, c):
        w[name + '.weight'] = 1 + 0.1 * torch.randn(c, generator=g)
        w[name + '.bias'] = 0.1 * torch.randn(c, generator=g)

    def res_block(name, i, o, resample=False, attention=False):
        gn(name + '.norm0', i)
        layer(name + '.conv0', o, i, 3, 3)
        layer(name + '.affine', o, emb)
        gn(name + '.norm1', o)
        layer(name + '.conv1', o, o, 3, 3)
        if i != o or resample:
            layer(name + '.skip', o, i, 1, 1)
        if resample:
            for part in ('conv0', 'skip'):
                w[f'{name}.{part}.resample_filter'] = torch.full((1, 1, 2, 2), 0.25)
        if attention:
            gn(name + '.norm2', o)
            layer(name + '.qkv', 3 * o, o, 1, 1)
            layer(name + '.proj', o, o, 1, 1)

    if config.get('augment_dim'):
        w['map_augment.weight'] = torch.randn((mc, config['augment_dim']), generator=g)
    layer('map_layer0', emb, mc)
    layer('map_layer1', emb, emb)
    layer(f'enc.{res}x{res}_conv', mc, config['img_channels'], 3, 3)
    c, skips = mc, [mc]
    for level, m in enumerate(mult):
        r = res >> level
        if level:
            res_block(f'enc.{r}x{r}_down', c, c, resample=True)
            skips.append(c)
        for i in range(blocks):
            res_block(f'enc.{r}x{r}_block{i}', c, mc * m, attention=r in attn)
            c = mc * m
            skips.append(c)
    for level in reversed(range(len(mult))):
        r = res >> level
        if level == len(mult) - 1:
            res_block(f'dec.{r}x{r}_in0', c, c, attention=True)
            res_block(f'dec.{r}x{r}_in1', c, c)
        else:
            res_block(f'dec.{r}x{r}_up', c, c, resample=True)
        for i in range(blocks + 1):
            res_block(f'dec.{r}x{r}_block{i}', c + skips.pop(), mc * mult[level], attention=i == blocks and r in attn)
            c = mc * mult[level]
    gn(f'dec.{res}x{res}_aux_norm', c)
    layer(f'dec.{res}x{res}_aux_conv', config['img_channels'], c, 3, 3)
    return {'model.' + k: v for k, v in w.items()}
