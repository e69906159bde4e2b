// The kernels in which a block works on one row, with a thread for each of the GPU's and a barrier for `__syncthreads`, so that the thread
// sanitizer sees every race. Compiled with -DNO_BARRIER it must see some.
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>
using std::max;
using std::min;

#define ROW_THREADS 128
static std::barrier<> block(ROW_THREADS);
static inline void wait_for_all() {
#ifndef NO_BARRIER
    block.arrive_and_wait();
#endif
}

struct Three {
    unsigned x;
};
static thread_local Three blockIdx, threadIdx;
typedef float T;
static inline float wide(float v) { return v; }
static inline void put(float *p, float v) { *p = v; }
#define DEVICE static inline
#define SHARED static
#define KERNEL(name, ...) static void name(__VA_ARGS__)
#define THREADS(t) for (int t = threadIdx.x, once = 1; once; once = 0, wait_for_all())
#include "../../src/nets/kernels/gpu/cu/attention.cuh"
#include "../../src/nets/kernels/gpu/cu/layer_norm.cuh"

// Runs a kernel's block for each row, all threads at once.
template <class F> static void rows(int n, F kernel) {
    for (int r = 0; r < n; r++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < ROW_THREADS; i++) threads.emplace_back([&, i] {
            blockIdx.x = r;
            threadIdx.x = i;
            kernel();
        });
        for (auto &t : threads) t.join();
    }
}

int main() {
    const int count = 2, n = 300;
    std::vector<float> x(count * n), cot(count * n), out(count * n), scores(count * n), gamma(n, 1.5f), beta(n, 0.25f);
    for (int i = 0; i < count * n; i++) {
        x[i] = scores[i] = 3 * sinf(i);
        cot[i] = cosf(i);
    }
    double sums[2] = {0, 0};
    rows(count, [&] { softmax(scores.data(), out.data(), n, 0.5f, count, n, 0); });
    for (float v : out) sums[0] += v;
    rows(count, [&] { softmax_pull(out.data(), cot.data(), scores.data(), n, 0.5f); });
    rows(count, [&] { layer_norm(x.data(), gamma.data(), beta.data(), out.data(), n, 1e-5f); });
    for (float v : out) sums[1] += v;
    rows(count, [&] { layer_norm_pull(x.data(), cot.data(), gamma.data(), scores.data(), n, 1e-5f); });
    // rows of a softmax sum to 1, those of a layer norm to n times its shift
    printf("%.4f %.4f\n", sums[0] / count, sums[1] / (count * n));
}
