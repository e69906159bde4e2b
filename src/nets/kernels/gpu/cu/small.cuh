// The small operations between the large ones.

KERNEL(widen, int n, const T *x, float *out) {
    EACH(i, n) { out[i] = wide(x[i]); }
}

KERNEL(narrow, int n, const float *x, T *out) {
    EACH(i, n) { put(out + i, x[i]); }
}

KERNEL(add_scale, int n, const T *a, const T *b, T *out, float s) {
    EACH(i, n) { put(out + i, (wide(a[i]) + wide(b[i])) * s); }
}

KERNEL(scale, int n, const T *a, T *out, float s) {
    EACH(i, n) { put(out + i, wide(a[i]) * s); }
}

KERNEL(silu, int n, const T *x, T *out) {
    EACH(i, n) { put(out + i, silu_of(wide(x[i]))); }
}

KERNEL(silu_pull, int n, const T *x, const T *cot, T *out) {
    EACH(i, n) { put(out + i, wide(cot[i]) * silu_slope(wide(x[i]))); }
}

// x Φ(x) with the normal distribution's Φ, or x · sigmoid(1.702 x)
DEVICE float gelu_of(float v, int quick) { return quick ? v * sigmoid(1.702f * v) : 0.5f * v * erfcf(-0.70710678f * v); }
DEVICE float gelu_slope(float v, int quick) {
    if (quick) {
        const float s = sigmoid(1.702f * v);
        return s * (1.0f + 1.702f * v * (1.0f - s));
    }
    return 0.5f * erfcf(-0.70710678f * v) + 0.39894228f * v * expf(-0.5f * v * v);
}

KERNEL(gelu, int n, const T *x, T *out, int quick) {
    EACH(i, n) { put(out + i, gelu_of(wide(x[i]), quick)); }
}

KERNEL(gelu_pull, int n, const T *x, const T *cot, T *out, int quick) {
    EACH(i, n) { put(out + i, wide(cot[i]) * gelu_slope(wide(x[i]), quick)); }
}

// out [.., c] = x [.., 0..c] · gelu(x [.., c..2c])
KERNEL(geglu, int n, const T *x, T *out, int c) {
    EACH(i, n) {
        const T *at = x + (size_t)(i / c) * 2 * c + i % c;
        put(out + i, wide(at[0]) * gelu_of(wide(at[c]), 0));
    }
}

KERNEL(geglu_pull, int n, const T *x, const T *cot, T *grad, int c) {
    EACH(i, n) {
        const size_t at = (size_t)(i / c) * 2 * c + i % c;
        const float value = wide(x[at]), gate = wide(x[at + c]), y = wide(cot[i]);
        put(grad + at, y * gelu_of(gate, 0));
        put(grad + at + c, y * value * gelu_slope(gate, 0));
    }
}

// NaN stays NaN
KERNEL(relu, int n, const T *x, T *out) {
    EACH(i, n) { put(out + i, wide(x[i]) < 0.0f ? 0.0f : wide(x[i])); }
}

KERNEL(relu_pull, int n, const T *x, const T *cot, T *out) {
    EACH(i, n) { put(out + i, wide(x[i]) <= 0.0f ? 0.0f : wide(cot[i])); }
}

// `cols` columns of rows of `from_width`, starting at `from_at`, into rows of `to_width`, starting at `to_at`
KERNEL(columns, int n, const T *from, T *to, int cols, int from_width, int from_at, int to_width, int to_at) {
    EACH(i, n) {
        const size_t row = i / cols, col = i % cols;
        to[row * to_width + to_at + col] = from[row * from_width + from_at + col];
    }
}

// out [.., 2h, 2w, c] = s · the pixel of x [.., h, w, c] that covers it; n counts out
KERNEL(spread, int n, const T *x, T *out, int w, int c, float s) {
    EACH(i, n) {
        const int ch = i % c, col = i / c % (2 * w), row = i / c / (2 * w);
        put(out + i, s * wide(x[((size_t)(row / 2) * w + col / 2) * c + ch]));
    }
}

// out [.., h, w, c] = s · the sum of the four pixels of x [.., 2h, 2w, c] that it covers; n counts out
KERNEL(gather, int n, const T *x, T *out, int w, int c, float s) {
    EACH(i, n) {
        const int ch = i % c, col = i / c % w, row = i / c / w;
        const T *at = x + ((size_t)2 * row * 2 * w + 2 * col) * c + ch;
        const T *below = at + (size_t)2 * w * c;
        put(out + i, s * ((wide(at[0]) + wide(at[c])) + (wide(below[0]) + wide(below[c]))));
    }
}

// where tap k of entry i of the result reads, or −1: as `Axis::source` in resample.rs
DEVICE int filtered(int i, int k, int n, int pad, int up) {
    const int at = up ? i + pad - k : 2 * i + k - pad;
    if (at < 0 || (up && at % 2)) return -1;
    const int j = up ? at / 2 : at;
    return j < n ? j : -1;
}

