// Layer norm over rows of c values, a block of threads for each.

// the mean of a row and 1 / its deviation, left in mean and rstd; `part` is shared
#define MOMENTS(row, c, eps, part, mean, rstd)                                                                         \
    SHARED float mean, rstd;                                                                                           \
    THREADS(t) {                                                                                                       \
        float sum = 0;                                                                                                 \
        for (int i = t; i < c; i += ROW_THREADS) sum += wide(row[i]);                                                  \
        part[t] = sum;                                                                                                 \
    }                                                                                                                  \
    REDUCE(part, a + b)                                                                                                \
    THREADS(t) {                                                                                                       \
        if (t == 0) mean = part[0] / c;                                                                                \
    }                                                                                                                  \
    THREADS(t) {                                                                                                       \
        float sum = 0;                                                                                                 \
        for (int i = t; i < c; i += ROW_THREADS) sum += (wide(row[i]) - mean) * (wide(row[i]) - mean);                 \
        part[t] = sum;                                                                                                 \
    }                                                                                                                  \
    REDUCE(part, a + b)                                                                                                \
    THREADS(t) {                                                                                                       \
        if (t == 0) rstd = 1.0f / sqrtf(part[0] / c + eps);                                                            \
    }

KERNEL(layer_norm, const T *x, const float *gamma, const float *beta, T *out, int c, float eps) {
    SHARED float part[ROW_THREADS];
    const T *row = x + (size_t)blockIdx.x * c;
    T *to = out + (size_t)blockIdx.x * c;
    MOMENTS(row, c, eps, part, mean, rstd)
    THREADS(t) {
        for (int i = t; i < c; i += ROW_THREADS) put(to + i, (wide(row[i]) - mean) * rstd * gamma[i] + beta[i]);
    }
}

// x̄ = rstd · (γ ȳ − mean(γ ȳ) − n · mean(γ ȳ n)), n = (x − mean) · rstd
KERNEL(layer_norm_pull, const T *x, const T *cot, const float *gamma, T *grad, int c, float eps) {
    SHARED float part[ROW_THREADS];
    const T *row = x + (size_t)blockIdx.x * c, *bar = cot + (size_t)blockIdx.x * c;
    T *to = grad + (size_t)blockIdx.x * c;
    MOMENTS(row, c, eps, part, mean, rstd)
    SHARED float m1, m2;
    THREADS(t) {
        float sum = 0;
        for (int i = t; i < c; i += ROW_THREADS) sum += wide(bar[i]) * gamma[i];
        part[t] = sum;
    }
    REDUCE(part, a + b)
    THREADS(t) {
        if (t == 0) m1 = part[0] / c;
    }
    THREADS(t) {
        float sum = 0;
        for (int i = t; i < c; i += ROW_THREADS) sum += wide(bar[i]) * gamma[i] * (wide(row[i]) - mean) * rstd;
        part[t] = sum;
    }
    REDUCE(part, a + b)
    THREADS(t) {
        if (t == 0) m2 = part[0] / c;
    }
    THREADS(t) {
        for (int i = t; i < c; i += ROW_THREADS)
            put(to + i, rstd * (wide(bar[i]) * gamma[i] - m1 - (wide(row[i]) - mean) * rstd * m2));
    }
}
