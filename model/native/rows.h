/* Quantising by rows: the largest magnitude of a row becomes 127, whatever the rows beside it hold. */
#ifndef ROWS_H
#define ROWS_H

#include <math.h>
#include <stddef.h>

#include "vectors.h"

#define EXPORT __attribute__((visibility("default")))

INLINE float magnitude_of(const float *row, int n) {
    floats top = all(0.0f);
    for (int i = 0; i < n; i += LANES) top = larger(top, larger(load_f32(row + i), -load_f32(row + i)));
    return maximum_of(top);
}

/* One position of one head (size) -> int8 where a panel has it; its scale, zero for zeros. */
static float quantise_head(const float *from, int size, int8_t *to, size_t panel_stride, size_t stride) {
    const float magnitude = magnitude_of(from, size), inverse = magnitude > 0 ? 127.0f / magnitude : 0.0f;
    for (int p = 0; p < size / PANEL; p++)
        for (int i = 0; i < PANEL; i++)
            to[p * panel_stride + i * stride] = (int8_t)lrintf(from[p * PANEL + i] * inverse);
    return magnitude / 127.0f;
}

/* Activations (n, n_in) -> uint8 around 128 and a scale for each row; n_in is a multiple of 16. */
EXPORT void quantise_rows(int n, int n_in, const float *x, uint8_t *out, float *scales) {
    for (int row = 0; row < n; row++, x += n_in, out += n_in) {
        const float magnitude = magnitude_of(x, n_in), inverse = magnitude > 0 ? 127.0f / magnitude : 0.0f;
        /* Positive, so that truncation after adding a half rounds. */
        for (int i = 0; i < n_in; i++) out[i] = (uint8_t)(int)(x[i] * inverse + 128.5f);
        scales[row] = magnitude / 127.0f;
    }
}

#endif
