/* attention.c over bfloat16 tiles, for CPUs that multiply 16 by 16 by 32 numbers at once (AMX).
 *
 * Queries, keys, values and weights are rounded to bfloat16, sums are float32: an error of 0.3 % a layer, where that of the
 * int8 projections around it is ten times as much.
 *
 * Layouts, innermost last (P = positions rounded up to KEYS), of two tiles of B a panel:
 *   keys    (n_head, P / 16, 32, 16, 2): a panel is 16 positions, pair of channels by pair
 *   values  (n_head, P / KEYS, 4, KEYS / 2, 16, 2): a panel is 16 channels, pair of positions by pair
 *
 * Source: "Attention Is All You Need"; the softmax block by block is that of "FlashAttention".
 */
#ifndef ATTENTION_BF16_H
#define ATTENTION_BF16_H

#include <math.h>

#include "rows.h"
#include "tiles.h"

#define SCALES 0

typedef int16_t half; /* the bits of a bfloat16 */

struct Scratch {
    half query[UNIT * HEAD];
    float top[UNIT];
    float sum[UNIT * LANES], out[UNIT * HEAD]; /* of weights, and of values by weights, as if `top` were 0 */
    /* one tile of queries and block of keys */
    float scores[ROWS * KEYS];
    half weights[ROWS * KEYS];
    float part[ROWS * HEAD];
};

/* 2^x, relative error 8e-5, a bfloat16 having 2e-3: 2^floor(x) times the best polynomial of degree 3 in what is left. */
INLINE floats power_of_two(floats x) {
    const floats r = (floats)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
    floats p = all(0.0780242786f);
    p = p * r + all(0.226067275f);
    p = p * r + all(0.695833635f);
    p = p * r + all(0.999925181f);
    return (floats)_mm512_scalef_ps((__m512)p, (__m512)x);
}

/* 16 numbers, rounded, in the low halves. */
INLINE ints rounded(floats v) { return (ints)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)v)); }

static void pack_keys(Attention *a, int head) {
    half *to = a->keys + head * positions_of(a->n_ctx) * HEAD;
    for (int j = 0; j < a->n_kv; j++) {
        const float *from = a->kv + j * a->kv_stride + head * HEAD;
        half row[HEAD], *panel = to + (size_t)(j / PANEL) * PANEL * HEAD + j % PANEL * 2;
        for (int i = 0; i < HEAD; i += LANES) {
            const __m256i halves = (__m256i)_mm512_cvtneps_pbh((__m512)load_f32(from + i));
            memcpy(row + i, &halves, sizeof halves);
        }
        for (int i = 0; i < HEAD; i += 2) memcpy(panel + i * PANEL, row + i, 2 * sizeof *row);
    }
}

/* Positions beyond the last become zeros to the end of their block: weights there are multiplied as well. */
static void pack_values(Attention *a, int head) {
    const int padded = (int)positions_of(a->n_kv);
    for (int i = 0; i < HEAD; i += LANES) {
        const float *from = a->kv + (a->n_head + head) * HEAD + i;
        half *to = a->values + head * positions_of(a->n_ctx) * HEAD + (size_t)(i / PANEL) * KEYS * PANEL;
        for (int j = 0; j < padded; j += 2) {
            ints even = {0}, odd = {0};
            if (j < a->n_kv) even = rounded(load_f32(from + j * a->kv_stride));
            if (j + 1 < a->n_kv) odd = rounded(load_f32(from + (j + 1) * a->kv_stride));
            const ints pairs = even | odd << 16;
            memcpy(to + (size_t)(j / KEYS) * KEYS * HEAD + j % KEYS * PANEL, &pairs, sizeof pairs);
        }
    }
}

/* Scores are in powers of two: e^x is 2^(x log2(e)). What is left of the last tile becomes zeros. */
static void take_queries(const Attention *a, Scratch *s, int head, int from, int count) {
    const floats scale = all(1.44269504f / sqrtf(HEAD));
    for (int r = 0; r < count; r++) {
        const float *row = a->query + (from + r) * a->query_stride + head * HEAD;
        for (int i = 0; i < HEAD; i += LANES) {
            const __m256i halves = (__m256i)_mm512_cvtneps_pbh((__m512)(load_f32(row + i) * scale));
            memcpy(s->query + r * HEAD + i, &halves, sizeof halves);
        }
    }
    memset(s->query + count * HEAD, 0, (UNIT - count) * HEAD * sizeof(half));
    for (int r = 0; r < UNIT; r++) s->top[r] = -1e30f;
    memset(s->sum, 0, sizeof s->sum);
    memset(s->out, 0, sizeof s->out);
}

