// Values of any type, as doubles.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

enum Type { F32, F16, BF16, F64, U8, U32, I64, I16, I32, NONE };

static Type type_named(const std::string &s) {
    static const char *names[] = {"f32", "f16", "bf16", "f64", "u8", "u32", "i64", "i16", "i32"};
    for (int i = 0; i < NONE; i++)
        if (s == names[i]) return (Type)i;
    return NONE;
}

static size_t size_of(Type t) {
    static const size_t sizes[] = {4, 2, 2, 8, 1, 4, 8, 2, 4};
    return sizes[t];
}

static float from_bf16(uint16_t v) {
    uint32_t b = (uint32_t)v << 16;
    float f;
    memcpy(&f, &b, 4);
    return f;
}
static uint16_t to_bf16(float v) {
    uint32_t b;
    memcpy(&b, &v, 4);
    return v != v ? 0x7fc0 : (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

static double get(const void *p, size_t i, Type t) {
    switch (t) {
    case F32: return ((const float *)p)[i];
    case F16: return (float)((const _Float16 *)p)[i];
    case BF16: return from_bf16(((const uint16_t *)p)[i]);
    case F64: return ((const double *)p)[i];
    case U8: return ((const uint8_t *)p)[i];
    case U32: return ((const uint32_t *)p)[i];
    case I64: return (double)((const int64_t *)p)[i];
    case I16: return ((const int16_t *)p)[i];
    default: return ((const int32_t *)p)[i];
    }
}

static void set(void *p, size_t i, Type t, double v) {
    switch (t) {
    case F32: ((float *)p)[i] = (float)v; break;
    case F16: ((_Float16 *)p)[i] = (_Float16)(float)v; break;
    case BF16: ((uint16_t *)p)[i] = to_bf16((float)v); break;
    case F64: ((double *)p)[i] = v; break;
    case U8: ((uint8_t *)p)[i] = (uint8_t)v; break;
    case U32: ((uint32_t *)p)[i] = (uint32_t)v; break;
    case I64: ((int64_t *)p)[i] = (int64_t)v; break;
    case I16: ((int16_t *)p)[i] = (int16_t)v; break;
    default: ((int32_t *)p)[i] = (int32_t)v;
    }
}

// Where element `i` of a view lies.
struct View {
    const size_t *dims, *strides;
    size_t n;
    size_t operator()(size_t i) const {
        if (!dims) return i;
        size_t at = 0;
        for (size_t d = n; d-- > 0;) {
            at += i % dims[d] * strides[d];
            i /= dims[d];
        }
        return at;
    }
};
