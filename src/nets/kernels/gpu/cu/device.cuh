// What the kernels are written in. T is the type of the images (float, half or bfloat16: one compilation for each); sums,
// statistics and embeddings are float throughout.
//
// nvcc makes kernels of them. Any other C++ compiler makes a shared library that runs the same source thread by thread
// (host.hpp), so that the arithmetic is tested where there is no GPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
typedef __half half_t;
typedef __nv_bfloat16 bfloat_t;
__device__ inline float wide(float v) { return v; }
__device__ inline float wide(__half v) { return __half2float(v); }
__device__ inline float wide(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline void put(float *p, float v) { *p = v; }
__device__ inline void put(__half *p, float v) { *p = __float2half(v); }
__device__ inline void put(__nv_bfloat16 *p, float v) { *p = __float2bfloat16(v); }
#define DEVICE __device__ inline
#define SHARED __shared__
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
// runs once in each thread of a block, and then waits for the others
#define THREADS(t) for (int t = threadIdx.x, once = 1; once; once = 0, __syncthreads())
#else
#include "host.hpp"
#endif

// from the compiler's command line: float, half_t or bfloat_t
typedef ELEMENT T;

// the body runs once for each i < n, with one thread for each
#define EACH(i, n)                                                                                                    \
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;                                                          \
    if (i < (unsigned)(n))

// threads of a block that works on one row; the launcher knows it too
#define ROW_THREADS 128

DEVICE float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }
DEVICE float silu_of(float v) { return v * sigmoid(v); }
DEVICE float silu_slope(float v) {
    const float s = sigmoid(v);
    return s * (1.0f + v * (1.0f - s));
}
