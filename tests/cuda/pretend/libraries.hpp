// cuBLAS, cuRAND and cuDNN: what is asked of them here, by plain loops that sum in f32 (f64 for doubles).
#pragma once
#include "elements.hpp"
#include "machine.hpp"
#include <vector>

// statuses of cuBLAS and cuDNN
enum { BLAS_INVALID = 7, BLAS_FAILED = 13, DNN_BAD_PARAM = 3000, DNN_FAILED = 5000 };

// ---- cuBLAS

struct Blas {
    void *stream = nullptr;
    int math_mode = 0;
};

// the types that cuBLAS and cuDNN number so
static Type blas_type(int t) { return t == 0 ? F32 : t == 2 ? F16 : t == 14 ? BF16 : t == 1 ? F64 : NONE; }
static Type dnn_type(int t) { return t == 0 ? F32 : t == 2 ? F16 : t == 9 ? BF16 : NONE; }

template <class S> static std::vector<S> values(const void *p, Type t, size_t from, size_t n) {
    std::vector<S> v(n);
    for (size_t i = 0; i < n; i++) v[i] = (S)get(p, from + i, t);
    return v;
}

// A matrix of a product, column by column.
struct Columns {
    const void *at;
    Type type;
    int ld;
    long long step;
    bool transposed;
    // row by row, [rows × columns], of one product of the batch
    template <class S> std::vector<S> read(int which, int rows, int columns) const {
        std::vector<S> v((size_t)rows * columns);
        for (int j = 0; j < columns; j++)
            for (int i = 0; i < rows; i++)
                v[(size_t)i * columns + j] = (S)get(at, which * step + (transposed ? j + (size_t)i * ld : i + (size_t)j * ld), type);
        return v;
    }
};

template <class S>
static void multiply(int m, int n, int k, double alpha, const Columns &a, const Columns &b, double beta, void *c, Type type, int ldc, long long step, int batch) {
    std::vector<S> row(n);
    for (int w = 0; w < batch; w++) {
        const std::vector<S> x = a.read<S>(w, m, k), y = b.read<S>(w, k, n);
        for (int i = 0; i < m; i++) {
            std::fill(row.begin(), row.end(), 0);
            for (int l = 0; l < k; l++) {
                const S v = x[(size_t)i * k + l], *other = &y[(size_t)l * n];
                for (int j = 0; j < n; j++) row[j] += v * other[j];
            }
            for (int j = 0; j < n; j++) {
                const size_t at = w * step + i + (size_t)j * ldc;
                set(c, at, type, alpha * row[j] + (beta != 0 ? beta * get(c, at, type) : 0));
            }
        }
    }
}

