/* attention.c over whole numbers of 16 bits: twice as many products an instruction as in float32.
 *
 * Where the rounding is, and why nothing overflows:
 *   queries, keys  to whole vectors of length 46330, one scale a query and one a head's keys. A score is at most
 *                  46340^2 < 2^31 by Cauchy and Schwarz, and its error some 1e-5 of what the lengths allow.
 *   weights        to WEIGHT_BITS of the largest among KEYS neighbours, so that a peak elsewhere costs them nothing. What
 *                  they are divided by is the sum of the *rounded* weights: they sum to one.
 *   values         to LARGEST_VALUE of the largest of their channel: a sum over KEYS fits, and goes on in float32.
 *
 * Layouts, innermost last (P = positions rounded up to KEYS):
 *   keys    (n_head, P / 16, 32, 16, 2) int16: a panel is 16 positions, pair of channels by pair
 *   values  (n_head, P / KEYS, 4, KEYS / 2, 16, 2) int16: a panel is 16 channels, pair of positions by pair
 *
 * Source: "Attention Is All You Need"; the softmax block by block is that of "FlashAttention".
 */
#ifndef ATTENTION_I16_H
#define ATTENTION_I16_H

#include <math.h>

#include "multiply.h"

#define STEP (2 * LANES > PANEL ? 2 * LANES : PANEL) /* scores are weighed so many at a time: a block is a multiple */
#define SCALES (1 + HEAD) /* of a head: of its keys, then of each channel of its values */
#define WEIGHT_BITS 13
#define LARGEST_VALUE (INT32_MAX / (KEYS << WEIGHT_BITS))
#define LENGTH 46330.0f /* rounding 64 channels makes it longer by 4 at most */
#define NOTHING 1e-15f  /* vectors and channels below are zeros: their squares and inverses leave float32 */

DEFINE_PRODUCT(multiply_i16, int16_t, int16_t, ints, shorts, 2, load_i16, all_pairs, add_pairs, to_f32)

struct Scratch {
    int16_t query[UNIT * HEAD];
    float scale[UNIT]; /* of a query's scores, which are in powers of two */
    float top[UNIT];
    float sum[UNIT * LANES], out[UNIT * HEAD]; /* of weights, and of values by weights, as if `top` were 0 */
    /* one tile and block */
    float scores[TILE * KEYS];
    int16_t weights[TILE * KEYS];
    float part[TILE * HEAD];
};

INLINE float inverse_of(float scale) { return scale == 0.0f ? 0.0f : 1.0f / scale; }

/* What one is of a head's vectors whose longest has this square and whose largest channel is this. No number if it is. */
static float scale_of(float square, float largest) {
    const float by_length = sqrtf(square) / LENGTH, by_channel = largest / INT16_MAX;
    if (square < NOTHING * NOTHING) return 0.0f;
    return by_channel > by_length ? by_channel : by_length;
}

static void round_row(const float *from, float inverse, int16_t *to) {
    for (int i = 0; i < HEAD; i += 2 * LANES)
        store_i16(to + i, narrow(nearest(load_f32(from + i) * all(inverse)), nearest(load_f32(from + i + LANES) * all(inverse))));
}

static void pack_keys(Attention *a, int head) {
    const float *from = a->kv + head * HEAD;
    int16_t *to = a->keys + head * positions_of(a->n_ctx) * HEAD;
    float square = 0.0f;
    floats largest = all(0.0f);
    for (int j = 0; j < a->n_kv; j++) {
        floats squares = all(0.0f);
        for (int i = 0; i < HEAD; i += LANES) {
            const floats key = load_f32(from + j * a->kv_stride + i);
            squares += key * key;
            largest = larger(largest, larger(key, -key));
        }
        const float of_key = sum_of(squares);
        if (of_key > square || isnan(of_key)) square = of_key;
    }
    const float scale = scale_of(square, maximum_of(largest)), inverse = inverse_of(scale);
    for (int j = 0; j < a->n_kv; j++) {
        int16_t row[HEAD], *panel = to + (size_t)(j / PANEL) * PANEL * HEAD + j % PANEL * 2;
        round_row(from + j * a->kv_stride, inverse, row);
        for (int i = 0; i < HEAD; i += 2) memcpy(panel + i * PANEL, row + i, 2 * sizeof *row);
    }
    a->scales[head * SCALES] = scale;
}

/* Positions beyond the last become zeros as far as a panel of weights may reach; keys there stay what they are. */
static void pack_values(Attention *a, int head) {
    const int padded = (a->n_kv + PANEL - 1) / PANEL * PANEL;
    for (int i = 0; i < HEAD; i += LANES) {
        const float *from = a->kv + (a->n_head + head) * HEAD + i;
        int16_t *to = a->values + head * positions_of(a->n_ctx) * HEAD + (size_t)(i / PANEL) * KEYS * PANEL + i % PANEL * 2;
        floats largest = all(0.0f);
        for (int j = 0; j < a->n_kv; j++) {
            const floats value = load_f32(from + j * a->kv_stride);
            largest = larger(largest, larger(value, -value));
        }
        const ints there = largest >= all(NOTHING);
        const floats scale = (floats)((ints)(largest / all(LARGEST_VALUE)) & there);
        const floats inverse = (floats)((ints)(all(LARGEST_VALUE) / largest) & there);
        for (int j = 0; j < padded; j += 2) {
            ints even = {0}, odd = {0};
            if (j < a->n_kv) even = nearest(load_f32(from + j * a->kv_stride) * inverse);
            if (j + 1 < a->n_kv) odd = nearest(load_f32(from + (j + 1) * a->kv_stride) * inverse);
            const ints pairs = (even & 0xffff) | (odd << 16);
            memcpy(to + (size_t)(j / KEYS) * KEYS * HEAD + j % KEYS * PANEL, &pairs, sizeof pairs);
        }
        store_f32(a->scales + head * SCALES + 1 + i, scale);
    }
}

