/* What is done to a row by itself, whatever the rows beside it hold. Rounded, its largest magnitude becomes 127. */
#ifndef ROWS_H
#define ROWS_H

#include <math.h>
#include <stddef.h>

#include "vectors.h"

INLINE float magnitude_of(const float *row, int n) {
    floats top = all(0.0f);
    for (int i = 0; i < n; i += LANES) top = larger(top, larger(load_f32(row + i), -load_f32(row + i)));
    return maximum_of(top);
}

/* One position of one head (size, a multiple of LANES) -> int8; its scale, zero for zeros. */
INLINE float quantise_head(const float *from, int size, int8_t *to) {
    typedef int8_t bytes __attribute__((vector_size(LANES)));
    const float magnitude = magnitude_of(from, size);
    const floats inverse = all(magnitude > 0 ? 127.0f / magnitude : 0.0f);
    for (int i = 0; i < size; i += LANES) {
        const bytes whole = __builtin_convertvector(nearest(load_f32(from + i) * inverse), bytes);
        memcpy(to + i, &whole, sizeof whole);
    }
    return magnitude / 127.0f;
}

/* n inputs of a product (a multiple of LANES) -> int16 of at most `largest`; their scale. */
INLINE float quantise_inputs(const float *from, int n, float largest, int16_t *to) {
    typedef int16_t halves __attribute__((vector_size(2 * LANES)));
    const float magnitude = magnitude_of(from, n);
    const floats inverse = all(magnitude > 0 ? largest / magnitude : 0.0f);
    const floats round = all(12582912.0f); /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    for (int i = 0; i < n; i += LANES) {
        halves whole = __builtin_convertvector((ints)(load_f32(from + i) * inverse + round), halves);
        memcpy(to + i, &whole, sizeof whole);
    }
    return magnitude / largest;
}

/* Mean 0 and variance 1, then weight and bias (n each), out of place or in it. */
INLINE void normalise(const float *weight, const float *bias, const float *x, float *out, int n) {
    floats sum = all(0.0f), squares = all(0.0f);
    for (int i = 0; i < n; i += LANES) sum += load_f32(x + i);
    const floats mean = all(sum_of(sum) / (float)n);
    for (int i = 0; i < n; i += LANES) {
        floats centred = load_f32(x + i) - mean;
        squares += centred * centred;
    }
    const floats inverse = all(1.0f / sqrtf(sum_of(squares) / (float)n + 1e-5f));
    for (int i = 0; i < n; i += LANES) {
        floats scaled = (load_f32(x + i) - mean) * inverse;
        store_f32(out + i, scaled * load_f32(weight + i) + load_f32(bias + i));
    }
}

/* Activations of a row -> uint8 around 128; its scale. */
INLINE float quantise_row(const float *x, int n, uint8_t *out) {
    const float magnitude = magnitude_of(x, n), inverse = magnitude > 0 ? 127.0f / magnitude : 0.0f;
    /* Positive, so that truncation after adding a half rounds. */
    for (int i = 0; i < n; i++) out[i] = (uint8_t)(int)(x[i] * inverse + 128.5f);
    return magnitude / 127.0f;
}

#endif
