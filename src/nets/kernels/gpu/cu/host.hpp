// CUDA's names for an ordinary compiler: a launch runs its threads one after the other. See device.cuh.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
using std::max;
using std::min;

struct Three {
    unsigned x;
};
static Three blockIdx, blockDim, threadIdx;
// blocks and threads run in this order if 0, and the other way round if 1: no result may depend on it
extern "C" {
int backwards = 0;
}
static inline unsigned turn(unsigned i, unsigned n) { return backwards ? n - 1 - i : i; }

// IEEE half precision and bfloat16, rounded to nearest even
static inline uint32_t bits_of(float v) {
    uint32_t b;
    memcpy(&b, &v, 4);
    return b;
}
static inline float float_of(uint32_t b) {
    float v;
    memcpy(&v, &b, 4);
    return v;
}
struct half_t {
    uint16_t b;
};
struct bfloat_t {
    uint16_t b;
};
static inline float wide(float v) { return v; }
static inline float wide(bfloat_t v) { return float_of((uint32_t)v.b << 16); }
static inline float wide(half_t v) {
    const uint32_t sign = (uint32_t)(v.b & 0x8000) << 16, e = v.b >> 10 & 31, m = v.b & 1023;
    if (e == 31) return float_of(sign | 0x7f800000 | m << 13);
    if (e > 0) return float_of(sign | (e + 112) << 23 | m << 13);
    return (sign ? -1.0f : 1.0f) * ldexpf((float)m, -24);
}
static inline void put(float *p, float v) { *p = v; }
static inline void put(bfloat_t *p, float v) {
    const uint32_t b = bits_of(v);
    p->b = v != v ? 0x7fc0 : (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
static inline void put(half_t *p, float v) {
    const uint16_t sign = (uint16_t)(bits_of(v) >> 16 & 0x8000);
    const float a = fabsf(v);
    if (v != v) {
        p->b = sign | 0x7e00;
    } else if (a >= 65520.0f) {
        p->b = sign | 0x7c00;
    } else if (a < 6.103515625e-5f) {
        p->b = sign | (uint16_t)nearbyintf(a * 16777216.0f);
    } else {
        const uint32_t b = bits_of(a);
        p->b = sign | (uint16_t)(((b + 0xfff + (b >> 13 & 1)) >> 13) - (112 << 10));
    }
}

template <class... A, std::size_t... I>
void call(void (*f)(A...), void **args, std::index_sequence<I...>) {
    f(*(A *)args[I]...);
}
template <class... A> void run(void (*f)(A...), unsigned grid, unsigned block, void **args) {
    blockDim.x = block;
    for (unsigned b = 0; b < grid; b++) {
        blockIdx.x = turn(b, grid);
        for (unsigned t = 0; t < block; t++) {
            threadIdx.x = turn(t, block);
            call(f, args, std::index_sequence_for<A...>{});
        }
    }
}

// the parameters of a kernel: t for a pointer to T, p for one to float, i for int, f for float
template <class A, class T> constexpr char kind() {
    typedef std::remove_cv_t<std::remove_pointer_t<A>> Of;
    if (std::is_pointer_v<A>) return std::is_same_v<Of, T> ? 't' : 'p';
    return std::is_same_v<A, int> ? 'i' : 'f';
}
template <class T, class... A> const char *kinds(void (*)(A...)) {
    static const char text[] = {kind<A, T>()..., 0};
    return text;
}

#define DEVICE static inline
#define SHARED static
// `launch_name` and `kinds_name` are what the tests load; a block that works on one row is run as if by one thread
#define KERNEL(name, ...)                                                                                             \
    static void name(__VA_ARGS__);                                                                                    \
    extern "C" void launch_##name(unsigned grid, unsigned block, void **args) { run(name, grid, block, args); }        \
    extern "C" const char *kinds_##name() { return kinds<T>(name); }                                                   \
    static void name(__VA_ARGS__)
#define THREADS(t) for (int once = 0, t = turn(0, ROW_THREADS); once < ROW_THREADS; once++, t = turn(once, ROW_THREADS))
