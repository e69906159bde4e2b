// Rows of attention: a block for each. Products with matrices are cuBLAS's.

// the sum (or largest) of ROW_THREADS values in `part`, left in part[0]
#define REDUCE(part, join)                                                                                            \
    for (int width = ROW_THREADS / 2; width > 0; width /= 2) THREADS(t) {                                              \
        if (t < width) {                                                                                              \
            const float a = part[t], b = part[t + width];                                                             \
            part[t] = join;                                                                                           \
        }                                                                                                             \
    }

// p = softmax(scale · s) by row of [rows, n]: into s itself, and into `out` in T. The first of every `per` rows has `seen` entries
// that count, and where it is causal each following row one more; the others become 0.
KERNEL(softmax, float *s, T *out, int n, float scale, int per, int seen, int causal) {
    SHARED float part[ROW_THREADS];
    const int valid = causal ? min(n, seen + (int)(blockIdx.x % per)) : n;
    float *row = s + (size_t)blockIdx.x * n;
    T *to = out + (size_t)blockIdx.x * n;
    THREADS(t) {
        float top = -INFINITY;
        for (int i = t; i < valid; i += ROW_THREADS) top = fmaxf(top, row[i]);
        part[t] = top;
    }
    REDUCE(part, fmaxf(a, b))
    SHARED float top;
    THREADS(t) {
        if (t == 0) top = part[0];
    }
    THREADS(t) {
        float sum = 0;
        for (int i = t; i < n; i += ROW_THREADS) {
            row[i] = i < valid ? expf((row[i] - top) * scale) : 0.0f;
            sum += row[i];
        }
        part[t] = sum;
    }
    REDUCE(part, a + b)
    THREADS(t) {
        for (int i = t; i < n; i += ROW_THREADS) {
            const float p = row[i] / part[0];
            row[i] = p;
            put(to + i, p);
        }
    }
}

// s̄ = p ∘ (p̄ − ⟨p, p̄⟩) · scale by row: into `out`, which may be p̄ itself
KERNEL(softmax_pull, const float *p, const float *p_bar, T *out, int n, float scale) {
    SHARED float part[ROW_THREADS];
    const float *row = p + (size_t)blockIdx.x * n, *bar = p_bar + (size_t)blockIdx.x * n;
    T *to = out + (size_t)blockIdx.x * n;
    THREADS(t) {
        float sum = 0;
        for (int i = t; i < n; i += ROW_THREADS) sum += row[i] * bar[i];
        part[t] = sum;
    }
    REDUCE(part, a + b)
    THREADS(t) {
        for (int i = t; i < n; i += ROW_THREADS) put(to + i, row[i] * (bar[i] - part[0]) * scale);
    }
}
