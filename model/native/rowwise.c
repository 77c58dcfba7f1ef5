/* What stands between the int8 products of the encoder, row by row: a product's scales and bias, GELU, the residual, the
 * norm, the rounding to int8 for the next product. One pass over memory where torch's operators take one each.
 *
 * `deploy/native.sh` compiles this file beside decoder.c, `rowwise.py` calls it and checks every argument.
 *
 * Source: openai/whisper `model.py` (ResidualAttentionBlock).
 */
#include "pool.h"
#include "rows.h"

#define UNIT 16 /* rows of one unit of work */

/* One pass over rows (n, width). What is NULL is not done; the order is that of the fields. */
typedef struct {
    int32_t n, width;
    const float *in;
    const float *in_scales, *bias;         /* (n), (width): of a product */
    int32_t gelu;                          /* 0 or 1 */
    float *residual;                       /* (n, width): what it holds is added, and it holds the sum */
    float *out;                            /* (n, width), may be `in` */
    const float *norm_weight, *norm_bias;  /* (width) */
    uint8_t *rounded;                      /* (n, width) */
    float *scales;                         /* (n), of `rounded` */
} RowPass;

typedef struct {
    Pool pool;
    int width;   /* at most */
    float *rows; /* (n_threads, width) */
    const RowPass *pass;
} RowPasses;

static void pass_over(const RowPass *pass, int at, float *row) {
    const size_t start = (size_t)at * pass->width;
    const floats scale = all(pass->in_scales ? pass->in_scales[at] : 1.0f);
    for (int i = 0; i < pass->width; i += LANES) {
        floats v = load_f32(pass->in + start + i) * scale;
        if (pass->bias) v += load_f32(pass->bias + i);
        if (pass->gelu) v = gelu_f32(v);
        if (pass->residual) store_f32(pass->residual + start + i, v += load_f32(pass->residual + start + i));
        if (pass->out) store_f32(pass->out + start + i, v);
        store_f32(row + i, v);
    }
    if (pass->norm_weight) normalise(pass->norm_weight, pass->norm_bias, row, row, pass->width);
    if (pass->rounded) pass->scales[at] = quantise_row(row, pass->width, pass->rounded + start);
}

static void rows_job(void *argument, int thread) {
    RowPasses *passes = argument;
    const RowPass *pass = passes->pass;
    FOR_UNITS(unit, &passes->pool, 0, (pass->n + UNIT - 1) / UNIT) {
        for (int at = unit * UNIT; at < (unit + 1) * UNIT && at < pass->n; at++)
            pass_over(pass, at, passes->rows + (size_t)thread * passes->width);
    }
}

/* A pass over rows that are a multiple of 16 wide. One call at a time. */
EXPORT void rows_run(RowPasses *passes, const RowPass *pass) {
    passes->pass = pass;
    pool_run(&passes->pool, rows_job, passes);
}

EXPORT void rows_close(RowPasses *passes) {
    pool_close(&passes->pool);
    free(passes->rows);
    free(passes);
}

/* For rows of at most `width`. NULL where memory is short. */
EXPORT RowPasses *rows_open(int width, int n_threads) {
    RowPasses *passes = calloc(1, sizeof *passes);
    if (!passes) return NULL;
    passes->width = width;
    if (!pool_open(&passes->pool, n_threads, 1)) {
        free(passes);
        return NULL;
    }
    passes->rows = aligned_alloc(64, ((size_t)n_threads * width * sizeof(float) + 63) / 64 * 64);
    if (!passes->rows) {
        rows_close(passes);
        return NULL;
    }
    return passes;
}

/* Activations (n, n_in) -> uint8 around 128 and a scale for each row, on the caller's thread; n_in is a multiple of 16. */
EXPORT void quantise_rows(int n, int n_in, const float *x, uint8_t *out, float *scales) {
    for (int row = 0; row < n; row++) scales[row] = quantise_row(x + (size_t)row * n_in, n_in, out + (size_t)row * n_in);
}
