/* Rows times panels, the one product that the decoder and the encoder's attention are made of: int16 by int8 or by
 * int16, or float32 by float32.
 *
 * A panel holds 16 neighbouring outputs, input by input, (n_in, 16), or pair of inputs by pair where they are whole
 * numbers, (n_in / 2, 16, 2). Their sums are whole numbers in 32 bits: with int8, `largest_input` is how large an int16
 * may be for them to fit. Each float32 output of each row is one chain of multiply-adds over the inputs in their order.
 * So a row's result is the same bits alone and among others, whatever rows and panels are worked on beside it.
 */
#ifndef MULTIPLY_H
#define MULTIPLY_H

#include <stddef.h>

#include "vectors.h"

#define TILE 6 /* rows that share a pass over a panel: twelve sums, two weights and an input fill AVX2's registers */

/* With few rows the sums of several panels hide the latency of a multiply-add; how the operands are ordered keeps all of
 * them in registers. */
#define UNROLL _Pragma("GCC unroll 8")

/* AT_ONCE: inputs that one step takes; SPREAD gives one row's to all lanes, ADD multiplies and adds. */
#define DEFINE_PRODUCT(NAME, WEIGHT, INPUT, SUM, VECTOR, AT_ONCE, LOAD, SPREAD, ADD, RESULT)                           \
    INLINE void NAME##_tile(const int rows, const int panels, const WEIGHT *w, size_t panel_stride, const INPUT *x,    \
                            size_t x_stride, int n_in, float *out, size_t out_stride) {                                \
        SUM sum[TILE][4][PARTS];                                                                                       \
        UNROLL for (int r = 0; r < rows; r++)                                                                          \
            UNROLL for (int p = 0; p < panels; p++)                                                                    \
                UNROLL for (int i = 0; i < PARTS; i++) sum[r][p][i] = (SUM){0};                                        \
        for (int k = 0; k < n_in; k += AT_ONCE) {                                                                      \
            const WEIGHT *here = w + (size_t)k * PANEL;                                                                \
            if (rows <= 3) {                                                                                           \
                VECTOR input[3];                                                                                       \
                UNROLL for (int r = 0; r < rows; r++) input[r] = SPREAD(x + r * x_stride + k);                         \
                UNROLL for (int p = 0; p < panels; p++) UNROLL for (int i = 0; i < PARTS; i++) {                       \
                    VECTOR weight = LOAD(here + p * panel_stride + i * LANES * AT_ONCE);                               \
                    UNROLL for (int r = 0; r < rows; r++) sum[r][p][i] = ADD(sum[r][p][i], input[r], weight);          \
                }                                                                                                      \
            } else {                                                                                                   \
                VECTOR weight[PARTS];                                                                                  \
                UNROLL for (int i = 0; i < PARTS; i++) weight[i] = LOAD(here + i * LANES * AT_ONCE);                   \
                UNROLL for (int r = 0; r < rows; r++) {                                                                \
                    VECTOR input = SPREAD(x + r * x_stride + k);                                                       \
                    UNROLL for (int i = 0; i < PARTS; i++) sum[r][0][i] = ADD(sum[r][0][i], input, weight[i]);         \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int r = 0; r < rows; r++)                                                                          \
            UNROLL for (int p = 0; p < panels; p++)                                                                    \
                UNROLL for (int i = 0; i < PARTS; i++)                                                                 \
                    store_f32(out + r * out_stride + p * PANEL + i * LANES, RESULT(sum[r][p][i]));                     \
    }                                                                                                                  \
    /* out (rows, 16 * n_panels) = x (rows <= TILE, n_in) times the panels */                                          \
    static void NAME(int rows, int n_panels, const WEIGHT *w, size_t panel_stride, const INPUT *x, size_t x_stride,    \
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
            const WEIGHT *panel = w + p * panel_stride;                                                                \
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

INLINE floats all_of(const float *p) { return all(*p); }
INLINE floats add_product(floats sum, floats a, floats b) { return sum + a * b; }
INLINE floats itself(floats v) { return v; }

/* The largest magnitude that inputs may have: n_in products with an int8 stay below 2^31. */
INLINE float largest_input(int n_in) {
    const int largest = INT32_MAX / (127 * n_in);
    return (float)(largest < INT16_MAX ? largest : INT16_MAX);
}

/* Rows of the next tile when so many are left: as even as can be, because seven rows are better 4 + 3 than 6 + 1. */
INLINE int next_tile(int rows) {
    int tiles = (rows + TILE - 1) / TILE;
    return (rows + tiles - 1) / tiles;
}

#endif