static void take_queries(const Attention *a, Scratch *s, int head, int from, int count) {
    for (int r = 0; r < count; r++) {
        const float *row = a->query + (from + r) * a->query_stride + head * HEAD;
        floats squares = all(0.0f), largest = all(0.0f);
        for (int i = 0; i < HEAD; i += LANES) {
            const floats query = load_f32(row + i);
            squares += query * query;
            largest = larger(largest, larger(query, -query));
        }
        const float scale = scale_of(sum_of(squares), maximum_of(largest));
        round_row(row, inverse_of(scale), s->query + r * HEAD);
        s->scale[r] = scale * a->scales[head * SCALES] * 1.44269504f / sqrtf(HEAD); /* log2(e): e^x is 2^(x log2(e)) */
        s->top[r] = -1e30f;
    }
    memset(s->sum, 0, sizeof s->sum);
    memset(s->out, 0, sizeof s->out);
}

/* Weights of one query for n keys, in 2^WEIGHT_BITS of the largest; their sum by lanes. */
INLINE floats weigh(float *scores, int n, float scale, int16_t *weights, float *top) {
    const int padded = (n + STEP - 1) / STEP * STEP;
    for (int i = n; i < padded; i++) scores[i] = -INFINITY;
    floats first = load_f32(scores), second = load_f32(scores + LANES);
    for (int i = 0; i < padded; i += 2 * LANES) {
        first = larger(first, load_f32(scores + i));
        second = larger(second, load_f32(scores + i + LANES));
    }
    const float largest = maximum_of(larger(first, second));
    ints sum = {0};
    for (int i = 0; i < padded; i += 2 * LANES) {
        const floats low = (load_f32(scores + i) - all(largest)) * all(scale) + all(WEIGHT_BITS);
        const floats high = (load_f32(scores + i + LANES) - all(largest)) * all(scale) + all(WEIGHT_BITS);
        const ints low_weights = nearest(exp2_f32(low)), high_weights = nearest(exp2_f32(high));
        store_i16(weights + i, narrow(low_weights, high_weights));
        sum += low_weights + high_weights;
    }
    *top = largest * scale;
    return to_f32(sum);
}

/* A tile of queries sees n keys: theirs joins what was seen before. */
static void see(Scratch *s, int first, int rows, int n, const int16_t *keys, const int16_t *values) {
    const int panels = (n + PANEL - 1) / PANEL;
    float keep[PANEL] = {0}, add[PANEL] = {0};
    multiply_i16(rows, panels, keys, HEAD * PANEL, s->query + first * HEAD, HEAD, HEAD, s->scores, KEYS);
    floats sums[TILE];
    for (int r = 0; r < rows; r++) {
        float *top = s->top + first + r, here;
        sums[r] = weigh(s->scores + r * KEYS, n, s->scale[first + r], s->weights + r * KEYS, &here);
        const float highest = *top > here ? *top : here;
        keep[r] = *top - highest;
        add[r] = here - highest;
        *top = highest;
    }
    for (int i = 0; i < TILE; i += LANES) {
        store_f32(keep + i, exp2_f32(load_f32(keep + i)));
        store_f32(add + i, exp2_f32(load_f32(add + i)));
    }
    multiply_i16(rows, HEAD / PANEL, values, KEYS * PANEL, s->weights, KEYS, panels * PANEL, s->part, HEAD);
    for (int r = 0; r < rows; r++) {
        float *sum = s->sum + (first + r) * LANES, *out = s->out + (first + r) * HEAD;
        store_f32(sum, load_f32(sum) * all(keep[r]) + sums[r] * all(add[r]));
        for (int i = 0; i < HEAD; i += LANES)
            store_f32(out + i, load_f32(out + i) * all(keep[r]) + load_f32(s->part + r * HEAD + i) * all(add[r]));
    }
}

static void attend(Attention *a, Scratch *s, int head, int from, int count) {
    const size_t start = head * positions_of(a->n_ctx) * HEAD;
    take_queries(a, s, head, from, count);
    for (int block = 0; block < a->n_kv; block += KEYS) {
        const int n = a->n_kv - block < KEYS ? a->n_kv - block : KEYS;
        const size_t here = start + (size_t)block * HEAD;
        for (int t = 0, rows; t < count; t += rows) {
            rows = next_tile(count - t);
            see(s, t, rows, n, a->keys + here, a->values + here);
        }
    }
    for (int r = 0; r < count; r++) {
        const floats inverse = all(1.0f / sum_of(load_f32(s->sum + r * LANES)));
        float *out = a->out + ((size_t)(from + r) * a->n_head + head) * HEAD;
        for (int i = 0; i < HEAD; i += LANES)
            store_f32(out + i, load_f32(s->out + r * HEAD + i) * inverse * load_f32(a->scales + head * SCALES + 1 + i));
    }
}

#endif
