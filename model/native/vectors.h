/* Vectors of the widest kind that the compiler was told of, and the three functions that a network needs of them.
 *
 * One source for every machine: GCC's and Clang's vector types, with intrinsics where they make bad code of a conversion
 * and for what has no operator. A panel is 16 neighbouring outputs: one AVX-512 register, two of AVX2, four of SSE2 or
 * NEON.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define PANEL 16
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define PARTS (PANEL / LANES)
#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef int16_t shorts __attribute__((vector_size(4 * LANES))); /* twice as many: LANES pairs */

INLINE floats load_f32(const float *p) {
    floats v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_f32(float *p, floats v) { memcpy(p, &v, sizeof v); }

INLINE floats all(float value) {
#if defined(__AVX512F__)
    return (floats)_mm512_set1_ps(value);
#elif defined(__AVX2__)
    return (floats)_mm256_set1_ps(value);
#else
    return (floats){value, value, value, value};
#endif
}

/* LANES pairs of int8. */
INLINE shorts load_pairs(const int8_t *p) {
#if defined(__AVX512BW__)
    return (shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__AVX2__)
    return (shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    typedef int8_t bytes __attribute__((vector_size(2 * LANES)));
    bytes b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, shorts);
#endif
}

INLINE shorts load_i16(const int16_t *p) {
    shorts v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_i16(int16_t *p, shorts v) { memcpy(p, &v, sizeof v); }

/* Whole numbers that fit into 16 bits, the first lanes and the next. */
INLINE shorts narrow(ints low, ints high) {
#if defined(__AVX512F__)
    const __m256i first = _mm512_cvtepi32_epi16((__m512i)low), second = _mm512_cvtepi32_epi16((__m512i)high);
    return (shorts)_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
#elif defined(__AVX2__)
    return (shorts)_mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)low, (__m256i)high), 0xd8);
#elif defined(__SSE2__)
    return (shorts)_mm_packs_epi32((__m128i)low, (__m128i)high);
#else
    typedef int16_t halves __attribute__((vector_size(2 * LANES)));
    const halves parts[2] = {__builtin_convertvector(low, halves), __builtin_convertvector(high, halves)};
    shorts both;
    memcpy(&both, parts, sizeof both);
    return both;
#endif
}

/* One pair in every lane. */
INLINE shorts all_pairs(const int16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
#if defined(__AVX512F__)
    return (shorts)_mm512_set1_epi32(pair);
#elif defined(__AVX2__)
    return (shorts)_mm256_set1_epi32(pair);
#else
    return (shorts)(ints){pair, pair, pair, pair};
#endif
}

/* sum + the sum of the two products of each lane's pairs. */
INLINE ints add_pairs(ints sum, shorts a, shorts b) {
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return sum + (ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return sum + (ints)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#else
    ints x = (ints)a, y = (ints)b;
    return sum + ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
}

INLINE floats to_f32(ints v) { return __builtin_convertvector(v, floats); }

/* a where it is larger, else b: the same in all variants where one is no number. */
INLINE floats larger(floats a, floats b) {
#if defined(__AVX512F__)
    return (floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (floats)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (floats)_mm_max_ps((__m128)a, (__m128)b);
#else
    ints choose = a > b;
    return (floats)(((ints)a & choose) | ((ints)b & ~choose));
#endif
}

/* Sum of the lanes, always in the same order, and maximum. */
INLINE float sum_of(floats v) {
    float lane[LANES], sum = 0;
    store_f32(lane, v);
    for (int i = 0; i < LANES; i++) sum += lane[i];
    return sum;
}

INLINE float maximum_of(floats v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#elif defined(__AVX2__)
    __m128 top = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    top = _mm_max_ps(top, _mm_movehl_ps(top, top));
    return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
#else
    float lane[LANES];
    store_f32(lane, v);
    float top = lane[0];
    for (int i = 1; i < LANES; i++) top = lane[i] > top ? lane[i] : top;
    return top;
#endif
}

/* The nearest whole numbers, for magnitudes below 2^22. */
INLINE ints nearest(floats v) {
#if defined(__AVX512F__)
    return (ints)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
    return (ints)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE2__)
    return (ints)_mm_cvtps_epi32((__m128)v);
#else
    const floats round = all(12582912.0f); /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    return (ints)(v + round) - (ints)round;
#endif
}

/* 2^x, below -30 as if it were -30, relative error 3e-6: 2^n times the best polynomial of degree 4 in what is left. */
INLINE floats exp2_f32(floats x) {
    const floats round = all(12582912.0f);
    x = larger(x, all(-30.0f));
    const floats n = x + round;
    const floats r = x - (n - round);
    floats p = all(9.58285287e-03f);
    p = p * r + all(5.59064249e-02f);
    p = p * r + all(2.40240986e-01f);
    p = p * r + all(6.93124193e-01f);
    p = p * r + all(1.0f);
    return (floats)((ints)p + ((ints)n << 23));
}

/* e^x for x <= 0 (0 below -87), relative error 2e-7: 2^n times a polynomial in what is left (Cephes, expf). */
INLINE floats exp_f32(floats x) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    ints alive = x > all(-87.0f);
    x = larger(x, all(-87.0f));
    floats n = x * all(1.44269504f) + all(round);
    ints exponent = (ints)n;
    n = n - all(round);
    floats r = x - n * all(0.693359375f);
    r = r - n * all(-2.12194440e-4f);
    floats p = all(1.9875691500e-4f);
    p = p * r + all(1.3981999507e-3f);
    p = p * r + all(8.3334519073e-3f);
    p = p * r + all(4.1665795894e-2f);
    p = p * r + all(1.6666665459e-1f);
    p = p * r + all(5.0000001201e-1f);
    p = p * (r * r) + r + all(1.0f);
    return (floats)(((ints)p + (exponent << 23)) & alive);
}

/* x * Phi(x), the exact GELU: erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
INLINE floats gelu_f32(floats x) {
    floats z = x * all(0.70710678f);
    floats a = larger(z, -z);
    floats t = all(1.0f) / (all(1.0f) + all(0.3275911f) * a);
    floats p = all(1.061405429f);
    p = p * t + all(-1.453152027f);
    p = p * t + all(1.421413741f);
    p = p * t + all(-0.284496736f);
    p = p * t + all(0.254829592f);
    floats tail = p * t * exp_f32(-(a * a)); /* 1 - erf(|z|) */
    ints negative = x < all(0.0f);
    floats twice_phi = (floats)(((ints)tail & negative) | ((ints)(all(2.0f) - tail) & ~negative));
    return all(0.5f) * x * twice_phi;
}

#endif
