/* The products of the decoder's linear layers: rows of activations in 16 bits by panels of int8 weights.
 *
 * Weights are laid out in groups of GROUP inputs, (ceil(n_out / 16), n_in / GROUP, 16, GROUP), filled up with zeros to
 * `padded_inputs`. With AMX a tile takes 64 inputs of 16 outputs at once; an activation of 16 bits is two rows of it, its
 * high and its low byte, whose sums are put together again. The sums are the same whole numbers either way.
 */
#ifndef LINEAR_H
#define LINEAR_H

#include "multiply.h"
#include "rows.h"
#include "tiles.h"

#define CHUNK 4 /* panels in one product at most */

DEFINE_PRODUCT(multiply_i8, int8_t, int16_t, ints, shorts, 2, load_pairs, all_pairs, add_pairs, to_f32)

#if defined(__AMX_INT8__)

#define GROUP 4
#define LINEAR_TILE (ROWS / 2)

INLINE int padded_inputs(int n_in) { return (n_in + 63) / 64 * 64; }

/* Rows of the next tile when so many are left. */
INLINE int next_rows(int left) { return left < LINEAR_TILE ? left : LINEAR_TILE; }

/* An activation (n_in) -> its high bytes, then its low ones; their scale. */
INLINE float round_inputs(const float *x, int n_in, int16_t *to) {
    typedef int8_t bytes __attribute__((vector_size(LANES)));
    int8_t *high = (int8_t *)to, *low = high + n_in;
    const float largest = largest_input(n_in), magnitude = magnitude_of(x, n_in);
    const floats inverse = all(magnitude > 0 ? largest / magnitude : 0.0f);
    const floats round = all(12582912.0f); /* as `quantise_inputs` does, to the bit */
    for (int i = 0; i < n_in; i += LANES) {
        const ints whole = (ints)(load_f32(x + i) * inverse + round) - (ints)round, tail = whole << 24 >> 24;
        const bytes heads = __builtin_convertvector((whole - tail) >> 8, bytes), tails = __builtin_convertvector(tail, bytes);
        memcpy(high + i, &heads, sizeof heads);
        memcpy(low + i, &tails, sizeof tails);
    }
    return magnitude / largest;
}

/* Up to LINEAR_TILE rows, as `round_inputs` leaves them, times up to CHUNK panels -> sums (rows, CHUNK * PANEL). What a
 * tile holds beyond the rows, and beyond n_in, is multiplied and thrown away, or by zeros. */
static void multiply_rows(int rows, int panels, const int8_t *w, const int16_t *x, int n_in, float *sums) {
    const size_t panel = (size_t)padded_inputs(n_in) * PANEL;
    int32_t parts[CHUNK][ROWS][PANEL];
    clear_tiles();
    for (int k = 0; k < n_in; k += 64) {
        const int8_t *here = w + (size_t)k * PANEL;
        load_tile(4, (const int8_t *)x + k, n_in);
        load_tile(5, here, TILE_BYTES);
        _tile_dpbssd(0, 4, 5);
        if (panels == 1) continue;
        load_tile(6, here + panel, TILE_BYTES);
        _tile_dpbssd(1, 4, 6);
        if (panels == 2) continue;
        load_tile(5, here + 2 * panel, TILE_BYTES);
        _tile_dpbssd(2, 4, 5);
        if (panels == 3) continue;
        load_tile(6, here + 3 * panel, TILE_BYTES);
        _tile_dpbssd(3, 4, 6);
    }
    store_tiles(parts[0][0], ROWS * PANEL, PANEL * sizeof(int32_t));
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) {
            ints high, low;
            memcpy(&high, parts[p][2 * r], sizeof high);
            memcpy(&low, parts[p][2 * r + 1], sizeof low);
            store_f32(sums + (r * CHUNK + p) * PANEL, to_f32((high << 8) + low));
        }
}

#else

#define GROUP 2
#define LINEAR_TILE TILE

INLINE int padded_inputs(int n_in) { return n_in; }
INLINE int next_rows(int left) { return next_tile(left); }
INLINE float round_inputs(const float *x, int n_in, int16_t *to) {
    return quantise_inputs(x, n_in, largest_input(n_in), to);
}

static void multiply_rows(int rows, int panels, const int8_t *w, const int16_t *x, int n_in, float *sums) {
    multiply_i8(rows, panels, w, (size_t)n_in * PANEL, x, (size_t)n_in, n_in, sums, CHUNK * PANEL);
}

#endif

#endif
