// candle's kernels, by their names: what they compute, one value after the other.
#pragma once
#include "elements.hpp"
#include "machine.hpp"
#include <algorithm>
#include <map>
#include <vector>

typedef double (*Unary)(double);
typedef double (*Binary)(double, double);

static const std::map<std::string, Unary> UNARY = {
    {"ucopy", [](double v) { return v; }},
    {"uneg", [](double v) { return -v; }},
    {"uexp", [](double v) { return exp(v); }},
    {"ulog", [](double v) { return log(v); }},
    {"uabs", [](double v) { return fabs(v); }},
    {"usqr", [](double v) { return v * v; }},
    {"usqrt", [](double v) { return sqrt(v); }},
    {"usin", [](double v) { return sin(v); }},
    {"ucos", [](double v) { return cos(v); }},
    {"utanh", [](double v) { return tanh(v); }},
    {"uerf", [](double v) { return erf(v); }},
    {"uceil", [](double v) { return ceil(v); }},
    {"ufloor", [](double v) { return floor(v); }},
    {"uround", [](double v) { return round(v); }},
    {"usign", [](double v) { return (double)((v > 0) - (v < 0)); }},
    {"urecip", [](double v) { return 1 / v; }},
    {"urelu", [](double v) { return v > 0 ? v : 0; }},
    {"usilu", [](double v) { return v / (1 + exp(-v)); }},
    {"usigmoid", [](double v) { return 1 / (1 + exp(-v)); }},
    {"ugelu_erf", [](double v) { return 0.5 * v * (1 + erf(v * M_SQRT1_2)); }},
    {"ugelu", [](double v) { return 0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))); }},
};

static const std::map<std::string, Binary> BINARY = {
    {"badd", [](double a, double b) { return a + b; }},      {"bsub", [](double a, double b) { return a - b; }},
    {"bmul", [](double a, double b) { return a * b; }},      {"bdiv", [](double a, double b) { return a / b; }},
    {"bmaximum", [](double a, double b) { return fmax(a, b); }}, {"bminimum", [](double a, double b) { return fmin(a, b); }},
};

static const std::map<std::string, Binary> COMPARE = {
    {"eq", [](double a, double b) { return (double)(a == b); }}, {"ne", [](double a, double b) { return (double)(a != b); }},
    {"lt", [](double a, double b) { return (double)(a < b); }},  {"le", [](double a, double b) { return (double)(a <= b); }},
    {"gt", [](double a, double b) { return (double)(a > b); }},  {"ge", [](double a, double b) { return (double)(a >= b); }},
};


// The arguments of a launch.
struct Args {
    void **at;
    const Stream &stream;
    const char *name;
    template <class T> T as(int i) const { return *(T *)at[i]; }
    size_t size(int i) const { return as<size_t>(i); }
    // memory that the kernel uses
    void *memory(int i) const {
        void *p = as<void *>(i);
        touch(stream, p, name);
        return p;
    }
    // the view whose number of dimensions is argument `i`, and whose sizes and strides (the `which`-th) are the next
    View view(int i, size_t which = 0) const {
        const size_t n = size(i), *info = as<const size_t *>(i + 1);
        return {info, info ? info + (1 + which) * n : nullptr, n};
    }
};

static void pairwise(const Args &a, Type t, Type to, Binary f) {
    const size_t n = a.size(0);
    const View x = a.view(1), y = a.view(1, 1);
    void *p = a.memory(3), *q = a.memory(4), *out = a.memory(5);
    for (size_t i = 0; i < n; i++) set(out, i, to, f(get(p, x(i), t), get(q, y(i), t)));
}

static void each(const Args &a, Type from, Type to, Unary f) {
    const size_t n = a.size(0);
    const View x = a.view(1);
    void *in = a.memory(3), *out = a.memory(4);
    if (!in) in = out;
    for (size_t i = 0; i < n; i++) set(out, i, to, f(get(in, x(i), from)));
}

// fast_sum, fast_max, fast_min, fast_argmax, fast_argmin over the last dimensions
static void reduce(const Args &a, const std::string &what, Type t) {
    const size_t n = a.size(0), each = a.size(1);
    const View x = a.view(2);
    void *in = a.memory(4), *out = a.memory(5);
    // for few values a row, the first argument is the number of rows
    const size_t rows = what == "sum_small" ? n : n / each;
    const bool arg = what.rfind("arg", 0) == 0;
    for (size_t r = 0; r < rows; r++) {
        double best = get(in, x(r * each), t);
        size_t at = 0;
        for (size_t i = 1; i < each; i++) {
            const double v = get(in, x(r * each + i), t);
            if (what.rfind("sum", 0) == 0) best += v;
            else if (what.find("max") != std::string::npos ? v > best : v < best) best = v, at = i;
        }
        if (arg) set(out, r, U32, (double)at);
        else set(out, r, t, best);
    }
}

static size_t index_below(const void *ids, size_t i, Type t, size_t end) {
    const double v = get(ids, i, t);
    if (v < 0 || v >= (double)end) broken("an index of " + std::to_string(v) + " where there are " + std::to_string(end));
    return (size_t)v;
}