/* A tile of queries by a block of keys -> s->scores. */
static void score(Scratch *s, int first, const half *keys) {
    load_tile(4, s->query + first * HEAD, HEAD * sizeof(half));
    load_tile(5, s->query + first * HEAD + 32, HEAD * sizeof(half));
    for (int p = 0; p < KEYS / PANEL; p += 4) {
        const half *panels = keys + p * PANEL * HEAD;
        clear_tiles();
        for (int part = 0; part < 2; part++) {
            const half *from = panels + part * TILE_HALVES;
#define MULTIPLY(J, B)                                                                                                 \
    load_tile(B, from + J * PANEL * HEAD, TILE_BYTES);                                                                 \
    if (part)                                                                                                          \
        _tile_dpbf16ps(J, 5, B);                                                                                       \
    else                                                                                                               \
        _tile_dpbf16ps(J, 4, B)
            MULTIPLY(0, 6);
            MULTIPLY(1, 7);
            MULTIPLY(2, 6);
            MULTIPLY(3, 7);
#undef MULTIPLY
        }
        store_tiles(s->scores + p * PANEL, PANEL, KEYS * sizeof(float));
    }
}

/* A tile of weights by a block of values -> s->part. */
static void gather(Scratch *s, const half *values) {
    clear_tiles();
    for (int k = 0; k < KEYS; k += 32) {
        const half *from = values + k * PANEL;
        load_tile(4, s->weights + k, KEYS * sizeof(half));
        load_tile(6, from, TILE_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        load_tile(7, from + KEYS * PANEL, TILE_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        load_tile(6, from + 2 * KEYS * PANEL, TILE_BYTES);
        _tile_dpbf16ps(2, 4, 6);
        load_tile(7, from + 3 * KEYS * PANEL, TILE_BYTES);
        _tile_dpbf16ps(3, 4, 7);
    }
    store_tiles(s->part, PANEL, HEAD * sizeof(float));
}

/* One query's scores of n keys -> its weights, against the highest score so far; their sum by lanes. */
INLINE floats weigh(float *scores, int n, half *weights, float *top) {
    for (int i = n; i < KEYS; i++) scores[i] = -INFINITY;
    floats first = load_f32(scores), second = load_f32(scores + LANES), sum = all(0.0f);
    for (int i = 2 * LANES; i < KEYS; i += 2 * LANES) {
        first = larger(first, load_f32(scores + i));
        second = larger(second, load_f32(scores + i + LANES));
    }
    const float here = maximum_of(larger(first, second));
    *top = here > *top || isnan(here) ? here : *top;
    const floats highest = all(*top);
    for (int i = 0; i < KEYS; i += 2 * LANES) {
        const floats low = power_of_two(load_f32(scores + i) - highest);
        const floats high = power_of_two(load_f32(scores + i + LANES) - highest);
        const ints pairs = (ints)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
        memcpy(weights + i, &pairs, sizeof pairs);
        /* What is divided by is the sum of the rounded weights: they sum to one. */
        sum += (floats)(pairs << 16) + (floats)(pairs & (int32_t)0xffff0000);
    }
    return sum;
}

/* A tile of queries sees n keys: theirs joins what was seen before. */
static void see(Scratch *s, int first, int n, const half *keys, const half *values) {
    float *top = s->top + first, keep[ROWS];
    const floats before = load_f32(top);
    floats sums[ROWS];
    score(s, first, keys);
    for (int r = 0; r < ROWS; r++) sums[r] = weigh(s->scores + r * KEYS, n, s->weights + r * KEYS, top + r);
    gather(s, values);
    store_f32(keep, power_of_two(before - load_f32(top)));
    for (int r = 0; r < ROWS; r++) {
        float *sum = s->sum + (first + r) * LANES, *out = s->out + (first + r) * HEAD;
        store_f32(sum, load_f32(sum) * all(keep[r]) + sums[r]);
        for (int i = 0; i < HEAD; i += LANES)
            store_f32(out + i, load_f32(out + i) * all(keep[r]) + load_f32(s->part + r * HEAD + i));
    }
}

static void attend(Attention *a, Scratch *s, int head, int from, int count) {
    const size_t start = head * positions_of(a->n_ctx) * HEAD;
    take_queries(a, s, head, from, count);
    for (int block = 0; block < a->n_kv; block += KEYS) {
        const int n = a->n_kv - block < KEYS ? a->n_kv - block : KEYS;
        const size_t here = start + (size_t)block * HEAD;
        for (int t = 0; t < count; t += ROWS) see(s, t, n, a->keys + here, a->values + here);
    }
    for (int r = 0; r < count; r++) {
        const floats inverse = all(1.0f / sum_of(load_f32(s->sum + r * LANES)));
        float *out = a->out + ((size_t)(from + r) * a->n_head + head) * HEAD;
        for (int i = 0; i < HEAD; i += LANES) store_f32(out + i, load_f32(s->out + r * HEAD + i) * inverse);
    }
}

#endif