extern "C" {
int cublasCreate_v2(void **h) {
    TURN;
    if (fails("blas_create")) return 1;
    *h = new Blas;
    return 0;
}
int cublasDestroy_v2(void *h) {
    delete (Blas *)h;
    return 0;
}
int cublasSetStream_v2(void *h, void *s) {
    ((Blas *)h)->stream = s;
    return 0;
}
int cublasSetMathMode(void *h, int mode) {
    ((Blas *)h)->math_mode = mode;
    return 0;
}
int cublasGetMathMode(void *h, int *mode) {
    *mode = ((Blas *)h)->math_mode;
    return 0;
}
int cublasGetVersion_v2(void *, int *v) {
    *v = 130002;
    return 0;
}
const char *cublasGetStatusString(int) { return "pretend"; }
const char *cublasGetStatusName(int) { return "pretend"; }

int cublasGemmStridedBatchedEx(void *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, long long sa,
                               const void *b, int bt, int ldb, long long sb, const void *beta, void *c, int ct, int ldc, long long sc, int batch,
                               int compute, int) {
    TURN;
    if (fails("gemm")) return BLAS_FAILED;
    const Blas &blas = *(Blas *)h;
    // 68: sums in f32; 77: of TF32 products
    if (compute == 77) machine().counts["gemm_tf32"]++;
    // half precision must forbid partial sums in its own type
    if (at != 0 && at != 1 && !(blas.math_mode & 16)) machine().counts["gemm_reduced"]++;
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || blas_type(at) == NONE || blas_type(ct) == NONE) return BLAS_INVALID;
    const Stream s = stream_of(blas.stream);
    for (const void *p : {a, b, (const void *)c}) touch(s, p, "a product");
    const Columns x{a, blas_type(at), lda, sa, ta != 0}, y{b, blas_type(bt), ldb, sb, tb != 0};
    multiply<float>(m, n, k, *(const float *)alpha, x, y, *(const float *)beta, c, blas_type(ct), ldc, sc, batch);
    return 0;
}
int cublasDgemmStridedBatched(void *h, int ta, int tb, int m, int n, int k, const double *alpha, const double *a, int lda, long long sa,
                              const double *b, int ldb, long long sb, const double *beta, double *c, int ldc, long long sc, int batch) {
    TURN;
    if (fails("gemm")) return BLAS_FAILED;
    const Stream s = stream_of(((Blas *)h)->stream);
    for (const void *p : {(const void *)a, (const void *)b, (const void *)c}) touch(s, p, "a product");
    multiply<double>(m, n, k, *alpha, {a, F64, lda, sa, ta != 0}, {b, F64, ldb, sb, tb != 0}, *beta, c, F64, ldc, sc, batch);
    return 0;
}

// ---- cuRAND: a generator that nothing here asks for numbers

int curandCreateGenerator(void **g, int) {
    *g = (void *)1;
    return 0;
}
int curandDestroyGenerator(void *) { return 0; }
int curandSetStream(void *, void *) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }

// ---- cuDNN

struct Descriptor {
    int v[16] = {};
};
struct Dnn {
    void *stream = nullptr;
};
// what cudnn.h calls cudnnConvolutionFwdAlgoPerf_t
struct Choice {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};
static const size_t WORKSPACE = 1 << 16;

size_t cudnnGetVersion() { return 91200; }
int cudnnCreate(void **h) {
    TURN;
    if (fails("dnn_create")) return 1001;
    *h = new Dnn;
    return 0;
}
int cudnnDestroy(void *h) {
    if (getenv("PRETEND_DNN_STAYS")) return DNN_FAILED;
    delete (Dnn *)h;
    return 0;
}
int cudnnSetStream(void *h, void *s) {
    ((Dnn *)h)->stream = s;
    return 0;
}
const char *cudnnGetErrorString(int) { return "pretend"; }
#define DESCRIPTOR(name)                                                                                                                         \
    int cudnnCreate##name##Descriptor(void **d) {                                                                                                \
        *d = new Descriptor;                                                                                                                     \
        return 0;                                                                                                                                \
    }                                                                                                                                            \
    int cudnnDestroy##name##Descriptor(void *d) {                                                                                                \
        delete (Descriptor *)d;                                                                                                                  \
        return 0;                                                                                                                                \
    }
