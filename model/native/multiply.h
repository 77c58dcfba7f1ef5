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

#define TILE 6 /* rows that share a pass over panels */

/* Panels that a tile of so many rows works on at a time. Their sums hide the latency of a multiply-add, and with what is
 * loaded for them fill the registers: 16 of AVX2, of which six rows take twelve for one panel; 32 of AVX-512. */
#if LANES == 16
#define PANELS_FOR(ROWS) 4
#else
#define PANELS_FOR(ROWS) ((ROWS) == 1 ? 4 : (ROWS) <= 3 ? 2 : 1)
#endif

/* How the operands are ordered keeps all sums in registers. */
#define UNROLL _Pragma("GCC unroll 8")

/* So many rows, and the panels from the pth on. */
#define ROWS_OF(NAME, ROWS)                                                                                            \
    for (; p + PANELS_FOR(ROWS) <= n_panels; p += PANELS_FOR(ROWS))                                                    \
        NAME##_tile(ROWS, PANELS_FOR(ROWS), w + p * panel_stride, panel_stride, x, x_stride, n_in, out + p * PANEL,    \
                    out_stride);                                                                                       \
    for (; p < n_panels; p++)                                                                                          \
        NAME##_tile(ROWS, 1, w + p * panel_stride, panel_stride, x, x_stride, n_in, out + p * PANEL, out_stride)

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
                VECTOR weight[4][PARTS];                                                                               \
                UNROLL for (int p = 0; p < panels; p++) UNROLL for (int i = 0; i < PARTS; i++)                         \
                    weight[p][i] = LOAD(here + p * panel_stride + i * LANES * AT_ONCE);                                \
                UNROLL for (int r = 0; r < rows; r++) {                                                                \
                    VECTOR input = SPREAD(x + r * x_stride + k);                                                       \
                    UNROLL for (int p = 0; p < panels; p++) UNROLL for (int i = 0; i < PARTS; i++)                     \
                        sum[r][p][i] = ADD(sum[r][p][i], input, weight[p][i]);                                         \
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
        switch (rows) {                                                                                                \
        case 1: ROWS_OF(NAME, 1); break;                                                                               \
        case 2: ROWS_OF(NAME, 2); break;                                                                               \
        case 3: ROWS_OF(NAME, 3); break;                                                                               \
        case 4: ROWS_OF(NAME, 4); break;                                                                               \
        case 5: ROWS_OF(NAME, 5); break;                                                                               \
        default: ROWS_OF(NAME, 6); break;                                                                              \
        }                                                                                                              \
    }

INLINE floats all_of(const float *p) { return all(*p); }
INLINE floats add_product(floats sum, floats a, floats b) { return sum + a * b; }
INLINE floats itself(floats v) { return v; }

/* The largest magnitude that inputs may have: n_in products with an int8 stay below 2^31, and both bytes of an input are
 * numbers from -128 to 127 (linear.h). */
INLINE float largest_input(int n_in) {
    const int largest = INT32_MAX / (127 * n_in), two_bytes = 127 * 256 + 127;
    return (float)(largest < two_bytes ? largest : two_bytes);
}

/* Rows of the next tile when so many are left: as even as can be, because seven rows are better 4 + 3 than 6 + 1. */
INLINE int next_tile(int rows) {
    int tiles = (rows + TILE - 1) / TILE;
    return (rows + tiles - 1) / tiles;
}

#endif
