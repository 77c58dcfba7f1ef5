/* The encoder's self-attention in 16-bit numbers: whole ones in vectors (attention_i16.h), or bfloat16 in tiles where the CPU
 * has AMX (attention_bf16.h).
 *
 * `deploy/native.sh` compiles this file beside decoder.c, `attention.py` calls it and checks every argument. One call is
 * one layer of one window, in two phases (pool.h): a unit of the first lays the keys and values of one head out in panels,
 * a unit of the second attends for up to UNIT queries of one head. There may be fewer queries than keys (`model.network.padding`).
 * A query's result is a function of itself and of all keys and values, the same bits beside any other queries.
 */
#include "pool.h"
#include "tiles.h"

#define HEAD 64  /* channels of a head, in all sizes of Whisper */
#define KEYS 128 /* positions in a block: keys and values of a block are 32 KB */
#define UNIT 96  /* queries in a unit of work: tiles that find the block's keys and values near */

typedef struct Scratch Scratch; /* of a thread */

typedef struct {
    int n_head, n_ctx;
    Pool pool;
    Scratch *scratch;
    int16_t *keys, *values;
    float *scales; /* (n_head, SCALES) */
    /* one call */
    int n_query, n_kv;
    const float *query, *kv;
    size_t query_stride, kv_stride;
    float *out;
} Attention;

static size_t positions_of(int n) { return (size_t)(n + KEYS - 1) / KEYS * KEYS; }

/* They have pack_keys, pack_values and attend, what they need of scratch, and how many SCALES they keep of a head. */
#if defined(__AMX_BF16__)
#include "attention_bf16.h"
#else
#include "attention_i16.h"
#endif

static void attention_job(void *argument, int thread) {
    Attention *a = argument;
    const int units = (a->n_query + UNIT - 1) / UNIT;
    FOR_UNITS(head, &a->pool, 0, a->n_head) {
        pack_keys(a, head);
        pack_values(a, head);
    }
    open_tiles();
    FOR_UNITS(unit, &a->pool, 1, units * a->n_head) {
        const int from = unit % units * UNIT, left = a->n_query - from;
        attend(a, a->scratch + thread, unit / units, from, left < UNIT ? left : UNIT);
    }
    close_tiles();
}

/* Queries (n_query, n_state), at least one, and keys beside values (n_kv, 2 * n_state), at most n_ctx, in rows so many
 * floats apart -> out (n_query, n_state). One call at a time. */
EXPORT void attention_run(Attention *a, int n_query, const float *query, int64_t query_stride, int n_kv, const float *kv,
                          int64_t kv_stride, float *out) {
    a->n_query = n_query;
    a->query = query;
    a->query_stride = (size_t)query_stride;
    a->n_kv = n_kv;
    a->kv = kv;
    a->kv_stride = (size_t)kv_stride;
    a->out = out;
    pool_run(&a->pool, attention_job, a);
}

EXPORT void attention_close(Attention *a) {
    pool_close(&a->pool);
    free(a->scratch);
    free(a->keys);
    free(a->values);
    free(a->scales);
    free(a);
}

static void *room(size_t size) { return aligned_alloc(64, size / 64 * 64 + 64); }

/* For heads of 64 channels. NULL where memory is short. */
EXPORT Attention *attention_open(int n_head, int n_ctx, int n_threads) {
    Attention *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->n_head = n_head;
    a->n_ctx = n_ctx;
    if (!pool_open(&a->pool, n_threads, 2)) {
        free(a);
        return NULL;
    }
    const size_t size = (size_t)n_head * positions_of(n_ctx) * HEAD * sizeof(int16_t);
    bool good = (a->scratch = room((size_t)n_threads * sizeof *a->scratch)) != NULL;
    good &= (a->keys = room(size)) != NULL;
    good &= (a->values = room(size)) != NULL;
    good &= (a->scales = room((size_t)n_head * SCALES * sizeof(float))) != NULL;
    if (!good) {
        attention_close(a);
        return NULL;
    }
    return a;
}