DESCRIPTOR(Tensor)
DESCRIPTOR(Filter)
DESCRIPTOR(Convolution)
static int describe(void *d, std::initializer_list<int> values) {
    std::copy(values.begin(), values.end(), ((Descriptor *)d)->v);
    return 0;
}
int cudnnSetTensor4dDescriptor(void *d, int format, int t, int n, int c, int h, int w) { return describe(d, {format, t, n, c, h, w}); }
int cudnnSetFilter4dDescriptor(void *d, int t, int format, int k, int c, int h, int w) { return describe(d, {format, t, k, c, h, w}); }
int cudnnSetConvolution2dDescriptor(void *d, int ph, int pw, int u, int v, int dh, int dw, int mode, int t) {
    return describe(d, {ph, pw, u, v, dh, dw, mode, t, 0});
}
int cudnnSetConvolutionMathType(void *d, int math) {
    ((Descriptor *)d)->v[8] = math;
    return 0;
}
int cudnnSetConvolutionGroupCount(void *d, int groups) {
    ((Descriptor *)d)->v[9] = groups;
    return 0;
}
// The first choice is of another type of arithmetic than was asked for, the second does not fit, the third is right.
int cudnnGetConvolutionForwardAlgorithm_v7(void *, void *, void *, void *conv, void *, int n, int *got, Choice *out) {
    TURN;
    if (fails("dnn_choose")) return DNN_FAILED;
    const int math = ((Descriptor *)conv)->v[8];
    const Choice all[] = {{7, 0, 1, WORKSPACE, 1, math == 3 ? 1 : 3, {}}, {6, 0, 2, (size_t)1 << 40, 1, math, {}}, {1, 0, 3, WORKSPACE, 1, math, {}}};
    *got = std::min(n, 3);
    std::copy(all, all + *got, out);
    return 0;
}
int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int algorithm, size_t *n) {
    *n = algorithm == 6 ? (size_t)1 << 40 : WORKSPACE;
    return 0;
}
int cudnnConvolutionForward(void *h, const void *alpha, void *xd, const void *x, void *wd, const void *w, void *cd, int algorithm, void *ws, size_t wn,
                            const void *beta, void *yd, void *y) {
    TURN;
    if (fails("conv")) return DNN_FAILED;
    const int *X = ((Descriptor *)xd)->v, *W = ((Descriptor *)wd)->v, *C = ((Descriptor *)cd)->v, *Y = ((Descriptor *)yd)->v;
    const Type t = dnn_type(X[1]);
    if (C[8] != 3) machine().counts["conv_not_fma"]++;
    // channels last, sums in f32, a cross-correlation, one type
    if (algorithm == 7 || *(const float *)alpha != 1 || *(const float *)beta != 0 || wn < WORKSPACE || !ws || t == NONE || C[7] != 0 || C[6] != 1 ||
        X[0] != 1 || W[0] != 1 || Y[0] != 1 || W[1] != X[1] || Y[1] != X[1] || X[3] != W[3])
        return DNN_BAD_PARAM;
    const int n = X[2], in = X[3], height = X[4], width = X[5], out = W[2], kh = W[4], kw = W[5];
    const int oh = (height + 2 * C[0] - kh) / C[2] + 1, ow = (width + 2 * C[1] - kw) / C[3] + 1;
    if (Y[2] != n || Y[3] != out || Y[4] != oh || Y[5] != ow) return DNN_BAD_PARAM;
    const Stream s = stream_of(((Dnn *)h)->stream);
    for (const void *p : {x, w, (const void *)y, (const void *)ws}) touch(s, p, "a convolution");
    const std::vector<float> xs = values<float>(x, t, 0, (size_t)n * height * width * in), ws_ = values<float>(w, t, 0, (size_t)out * kh * kw * in);
    // the weights by input channel, so that the inner loop runs over output channels
    std::vector<float> by(ws_.size()), sum(out);
    for (int o = 0; o < out; o++)
        for (int i = 0; i < kh * kw * in; i++) by[(size_t)i * out + o] = ws_[(size_t)o * kh * kw * in + i];
    for (int b = 0; b < n; b++)
        for (int i = 0; i < oh; i++)
            for (int j = 0; j < ow; j++) {
                std::fill(sum.begin(), sum.end(), 0);
                for (int p = 0; p < kh; p++)
                    for (int q = 0; q < kw; q++) {
                        const int yy = i * C[2] + p - C[0], xx = j * C[3] + q - C[1];
                        if (yy < 0 || yy >= height || xx < 0 || xx >= width) continue;
                        const float *from = &xs[(((size_t)b * height + yy) * width + xx) * in], *weights = &by[(size_t)(p * kw + q) * in * out];
                        for (int c = 0; c < in; c++)
                            for (int o = 0; o < out; o++) sum[o] += from[c] * weights[(size_t)c * out + o];
                    }
                for (int o = 0; o < out; o++) set(y, (((size_t)b * oh + i) * ow + j) * out + o, t, sum[o]);
            }
    return 0;
}
}
