// A pretend CUDA driver with cuBLAS, cuRAND and cuDNN, on host memory: one shared library under all four names. Everything above the
// driver runs as it does on a GPU; what the kernels compute is right, what they cost is not.
//
//     PRETEND_KERNELS    the folder with ld3sh's own kernels, compiled for the host
//     PRETEND_COUNTS     a file for the counts of calls, written at the end
//     PRETEND_FAIL       alloc:17: the 17th allocation fails; launch, gemm, conv, copy, load, dnn_create, … likewise; 17+: all from there
//     PRETEND_MEMORY     bytes that there are
//     PRETEND_DRIVER, PRETEND_CAPABILITY   13000 and 80
#include "candle.hpp"
#include "libraries.hpp"
#include "machine.hpp"
#include <dlfcn.h>

static const int DRIVER = number("PRETEND_DRIVER", 13000), CAPABILITY = number("PRETEND_CAPABILITY", 80);

// ld3sh's kernels of a type of elements, or candle's
struct Module {
    void *own;
};
struct Function {
    std::string name;
    void (*own)(unsigned, unsigned, void **);
    std::string kinds;
};

extern "C" {
int cuInit(unsigned) { return fails("init") ? 999 : OK; }
int cuDriverGetVersion(int *v) {
    *v = DRIVER;
    return OK;
}
int cuDeviceGet(int *d, int i) {
    *d = i;
    return i == 0 ? OK : INVALID_DEVICE;
}
int cuDeviceGetCount(int *n) {
    *n = 1;
    return OK;
}
int cuDeviceGetName(char *name, int n, int) {
    snprintf(name, n, "Pretend GPU");
    return OK;
}
int cuDeviceTotalMem_v2(size_t *n, int) {
    *n = machine().room;
    return OK;
}
int cuDeviceGetAttribute(int *v, int a, int) {
    // 75 and 76: the compute capability; 115: whether memory comes from pools
    *v = a == 75 ? CAPABILITY / 10 : a == 76 ? CAPABILITY % 10 : 1;
    return OK;
}
int cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = (void *)3;
    return OK;
}
int cuMemPoolSetAttribute(void *, int, void *) {
    TURN;
    machine().counts["pool_attribute"]++;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **c, int) {
    *c = (void *)0x77;
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
static thread_local void *current = nullptr;
int cuCtxGetCurrent(void **c) {
    *c = current;
    return OK;
}
int cuCtxSetCurrent(void *c) {
    current = c;
    return OK;
}
int cuCtxSynchronize() {
    TURN;
    machine().counts["sync"]++;
    for (auto &c : machine().clock) machine().done[c.first] = c.second;
    return OK;
}
int cuMemGetInfo_v2(size_t *left, size_t *all) {
    TURN;
    *all = machine().room;
    *left = machine().room - machine().live;
    return OK;
}

int cuStreamCreate(void **s, unsigned) {
    TURN;
    *s = new char;
    return OK;
}
int cuStreamDestroy_v2(void *) { return OK; }
int cuStreamSynchronize(void *s) {
    TURN;
    machine().counts["sync"]++;
    waited(stream_of(s));
    return OK;
}
int cuStreamIsCapturing(void *, int *is) {
    *is = 0;
    return OK;
}
int cuStreamWaitEvent(void *s, void *e, unsigned) {
    TURN;
    const Use &at = machine().events[e];
    uint64_t &known = machine().seen[stream_of(s)][at.stream];
    known = std::max(known, at.tick);
    return OK;
}
int cuEventCreate(void **e, unsigned) {
    TURN;
    machine().counts["event"]++;
    *e = new char;
    return OK;
}
int cuEventDestroy_v2(void *) { return OK; }
int cuEventSynchronize(void *e) {
    TURN;
    const Use &at = machine().events[e];
    uint64_t &done = machine().done[at.stream];
    done = std::max(done, at.tick);
    return OK;
}
int cuEventRecord(void *e, void *s) {
    TURN;
    const Stream stream = stream_of(s);
    machine().events[e] = {stream, machine().clock[stream]};
    return OK;
}

int cuGetErrorName(int e, const char **s) {
    *s = e == OUT_OF_MEMORY      ? "CUDA_ERROR_OUT_OF_MEMORY"
         : e == UNSUPPORTED_PTX  ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
         : e == INVALID_DEVICE   ? "CUDA_ERROR_INVALID_DEVICE"
         : e == LAUNCH_FAILED    ? "CUDA_ERROR_LAUNCH_FAILED"
                                 : "CUDA_ERROR_UNKNOWN";
    return OK;
}
int cuGetErrorString(int, const char **s) {
    *s = "pretended";
    return OK;
}

// new memory holds NaN in all types of floats
int cuMemAllocAsync(Address *p, size_t n, void *s) {
    TURN;
    Machine &m = machine();
    if (fails("alloc") || n > m.room - m.live) return OUT_OF_MEMORY;
    // nothing is somewhere, as drivers have it that take memory from pools
    if (n == 0) {
        *p = 0;
        return OK;
    }
    char *block = (char *)malloc(n + 512);
    memset(block, 0xff, n + 512);
    *p = ((Address)block + 255) / 256 * 256;
    m.memory[*p] = {block, n, {stream_of(s), ++m.clock[stream_of(s)]}};
    m.live += n;
    m.peak = std::max(m.peak, m.live);
    return OK;
}
int cuMemFreeAsync(Address p, void *s) {
    TURN;
    Machine &m = machine();
    m.counts["free"]++;
    if (!p) return OK;
    auto it = m.memory.find(p);
    if (it == m.memory.end()) broken("a free of what was not allocated");
    ordered(stream_of(s), it->second.last, "a free");
    m.live -= it->second.bytes;
    free(it->second.block);
    m.memory.erase(it);
    return OK;
}
int cuMemcpyHtoDAsync_v2(Address d, const void *from, size_t n, void *s) {
    TURN;
    if (fails("copy")) return LAUNCH_FAILED;
    machine().counts["to_device"]++;
    within(d, n, "a copy to the device");
    memcpy((void *)d, from, n);
    if (n) touch(stream_of(s), (void *)d, "a copy to the device");
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *d, Address from, size_t n, void *s) {
    TURN;
    if (fails("copy")) return LAUNCH_FAILED;
    machine().counts["to_host"]++;
    within(from, n, "a copy to the host");
    if (n) touch(stream_of(s), (void *)from, "a copy to the host");
    memcpy(d, (void *)from, n);
    // into memory that is not pinned: the call returns when it is there
    waited(stream_of(s));
    return OK;
}
int cuMemcpyDtoDAsync_v2(Address d, Address from, size_t n, void *s) {
    TURN;
    if (fails("copy")) return LAUNCH_FAILED;
    machine().counts["on_device"]++;
    within(from, n, "a copy on the device");
    within(d, n, "a copy on the device");
    if (n) touch(stream_of(s), (void *)from, "a copy on the device");
    if (n) touch(stream_of(s), (void *)d, "a copy on the device");
    memmove((void *)d, (void *)from, n);
    return OK;
}
int cuMemsetD8Async(Address d, unsigned char v, size_t n, void *s) {
    TURN;
    if (fails("copy")) return LAUNCH_FAILED;
    machine().counts["memset"]++;
    within(d, n, "a memset");
    if (n) touch(stream_of(s), (void *)d, "a memset");
    memset((void *)d, v, n);
    return OK;
}

// builds without nvcc have a name where the kernels' PTX would be: `// ld3sh float`, `// candle UNARY`
int cuModuleLoadData(void **m, const void *image) {
    TURN;
    if (fails("load")) return UNSUPPORTED_PTX;
    // PTX of 13.0 needs a driver of 13.0
    if (DRIVER < 13000) return UNSUPPORTED_PTX;
    const std::string text = (const char *)image;
    const std::string own = "// ld3sh ";
    Module *module = new Module{nullptr};
    if (text.rfind(own, 0) == 0) {
        const char *folder = getenv("PRETEND_KERNELS");
        const std::string path = std::string(folder ? folder : ".") + "/cuda_kernels_" + text.substr(own.size()) + ".so";
        module->own = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!module->own) broken(dlerror());
    } else if (text.rfind("// candle ", 0) != 0) {
        broken("this build has real kernels: build with LD3SH_NO_NVCC=1");
    }
    *m = module;
    return OK;
}
int cuModuleUnload(void *) { return OK; }
int cuModuleGetFunction(void **f, void *m, const char *name) {
    TURN;
    machine().counts["look_up"]++;
    Function *function = new Function{name, nullptr, ""};
    if (void *own = ((Module *)m)->own) {
        function->own = (void (*)(unsigned, unsigned, void **))dlsym(own, (std::string("launch_") + name).c_str());
        if (!function->own) return NOT_FOUND;
        function->kinds = ((const char *(*)())dlsym(own, (std::string("kinds_") + name).c_str()))();
    }
    *f = function;
    return OK;
}
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, void *s, void **args, void **) {
    TURN;
    const Function &function = *(Function *)f;
    if (gx == 0 || gy != 1 || gz != 1 || bx == 0 || by * bz != 1 || bx > 1024) {
        broken("a launch of " + function.name + " with a grid of " + std::to_string(gx) + " and blocks of " + std::to_string(bx));
    }
    if (fails("launch")) return LAUNCH_FAILED;
    const Stream stream = stream_of(s);
    if (!function.own) {
        machine().counts["launch_candle"]++;
        if (!candle(function.name, args, stream)) broken("candle's kernel `" + function.name + "` is not known here: add it to candle.hpp");
        return OK;
    }
    for (size_t i = 0; i < function.kinds.size(); i++)
        if (strchr("tp", function.kinds[i])) touch(stream, *(void **)args[i], function.name.c_str());
    // a block that works on one row runs as if by one thread (host.hpp)
    function.own(gx, bx == 128 ? 1 : bx, args);
    return OK;
}
}
