"""The networks of latent diffusion, small, with CompVis's names: a KL first stage and a U-Net at one resolution with classes as context."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

GROUPS = 4
HEADS = 4


def norm(channels, eps):
    return nn.GroupNorm(GROUPS, channels, eps)


def conv(a, b, window=3):
    return nn.Conv2d(a, b, window, padding=window // 2)


# the first stage


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = norm(a, 1e-6), conv(a, b)
        self.norm2, self.conv2 = norm(b, 1e-6), conv(b, b)
        if a != b:
            self.nin_shortcut = conv(a, b, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = norm(c, 1e-6)
        self.q, self.k, self.v, self.proj_out = (conv(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = Block(c, c), Attention(c), Block(c, c)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Resample(nn.Module):
    def __init__(self, c, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(c, c, 3, stride=2) if down else conv(c, c)

    def forward(self, x):
        # downwards with zeros to the right and below only
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.block = nn.ModuleList(Block(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for block in self.block:
            x = block(x)
        return x


class Encoder(nn.Module):
    def __init__(self, ch, mult, blocks, z):
        super().__init__()
        self.conv_in, self.down, c = conv(1, ch), nn.ModuleList(), ch
        for i, m in enumerate(mult):
            level = Level([c] + [ch * m] * blocks)
            c = ch * m
            if i + 1 < len(mult):
                level.downsample = Resample(c, True)
            self.down.append(level)
        self.mid, self.norm_out, self.conv_out = Middle(c), norm(c, 1e-6), conv(c, 2 * z)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
            h = level.downsample(h) if hasattr(level, "downsample") else h
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    def __init__(self, ch, mult, blocks, z):
        super().__init__()
        c = ch * mult[-1]
        self.conv_in, self.mid, levels = conv(z, c), Middle(c), []
        for i in reversed(range(len(mult))):
            level = Level([c] + [ch * mult[i]] * blocks)
            c = ch * mult[i]
            if i > 0:
                level.upsample = Resample(c, False)
            levels.append(level)
        # counted from the highest resolution
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out, self.conv_out = norm(c, 1e-6), conv(c, 1)

    def forward(self, z):
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
            h = level.upsample(h) if hasattr(level, "upsample") else h
        return self.conv_out(F.silu(self.norm_out(h)))


class Stage(nn.Module):
    """28×28 garments to 4×7×7 latents and back; `moments` are mean and log variance."""

    def __init__(self, ch=8, mult=(1, 3, 6), blocks=1, z=4):
        super().__init__()
        self.encoder, self.decoder = Encoder(ch, mult, blocks, z), Decoder(ch, mult, blocks, z)
        self.quant_conv, self.post_quant_conv = conv(2 * z, 2 * z, 1), conv(z, z, 1)

    def moments(self, x):
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


# the denoiser


def waves(t, width):
    """cos first, then sin; frequencies in f64, as their rounding is seen in gradients at t = 1000."""
    freqs = torch.exp(-math.log(10000.0) * torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = t.double()[:, None] * freqs
    return torch.cat([angles.cos(), angles.sin()], 1).to(t.dtype)


class Residual(nn.Module):
    def __init__(self, a, b, emb):
        super().__init__()
        self.in_layers = nn.Sequential(norm(a, 1e-5), nn.SiLU(), conv(a, b))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, b))
        self.out_layers = nn.Sequential(norm(b, 1e-5), nn.SiLU(), nn.Identity(), conv(b, b))
        if a != b:
            self.skip_connection = conv(a, b, 1)

    def forward(self, x, emb, context):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return (self.skip_connection(x) if hasattr(self, "skip_connection") else x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, c, context):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(n, c, bias=False) for n in (c, context, context))
        self.to_out = nn.Sequential(nn.Linear(c, c))

    def forward(self, x, to):
        heads = lambda h: h.unflatten(2, (HEADS, -1)).transpose(1, 2)
        h = F.scaled_dot_product_attention(heads(self.to_q(x)), heads(self.to_k(to)), heads(self.to_v(to)))
        return self.to_out(h.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self, c, inner):
        super().__init__()
        self.proj = nn.Linear(c, 2 * inner)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class Feed(nn.Module):
    def __init__(self, c, inner):
        super().__init__()
        self.net = nn.Sequential(Gated(c, inner), nn.Identity(), nn.Linear(inner, c))

    def forward(self, x):
        return self.net(x)


class Layer(nn.Module):
    def __init__(self, c, context):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c) for _ in range(3))
        self.attn1, self.attn2, self.ff = CrossAttention(c, c), CrossAttention(c, context), Feed(c, 2 * c)

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, c, context):
        super().__init__()
        self.norm, self.proj_in, self.proj_out = norm(c, 1e-6), conv(c, c, 1), conv(c, c, 1)
        self.transformer_blocks = nn.ModuleList([Layer(c, context)])

    def forward(self, x, emb, context):
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        h = self.transformer_blocks[0](h, context)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class First(nn.Conv2d):
    def forward(self, x, emb, context):
        return super().forward(x)


class Group(nn.ModuleList):
    def forward(self, x, emb, context):
        for layer in self:
            x = layer(x, emb, context)
        return x


class Unet(nn.Module):
    """The network of a denoiser of latents [B, z, 7, 7] at time `t`, the training step, for labels 0 … 9, or 10 for none."""

    def __init__(self, c=32, z=4, classes=10, width=32):
        super().__init__()
        emb = 4 * c
        self.c, self.embedding = c, nn.Embedding(classes + 1, width)
        self.time_embed = nn.Sequential(nn.Linear(c, emb), nn.SiLU(), nn.Linear(emb, emb))
        block = lambda n: Residual(n, c, emb)
        self.input_blocks = nn.ModuleList([
            Group([First(z, c, 3, padding=1)]), Group([block(c), Transformer(c, width)]),
        ])
        self.middle_block = Group([block(c), Transformer(c, width), block(c)])
        self.output_blocks = nn.ModuleList([Group([block(2 * c), Transformer(c, width)]), Group([block(2 * c)])])
        self.out = nn.Sequential(norm(c, 1e-5), nn.SiLU(), conv(c, z))
        nn.init.zeros_(self.out[2].weight)

    def forward(self, x, t, label):
        emb, context = self.time_embed(waves(t, self.c)), self.embedding(label)[:, None]
        h, kept = x, []
        for group in self.input_blocks:
            h = group(h, emb, context)
            kept.append(h)
        h = self.middle_block(h, emb, context)
        for group in self.output_blocks:
            h = group(torch.cat([h, kept.pop()], 1), emb, context)
        return self.out(h)