// index_select, gather, scatter, scatter-add and index-add, whose names end with the type of their indices
static bool indexed(const Args &a, const std::string &op, Type t) {
    const size_t bar = op.find('_');
    const std::string what = op.substr(0, bar);
    const Type of = bar == std::string::npos ? NONE : type_named(op.substr(bar + 1));
    if (of == NONE) return false;
    if (what == "is") {
        const size_t n = a.size(0), from = a.size(7), to = a.size(8), right = a.size(9);
        const View ids = a.view(1);
        void *which = a.memory(3), *in = a.memory(4), *out = a.memory(5);
        for (size_t i = 0; i < n; i++) {
            const size_t left = i / (to * right), k = i / right % to;
            set(out, i, t, get(in, (left * from + index_below(which, ids(k), of, from)) * right + i % right, t));
        }
    } else if (what == "gather") {
        const size_t n = a.size(0), from = a.size(5), to = a.size(6), right = a.size(7);
        void *which = a.memory(1), *in = a.memory(2), *out = a.memory(3);
        for (size_t i = 0; i < n; i++) {
            const size_t left = i / (right * to);
            set(out, i, t, get(in, (left * from + index_below(which, i, of, from)) * right + i % right, t));
        }
    } else if (what == "s" || what == "sa") {
        const size_t left = a.size(3), from = a.size(4), to = a.size(5), right = a.size(6);
        void *which = a.memory(0), *in = a.memory(1), *out = a.memory(2);
        for (size_t i = 0; i < left * right; i++)
            for (size_t j = 0; j < from; j++) {
                const size_t source = (i / right * from + j) * right + i % right;
                const size_t target = (i / right * to + index_below(which, source, of, to)) * right + i % right;
                set(out, target, t, get(in, source, t) + (what == "sa" ? get(out, target, t) : 0));
            }
    } else if (what == "ia") {
        const size_t n = a.size(1), left = a.size(4), to = a.size(6), right = a.size(7);
        void *which = a.memory(0), *in = a.memory(2), *out = a.memory(3);
        for (size_t i = 0; i < left * right; i++)
            for (size_t j = 0; j < n; j++) {
                const size_t source = (i / right * n + j) * right + i % right;
                const size_t target = (i / right * to + index_below(which, j, of, to)) * right + i % right;
                set(out, target, t, get(out, target, t) + get(in, source, t));
            }
    } else if (what == "where") {
        const size_t n = a.size(0);
        const View ids = a.view(1), x = a.view(1, 1), y = a.view(1, 2);
        void *which = a.memory(3), *yes = a.memory(4), *no = a.memory(5), *out = a.memory(6);
        for (size_t i = 0; i < n; i++) set(out, i, t, get(which, ids(i), of) != 0 ? get(yes, x(i), t) : get(no, y(i), t));
    } else {
        return false;
    }
    return true;
}

// Runs a kernel of candle's; false where this does not know it.
static bool candle(const std::string &name, void **args, const Stream &stream) {
    const size_t bar = name.rfind('_');
    const std::string op = name.substr(0, bar);
    const Type t = bar == std::string::npos ? NONE : type_named(name.substr(bar + 1));
    if (t == NONE) return false;
    const Args a{args, stream, name.c_str()};
    if (auto u = UNARY.find(op); u != UNARY.end()) {
        each(a, t, t, u->second);
    } else if (auto b = BINARY.find(op); b != BINARY.end()) {
        pairwise(a, t, t, b->second);
    } else if (auto c = COMPARE.find(op); c != COMPARE.end()) {
        pairwise(a, t, U8, c->second);
    } else if (op.rfind("cast_", 0) == 0 && type_named(op.substr(5)) != NONE) {
        each(a, type_named(op.substr(5)), t, [](double v) { return v; });
    } else if (op.rfind("fast_", 0) == 0) {
        reduce(a, op.substr(5), t);
    } else if (op == "affine") {
        const size_t n = a.size(0);
        const View x = a.view(1);
        void *in = a.memory(3), *out = a.memory(4);
        const double mul = get(args[5], 0, t), add = get(args[6], 0, t);
        if (!in) in = out;
        for (size_t i = 0; i < n; i++) set(out, i, t, get(in, x(i), t) * mul + add);
    } else if (op == "upowf" || op == "uelu") {
        const size_t n = a.size(0);
        const View x = a.view(1);
        const double by = get(args[3], 0, t);
        void *in = a.memory(4), *out = a.memory(5);
        for (size_t i = 0; i < n; i++) {
            const double v = get(in, x(i), t);
            set(out, i, t, op == "upowf" ? pow(v, by) : v > 0 ? v : by * (exp(v) - 1));
        }
    } else if (op == "const_set") {
        const size_t n = a.size(0);
        const View to = a.view(1);
        const double v = get(args[3], 0, t);
        void *out = a.memory(4);
        for (size_t i = 0; i < n; i++) set(out, to(i), t, v);
    } else if (op == "copy2d") {
        char *in = (char *)a.memory(0), *out = (char *)a.memory(1);
        const size_t rows = a.as<uint32_t>(2), n = a.as<uint32_t>(3), from = a.as<uint32_t>(4), to = a.as<uint32_t>(5);
        for (size_t i = 0; i < rows; i++) memcpy(out + i * to * size_of(t), in + i * from * size_of(t), n * size_of(t));
    } else {
        return indexed(a, op, t);
    }
    return true;
}
