/* Rows of float32 times panels of int8 or float32: the one product that the whole decoder is made of.
 *
 * A panel holds 16 neighbouring outputs, input by input: (n_in, 16). Each output of each row is one chain of
 * multiply-adds over the inputs in their order, whatever rows and panels are worked on beside it, so that a row's
 * result is the same bits alone and among others.
 */
#ifndef MULTIPLY_H
#define MULTIPLY_H

#include <stddef.h>

#include "vectors.h"

#define TILE 6 /* rows that share a pass over a panel: twelve sums, two weights and an input fill AVX2's registers */

/* With few rows the sums of several panels hide the latency of a multiply-add; how the operands are ordered keeps all of
 * them in registers. */
#define UNROLL _Pragma("GCC unroll 8")

#define DEFINE_PRODUCT(NAME, TYPE, LOAD)                                                                               \
    INLINE void NAME##_tile(const int rows, const int panels, const TYPE *w, size_t panel_stride, const float *x,      \
                            size_t x_stride, int n_in, float *out, size_t out_stride) {                                \
        floats sum[TILE][4][PARTS];                                                                                    \
        UNROLL for (int r = 0; r < rows; r++)                                                                          \
            UNROLL for (int p = 0; p < panels; p++)                                                                    \
                UNROLL for (int i = 0; i < PARTS; i++) sum[r][p][i] = all(0.0f);                                       \
        for (int k = 0; k < n_in; k++) {                                                                               \
            const TYPE *here = w + (size_t)k * PANEL;                                                                  \
            if (rows <= 3) {                                                                                           \
                floats input[3];                                                                                       \
                UNROLL for (int r = 0; r < rows; r++) input[r] = all(x[r * x_stride + k]);                             \
                UNROLL for (int p = 0; p < panels; p++) UNROLL for (int i = 0; i < PARTS; i++) {                       \
                    floats weight = LOAD(here + p * panel_stride + i * LANES);                                         \
                    UNROLL for (int r = 0; r < rows; r++) sum[r][p][i] += input[r] * weight;                           \
                }                                                                                                      \
            } else {                                                                                                   \
                floats weight[PARTS];                                                                                  \
                UNROLL for (int i = 0; i < PARTS; i++) weight[i] = LOAD(here + i * LANES);                             \
                UNROLL for (int r = 0; r < rows; r++) {                                                                \
                    floats input = all(x[r * x_stride + k]);                                                           \
                    UNROLL for (int i = 0; i < PARTS; i++) sum[r][0][i] += input * weight[i];                          \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int r = 0; r < rows; r++)                                                                          \
            UNROLL for (int p = 0; p < panels; p++)                                                                    \
                UNROLL for (int i = 0; i < PARTS; i++)                                                                 \
                    store_f32(out + r * out_stride + p * PANEL + i * LANES, sum[r][p][i]);                             \
    }                                                                                                                  \
    /* out (rows, 16 * n_panels) = x (rows <= TILE, n_in) times the panels */                                          \
    static void NAME(int rows, int n_panels, const TYPE *w, size_t panel_stride, const float *x, size_t x_stride,      \
                     int n_in, float *out, size_t out_stride) {                                                        \
        int p = 0;                                                                                                     \
        if (rows == 1)                                                                                                 \
            for (; p + 4 <= n_panels; p += 4)                                                                          \
                NAME##_tile(1, 4, w + p * panel_stride, panel_stride, x, x_stride, n_in, out + p * PANEL, out_stride); \
        if (rows == 2)                                                                                                 \
            for (; p + 2 <= n_panels; p += 2)                                                                          \
                NAME##_tile(2, 2, w + p * panel_stride, panel_stride, x, x_stride, n_in, out + p * PANEL, out_stride); \
        if (rows == 3)                                                                                                 \
            for (; p + 2 <= n_panels; p += 2)                                                                          \
                NAME##_tile(3, 2, w + p * panel_stride, panel_stride, x, x_stride, n_in, out + p * PANEL, out_stride); \
        for (; p < n_panels; p++) {                                                                                    \
            const TYPE *panel = w + p * panel_stride;                                                                  \
            float *to = out + p * PANEL;                                                                               \
            switch (rows) {                                                                                            \
            case 1: NAME##_tile(1, 1, panel, panel_stride, x, x_stride, n_in, to, out_stride); break;                  \
            case 2: NAME##_tile(2, 1, panel, panel_stride, x, x_stride, n_in, to, out_stride); break;                  \
            case 3: NAME##_tile(3, 1, panel, panel_stride, x, x_stride, n_in, to, out_stride); break;                  \
            case 4: NAME##_tile(4, 1, panel, panel_stride, x, x_stride, n_in, to, out_stride); break;                  \
            case 5: NAME##_tile(5, 1, panel, panel_stride, x, x_stride, n_in, to, out_stride); break;                  \
            default: NAME##_tile(6, 1, panel, panel_stride, x, x_stride, n_in, to, out_stride); break;                 \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_PRODUCT(multiply_i8, int8_t, load_i8)
DEFINE_PRODUCT(multiply_f32, float, load_f32)

/* Rows of the next tile when so many are left: as even as can be, because seven rows are better 4 + 3 than 6 + 1. */
INLINE int next_tile(int rows) {
    int tiles = (rows + TILE - 1) / TILE;
    return (rows + tiles - 1) / tiles;
}

#endif
