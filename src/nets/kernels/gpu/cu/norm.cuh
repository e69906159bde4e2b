// Group norm over [B, pixels, C], with the embedding and SiLU: statistics of each channel over pieces of the image, joined
// in a fixed order, and then one pass that needs no more than these.

// how the embedding enters: as `Modulation` in norm.rs
enum { PLAIN = 0, ADD = 1, SCALE_SHIFT = 2 };

// mean and Σ (x − mean)² of a channel over one piece of `size` pixels: part [B, pieces, C, 2]
KERNEL(norm_sums, int n, const T *x, float *part, int c, int pixels, int size, int pieces) {
    EACH(i, n) {
        const int ch = i % c, piece = i / c % pieces, b = i / c / pieces;
        const int first = piece * size, end = min(first + size, pixels);
        const T *at = x + ((size_t)b * pixels + first) * c + ch;
        float mean = 0, squares = 0;
        for (int p = first; p < end; p++) mean += wide(at[(size_t)(p - first) * c]);
        mean /= end - first;
        for (int p = first; p < end; p++) {
            const float d = wide(at[(size_t)(p - first) * c]) - mean;
            squares += d * d;
        }
        part[2 * (size_t)i] = mean;
        part[2 * (size_t)i + 1] = squares;
    }
}

// the same over all pixels: channels [B, C, 2]
KERNEL(norm_channels, int n, const float *part, float *channels, int c, int pixels, int size, int pieces) {
    EACH(i, n) {
        const int ch = i % c, b = i / c;
        float mean = 0, squares = 0;
        int seen = 0;
        for (int p = 0; p < pieces; p++) {
            const float *at = part + 2 * (((size_t)b * pieces + p) * c + ch);
            const int more = min(size, pixels - seen);
            const float d = at[0] - mean, share = (float)more / (seen + more);
            mean += d * share;
            squares += at[1] + d * d * seen * share;
            seen += more;
        }
        channels[2 * (size_t)i] = mean;
        channels[2 * (size_t)i + 1] = squares;
    }
}

// of one channel of one sample: n = (x − mean) · rstd, u = n · a + k
struct Norm {
    float mean, rstd, a, k;
};

// a and k of a channel
DEVICE void affine_of(const float *e, const float *gamma, const float *beta, int b, int ch, int c, int mode, Norm *out) {
    out->a = gamma[ch];
    out->k = beta[ch];
    if (mode == SCALE_SHIFT) {
        const float s = 1.0f + e[(size_t)b * 2 * c + ch];
        out->a *= s;
        out->k = out->k * s + e[(size_t)b * 2 * c + c + ch];
    }
}

DEVICE Norm norm_of(const float *channels, const float *e, const float *gamma, const float *beta, int b, int ch, int c,
                    int per, int pixels, int mode, float eps) {
    const int first = ch / per * per;
    const float *stats = channels + 2 * (size_t)b * c;
    const float *add = e + (size_t)b * c;
    float mean = 0, squares = 0;
    for (int j = first; j < first + per; j++) mean += stats[2 * j] + (mode == ADD ? add[j] : 0.0f);
    mean /= per;
    for (int j = first; j < first + per; j++) {
        const float d = stats[2 * j] + (mode == ADD ? add[j] : 0.0f) - mean;
        squares += stats[2 * j + 1] + pixels * d * d;
    }
    Norm out;
    out.mean = mean - (mode == ADD ? add[ch] : 0.0f);
    out.rstd = 1.0f / sqrtf(squares / ((float)pixels * per) + eps);
    affine_of(e, gamma, beta, b, ch, c, mode, &out);
    return out;
}

KERNEL(norm_apply, int n, const T *x, const float *channels, const float *e, const float *gamma, const float *beta, T *out,
       int c, int per, int pixels, int size, int pieces, int mode, int silu, float eps) {
    EACH(i, n) {
        const int ch = i % c, piece = i / c % pieces, b = i / c / pieces;
        const Norm v = norm_of(channels, e, gamma, beta, b, ch, c, per, pixels, mode, eps);
        const int first = piece * size, end = min(first + size, pixels);
        const size_t at = ((size_t)b * pixels + first) * c + ch;
        for (int p = 0; p < end - first; p++) {
            const float u = (wide(x[at + (size_t)p * c]) - v.mean) * v.rstd * v.a + v.k;
            put(out + at + (size_t)p * c, silu ? silu_of(u) : u);
        }
    }
}

