/* Vectors of floats as wide as the processor has them, in the vector extensions that GCC and Clang share.

   All sums run in an order that depends on neither threads nor neighbouring rows. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

/* Tiles of outputs that are computed in registers: as many accumulators as there are registers for. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE_ROWS 4
#define TILE_COLUMNS 6
#define ACCUMULATORS 24
#else
#define TILE_ROWS 3
#define TILE_COLUMNS 4
#define ACCUMULATORS 12
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float Four __attribute__((vector_size(16)));

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE Floats load(const float *from) { return *(const Unaligned *)from; }

INLINE void store(float *to, Floats values) { *(Unaligned *)to = values; }

/* The first `count` < LANES floats, the rest 0. */
INLINE Floats load_part(const float *from, int64_t count) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    Floats values = {0};
    memcpy(&values, from, (size_t)count * sizeof(float));
    return values;
#endif
}

INLINE void store_part(float *to, Floats values, int64_t count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)values);
#else
    memcpy(to, &values, (size_t)count * sizeof(float));
#endif
}

/* For loops whose last vector may be short: `count` floats, at most LANES. */
INLINE Floats load_most(const float *from, int64_t count) {
    return count >= LANES ? load(from) : load_part(from, count);
}

INLINE void store_most(float *to, Floats values, int64_t count) {
    if (count >= LANES)
        store(to, values);
    else
        store_part(to, values, count);
}

INLINE Four fold(Floats values) {
#if LANES == 16
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)values), (__m256)_mm512_extractf64x4_pd((__m512d)values, 1));
    return (Four)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif LANES == 8
    return (Four)_mm_add_ps(_mm256_castps256_ps128((__m256)values), _mm256_extractf128_ps((__m256)values, 1));
#else
    return values;
#endif
}

#if defined(__clang__)
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (Quad){i, j, k, l})
typedef int32_t Quad __attribute__((vector_size(16)));
#endif

/* The sums of four vectors. The order of each sum is that of `sum`. */
INLINE Four sums(Floats a, Floats b, Floats c, Floats d) {
    Four x = fold(a), y = fold(b), z = fold(c), w = fold(d);
    Four xy = SHUFFLE(x, y, 0, 4, 1, 5) + SHUFFLE(x, y, 2, 6, 3, 7);
    Four zw = SHUFFLE(z, w, 0, 4, 1, 5) + SHUFFLE(z, w, 2, 6, 3, 7);
    return SHUFFLE(xy, zw, 0, 1, 4, 5) + SHUFFLE(xy, zw, 2, 3, 6, 7);
}

INLINE float sum(Floats values) {
    Four four = fold(values);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

#if LANES == 16
/* Four vectors to one: its four quarters are theirs, each folded to four floats in the order of `fold`. */
INLINE Floats folds(Floats a, Floats b, Floats c, Floats d) {
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x44), _mm512_shuffle_f32x4((__m512)a, (__m512)b, 0xEE));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4((__m512)c, (__m512)d, 0x44), _mm512_shuffle_f32x4((__m512)c, (__m512)d, 0xEE));
    return (Floats)_mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
}

/* In each quarter: first and third, second and fourth of x, then of y, added: x02 y02 x13 y13. */
INLINE Floats halve(Floats x, Floats y) {
    return (Floats)_mm512_add_ps(_mm512_unpacklo_ps((__m512)x, (__m512)y), _mm512_unpackhi_ps((__m512)x, (__m512)y));
}

/* In each quarter: the halves of what `halve` gave, added. */
INLINE Floats join(Floats xy, Floats zw) {
    return (Floats)_mm512_add_ps(
        _mm512_shuffle_ps((__m512)xy, (__m512)zw, 0x44), _mm512_shuffle_ps((__m512)xy, (__m512)zw, 0xEE));
}
#endif

INLINE float greatest(Floats values) {
    float most = values[0];
    for (int lane = 1; lane < LANES; lane++) most = values[lane] > most ? values[lane] : most;
    return most;
}

INLINE Floats larger(Floats a, Floats b) {
    Ints mask = a > b;
    return (Floats)(((Ints)a & mask) | ((Ints)b & ~mask));
}

/* e^x to two units in the last place: x = n ln 2 + r, and a polynomial for e^r (Cephes' coefficients). Below -87.3 it is
   0, NaN stays NaN; above 88 it is not meant for. */
INLINE Floats exponential(Floats x) {
    const Floats least = (Floats){0} - 87.3f;
    Ints normal = x > least, ordered = x == x;
    Floats bounded = (Floats)(((Ints)x & normal) | ((Ints)least & ~normal));
    Floats shifted = bounded * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to a whole number in the low bits */
    Floats n = shifted - 12582912.0f;
    Floats r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints power = (((Ints)shifted - 0x4B400000) + 127) << 23;
    Ints result = (Ints)(p * (Floats)power) & normal;
    return (Floats)((result & ordered) | ((Ints)x & ~ordered));
}

INLINE Floats sigmoid(Floats x) {
    /* By the smaller of e^x and e^-x, so that nothing overflows. */
    Ints negative = x < 0.0f;
    Floats e = exponential((Floats)((Ints)x | INT32_MIN)); /* of -|x| */
    Floats numerator = (Floats)(((Ints)e & negative) | ((Ints)((Floats){0} + 1.0f) & ~negative));
    return numerator / (1.0f + e);
}

/* h = silu(gate) * up, over `count` floats; h may be gate. */
INLINE void swiglu(float *h, const float *gate, const float *up, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        Floats g = load(gate + i);
        store(h + i, g * sigmoid(g) * load(up + i));
    }
    if (i < count) {
        Floats g = load_part(gate + i, count - i);
        store_part(h + i, g * sigmoid(g) * load_part(up + i, count - i), count - i);
    }
}

/* y = x / rms(x) * weight; y may be x. */
INLINE void rms_norm(float *y, const float *x, const float *weight, float eps, int64_t count) {
    Floats squares = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) squares += load(x + i) * load(x + i);
    if (i < count) {
        Floats rest = load_part(x + i, count - i);
        squares += rest * rest;
    }
    float factor = 1.0f / sqrtf(sum(squares) / (float)count + eps);
    for (i = 0; i + LANES <= count; i += LANES) store(y + i, load(x + i) * factor * load(weight + i));
    for (; i < count; i++) y[i] = x[i] * factor * weight[i];
}
