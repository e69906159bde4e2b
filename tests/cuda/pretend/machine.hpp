// The pretend GPU: memory with its bounds, streams with their order, counts of what was asked, and faults on demand.
//
// Everything is done at once, on the host. What a stream has not been waited for is remembered by clocks: each stream counts what was
// put on it, an allocation remembers the last use, and whoever touches it must know of that use: by being on the same stream, through an
// event, or because the host waited.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

typedef unsigned long long Address;

// as cuda.h numbers them
enum Status { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, UNSUPPORTED_PTX = 222, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

// a handle, and for the handle that means "this thread's" the thread
typedef std::pair<void *, long> Stream;

struct Use {
    Stream stream;
    uint64_t tick = 0;
};

struct Allocation {
    char *block;
    size_t bytes;
    Use last;
};

struct Machine {
    std::recursive_mutex turn;
    std::map<std::string, uint64_t> counts;
    std::map<Address, Allocation> memory;
    std::map<Stream, uint64_t> clock, done;
    std::map<Stream, std::map<Stream, uint64_t>> seen;
    std::map<void *, Use> events;
    size_t live = 0, peak = 0, room = SIZE_MAX;
    // the `fail_at`-th call of `fail` answers with a fault; with a + behind the number, all from there
    std::string fail;
    uint64_t fail_at = 0;
    bool fail_on = false;

    Machine() {
        if (const char *v = getenv("PRETEND_MEMORY")) room = strtoull(v, nullptr, 10);
        if (const char *v = getenv("PRETEND_FAIL")) {
            const char *colon = strchr(v, ':');
            fail = colon ? std::string(v, colon) : v;
            fail_at = colon ? strtoull(colon + 1, nullptr, 10) : 1;
            fail_on = v[strlen(v) - 1] == '+';
        }
    }
};

// never destroyed: threads may still call at the end
static Machine &machine() {
    static Machine *m = new Machine;
    return *m;
}

#define TURN std::lock_guard<std::recursive_mutex> turn(machine().turn)

[[noreturn]] static void broken(const std::string &what) {
    fprintf(stderr, "pretend driver: %s\n", what.c_str());
    fflush(stderr);
    _exit(99);
}

// Counts a call; whether it is to fail.
static bool fails(const char *what) {
    Machine &m = machine();
    uint64_t n = ++m.counts[what];
    return m.fail == what && (n == m.fail_at || (m.fail_on && n > m.fail_at));
}

static int number(const char *name, int otherwise) {
    const char *v = getenv(name);
    return v ? atoi(v) : otherwise;
}

static Stream stream_of(void *handle) {
    return {handle, handle == (void *)2 ? syscall(SYS_gettid) : 0};
}

static std::map<Address, Allocation>::iterator find(Address p) {
    auto &all = machine().memory;
    auto it = all.upper_bound(p);
    if (it == all.begin()) return all.end();
    --it;
    return p <= it->first + it->second.bytes ? it : all.end();
}

// Fails where work that `s` does not know of may still be at this memory.
static void ordered(const Stream &s, const Use &last, const char *what) {
    Machine &m = machine();
    if (last.tick == 0 || last.stream == s || last.tick <= m.done[last.stream] || last.tick <= m.seen[s][last.stream]) return;
    broken(std::string(what) + " touches memory that another stream has not finished with");
}

// A use of memory by work on a stream.
static void touch(const Stream &s, const void *p, const char *what) {
    auto it = find((Address)p);
    if (it == machine().memory.end()) {
        if (p) broken(std::string(what) + " outside of all memory");
        return;
    }
    ordered(s, it->second.last, what);
    it->second.last = {s, ++machine().clock[s]};
}

// That `n` bytes lie within one allocation.
static void within(Address p, size_t n, const char *what) {
    auto it = find(p);
    if (n && (it == machine().memory.end() || p + n > it->first + it->second.bytes)) broken(std::string(what) + " outside of memory");
}

// The host has waited for a stream.
static void waited(const Stream &s) { machine().done[s] = machine().clock[s]; }

// Writes the counts where PRETEND_COUNTS says, as JSON.
static void report() {
    const char *path = getenv("PRETEND_COUNTS");
    if (!path) return;
    TURN;
    Machine &m = machine();
    m.counts["peak"] = m.peak;
    FILE *f = fopen(path, "w");
    if (!f) return;
    const char *before = "{";
    for (auto &c : m.counts) {
        fprintf(f, "%s\"%s\": %llu", before, c.first.c_str(), (unsigned long long)c.second);
        before = ", ";
    }
    fprintf(f, "}\n");
    fclose(f);
}
static struct AtEnd {
    AtEnd() { atexit(report); }
} at_end;