// ū, the cotangent before SiLU
DEVICE float before_silu(float n, float cot, Norm v, int silu) {
    return silu ? cot * silu_slope(n * v.a + v.k) : cot;
}

// Σ ū and Σ ū n of a channel over one piece: part [B, pieces, C, 2]
KERNEL(norm_pull_sums, int n, const T *x, const T *cot, const float *channels, const float *e, const float *gamma,
       const float *beta, float *part, int c, int per, int pixels, int size, int pieces, int mode, int silu, float eps) {
    EACH(i, n) {
        const int ch = i % c, piece = i / c % pieces, b = i / c / pieces;
        const Norm v = norm_of(channels, e, gamma, beta, b, ch, c, per, pixels, mode, eps);
        const int first = piece * size, end = min(first + size, pixels);
        const size_t at = ((size_t)b * pixels + first) * c + ch;
        float sum = 0, product = 0;
        for (int p = 0; p < end - first; p++) {
            const float m = (wide(x[at + (size_t)p * c]) - v.mean) * v.rstd;
            const float u = before_silu(m, wide(cot[at + (size_t)p * c]), v, silu);
            sum += u;
            product += u * m;
        }
        part[2 * (size_t)i] = sum;
        part[2 * (size_t)i + 1] = product;
    }
}

// the same over all pixels: sums [B, C, 2]
KERNEL(norm_pull_channels, int n, const float *part, float *sums, int c, int pieces) {
    EACH(i, n) {
        const int ch = i % c, b = i / c;
        float sum = 0, product = 0;
        for (int p = 0; p < pieces; p++) {
            const float *at = part + 2 * (((size_t)b * pieces + p) * c + ch);
            sum += at[0];
            product += at[1];
        }
        sums[2 * (size_t)i] = sum;
        sums[2 * (size_t)i + 1] = product;
    }
}

// x̄ = rstd · (a ū − mean(a ū) − n · mean(a ū n)), means over the group; the embedding's gradient comes from the sums
KERNEL(norm_pull_apply, int n, const T *x, const T *cot, const float *channels, const float *sums, const float *e,
       const float *gamma, const float *beta, T *grad, float *e_grad, int c, int per, int pixels, int size, int pieces,
       int mode, int silu, float eps) {
    EACH(i, n) {
        const int ch = i % c, piece = i / c % pieces, b = i / c / pieces;
        const Norm v = norm_of(channels, e, gamma, beta, b, ch, c, per, pixels, mode, eps);
        const float *both = sums + 2 * (size_t)b * c;
        float m1 = 0, m2 = 0;
        for (int j = ch / per * per; j < ch / per * per + per; j++) {
            Norm w;
            affine_of(e, gamma, beta, b, j, c, mode, &w);
            m1 += w.a * both[2 * j];
            m2 += w.a * both[2 * j + 1];
        }
        m1 /= (float)pixels * per;
        m2 /= (float)pixels * per;
        const int first = piece * size, end = min(first + size, pixels);
        const size_t at = ((size_t)b * pixels + first) * c + ch;
        for (int p = 0; p < end - first; p++) {
            const float m = (wide(x[at + (size_t)p * c]) - v.mean) * v.rstd;
            const float u = before_silu(m, wide(cot[at + (size_t)p * c]), v, silu);
            put(grad + at + (size_t)p * c, v.rstd * (v.a * u - m1 - m * m2));
        }
        if (piece == 0 && mode == ADD) {
            const float all = pixels * (channels[2 * ((size_t)b * c + ch)] - v.mean) * v.rstd;
            e_grad[(size_t)b * c + ch] = v.rstd * (v.a * both[2 * ch] - pixels * m1 - m2 * all);
        }
        if (piece == 0 && mode == SCALE_SHIFT) {
            e_grad[(size_t)b * 2 * c + ch] = gamma[ch] * both[2 * ch + 1] + beta[ch] * both[2 * ch];
            e_grad[(size_t)b * 2 * c + c + ch] = both[2 * ch];
        }
    }
}