// both axes of x [B, h, w, c] → out [B, oh, ow, c]
KERNEL(resample, int n, const T *x, const float *taps, T *out, int h, int w, int c, int oh, int ow, int count, int pad,
       int up) {
    EACH(i, n) {
        const int ch = i % c, col = i / c % ow, row = i / c / ow % oh, b = i / c / ow / oh;
        float sum = 0;
        for (int ky = 0; ky < count; ky++) {
            const int y = filtered(row, ky, h, pad, up);
            if (y < 0) continue;
            float line = 0;
            for (int kx = 0; kx < count; kx++) {
                const int xx = filtered(col, kx, w, pad, up);
                if (xx >= 0) line += taps[kx] * wide(x[(((size_t)b * h + y) * w + xx) * c + ch]);
            }
            sum += taps[ky] * line;
        }
        put(out + i, sum);
    }
}

// out [B, oh, ow, c]: the part of x [B, h, w, c] that starts at (by, by), zero outside
KERNEL(window, int n, const T *x, T *out, int h, int w, int c, int oh, int ow, int by) {
    EACH(i, n) {
        const int ch = i % c, xx = (int)(i / c % ow) + by, y = (int)(i / c / ow % oh) + by, b = i / c / ow / oh;
        if (y < 0 || y >= h || xx < 0 || xx >= w)
            put(out + i, 0.0f);
        else
            out[i] = x[(((size_t)b * h + y) * w + xx) * c + ch];
    }
}

// out [rows, c] = map[ch] · x[.., ch] + map[c + ch], of a single channel of x where `from` is 1
KERNEL(affine, int n, const T *x, const float *map, T *out, int c, int from) {
    EACH(i, n) {
        const int ch = i % c, row = i / c;
        put(out + i, map[ch] * wide(x[from == 1 ? (size_t)row : (size_t)i]) + map[c + ch]);
    }
}

// n counts x [rows, from]
KERNEL(affine_pull, int n, const T *cot, const float *map, T *grad, int c, int from) {
    EACH(i, n) {
        if (from == 1) {
            float sum = 0;
            for (int ch = 0; ch < c; ch++) sum += map[ch] * wide(cot[(size_t)i * c + ch]);
            put(grad + i, sum);
        } else {
            put(grad + i, map[i % c] * wide(cot[i]));
        }
    }
}

// A frequency as the sum of two floats: angles reach thousands, so their products are taken in double.
DEVICE double frequency(const float *f, int i, int count) { return (double)f[i] + (double)f[count + i]; }

// out [B, 2 · count]: sines from column `s`, cosines from column `k` on; n counts B · count
KERNEL(waves, int n, const T *level, const float *f, T *out, int count, int s, int k) {
    EACH(i, n) {
        const int j = i % count, b = i / count;
        const double angle = (double)wide(level[b]) * frequency(f, j, count);
        put(out + (size_t)b * 2 * count + s + j, (float)sin(angle));
        put(out + (size_t)b * 2 * count + k + j, (float)cos(angle));
    }
}

KERNEL(waves_pull, int n, const T *level, const float *f, const T *cot, T *grad, int count, int s, int k) {
    EACH(b, n) {
        const T *g = cot + (size_t)b * 2 * count;
        double sum = 0;
        for (int j = 0; j < count; j++) {
            const double by = frequency(f, j, count), angle = (double)wide(level[b]) * by;
            sum += by * (wide(g[s + j]) * cos(angle) - wide(g[k + j]) * sin(angle));
        }
        put(grad + b, (float)sum);
    }
}

// the pixel of the largest value of a window of x [B, h, w, c]: the first of equal ones, NaN before all
DEVICE int largest(const T *x, int b, int oy, int ox, int ch, int h, int w, int c, int size, int stride) {
    int best = -1;
    float top = 0;
    for (int y = oy * stride; y < min(oy * stride + size, h); y++) {
        for (int xx = ox * stride; xx < min(ox * stride + size, w); xx++) {
            const int pixel = (b * h + y) * w + xx;
            const float v = wide(x[(size_t)pixel * c + ch]);
            if (best < 0 || v > top || v != v) {
                best = pixel;
                top = v;
            }
        }
    }
    return best;
}

KERNEL(maxpool, int n, const T *x, T *out, int h, int w, int c, int oh, int ow, int size, int stride) {
    EACH(i, n) {
        const int ch = i % c, ox = i / c % ow, oy = i / c / ow % oh, b = i / c / ow / oh;
        out[i] = x[(size_t)largest(x, b, oy, ox, ch, h, w, c, size, stride) * c + ch];
    }
}

// a pixel collects from the windows in which it is the largest; n counts x
KERNEL(maxpool_pull, int n, const T *x, const T *cot, T *grad, int h, int w, int c, int oh, int ow, int size, int stride) {
    EACH(i, n) {
        const int ch = i % c, xx = i / c % w, y = i / c / w % h, b = i / c / w / h;
        float sum = 0;
        for (int oy = max(0, y - size + stride) / stride; oy < oh && oy * stride <= y; oy++) {
            for (int ox = max(0, xx - size + stride) / stride; ox < ow && ox * stride <= xx; ox++) {
                if (largest(x, b, oy, ox, ch, h, w, c, size, stride) == (b * h + y) * w + xx)
                    sum += wide(cot[(((size_t)b * oh + oy) * ow + ox) * c + ch]);
            }
        }
        put(grad + i, sum);
    }
}
