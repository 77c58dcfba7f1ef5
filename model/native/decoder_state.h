/* What a decoder keeps: weights and the memory of attention, which are its caller's, and scratch of its own; made at its
 * opening, given back at its closing.
 *
 * Layouts, innermost last (P = ceil(positions / 16), H = n_state / n_head):
 *   weights               (ceil(n_out / 16), n_in / GROUP, 16, GROUP) int8 (linear.h)
 *   keys                  (n_layer, rows, n_head, P, H, 16) float, so that a panel is 16 positions
 *   values                (n_layer, rows, n_head, H / 16, 16 P, 16) float
 *   cross_keys            (n_layer, windows, n_head, P, H / 2, 16, 2) int8
 *   cross_values          (n_layer, windows, n_head, H / 16, 8 P, 16, 2) int8
 *   their scales          (n_layer, windows, n_head, 16 P) float
 */
#ifndef DECODER_STATE_H
#define DECODER_STATE_H

#include "choose.h"
#include "linear.h"
#include "pool.h"

#define BLOCK 64 /* tokens in one pass; more are worked on block after block */
#define PHASES_PER_LAYER 8

typedef struct {
    const int8_t *weight;
    const float *scale, *bias; /* bias may be absent */
} Linear;

typedef struct {
    const float *weight, *bias;
} Norm;

typedef struct {
    Norm attn_ln;
    Linear attn_qkv, attn_out;
    Norm cross_ln;
    Linear cross_query, cross_out;
    Norm mlp_ln;
    Linear mlp_in, mlp_out;
} Layer;

typedef struct {
    int32_t n_state, n_head, n_layer, n_vocab, n_text_ctx, n_audio_ctx, n_rows, n_windows;
} Dims;

typedef struct {
    float *keys, *values;
    int8_t *cross_keys, *cross_values;
    float *cross_key_scales, *cross_value_scales;
} Memory;

typedef struct {
    int start, count; /* tokens of the block */
    int slot;         /* row or window */
} Tile;

typedef struct {
    float *normed;   /* (n_state) */
    int16_t *inputs; /* (BLOCK, 4 * n_state) */
    float input_scales[BLOCK];
    float *scores;    /* (TILE, positions) */
    int16_t *weights; /* the same: what the values are multiplied by */
    float sums[LINEAR_TILE * CHUNK * PANEL];
} Scratch;

/* One layer of a window to remember; see decoder_fill. */
typedef struct {
    int layer, window;
    const float *products, *row_scales, *bias;
} Fill;

typedef struct Decoder {
    Dims dims;
    Memory memory;
    Linear output; /* the embedding: its rows are also what tokens become */
    const float *column_scales; /* (n_state), of the embedding's columns */
    const float *positional_embedding;
    Norm ln;
    Layer *layers;
    int text_positions, audio_positions; /* rounded up to panels */
    int *window_ctx;                     /* positions that a window holds */
    Pool pool;
    Scratch *scratch;
    float *x, *query, *attended, *wide; /* (BLOCK, n_state), wide four times that */
    /* one block */
    int n, n_kept;
    const int32_t *tokens, *rows, *positions;
    Tile self_tiles[BLOCK], cross_tiles[BLOCK];
    int n_self_tiles, n_cross_tiles;
    const int32_t *kept;
    float *logits;
    const int32_t *watched; /* (n_layer, n_head): which page of `seen` notes this head's scores, -1 for none; or NULL */
    float *seen;            /* (heads, n_tokens, n_ctx) */
    int first_token, n_tokens;
    /* one choice */
    const float *choices; /* (n, n_vocab) */
    const Limits *limits;
    int timestamp_begin, n_chosen;
    int32_t *chosen; /* (n, n_chosen) */
    float *logprobs; /* the same */
    Fill fill;
} Decoder;

EXPORT void decoder_close(Decoder *d) {
    if (!d) return;
    const int n_threads = d->pool.n_threads;
    pool_close(&d->pool);
    for (int i = 0; d->scratch && i < n_threads; i++) {
        free(d->scratch[i].normed);
        free(d->scratch[i].inputs);
        free(d->scratch[i].scores);
        free(d->scratch[i].weights);
    }
    free(d->scratch);
    free(d->layers);
    free(d->window_ctx);
    free(d->x);
    free(d->query);
    free(d->attended);
    free(d->wide);
    free(d);
}

static float *room(size_t count) { return aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64); }

static bool make_room(Decoder *d, int n_threads) {
    const size_t n_state = (size_t)d->dims.n_state;
    const int longest = d->audio_positions > d->text_positions ? d->audio_positions : d->text_positions;
    bool good = d->layers && d->window_ctx;
    good &= (d->x = room(BLOCK * n_state)) != NULL;
    good &= (d->query = room(BLOCK * n_state)) != NULL;
    good &= (d->attended = room(BLOCK * n_state)) != NULL;
    good &= (d->wide = room(BLOCK * n_state * 4)) != NULL;
    good &= (d->scratch = calloc((size_t)n_threads, sizeof *d->scratch)) != NULL;
    for (int i = 0; good && i < n_threads; i++) {
        good &= (d->scratch[i].normed = room(n_state)) != NULL;
        /* A tile may reach beyond the last row by less than its width. */
        good &= (d->scratch[i].inputs = aligned_alloc(64, BLOCK * n_state * 4 * sizeof(int16_t) + 64)) != NULL;
        good &= (d->scratch[i].scores = room((size_t)TILE * longest)) != NULL;
        good &= (d->scratch[i].weights = (int16_t *)room((size_t)TILE * longest)) != NULL;
    }
    return good;
}

static Norm take_norm(const void ***next) {
    Norm norm = {(*next)[0], (*next)[1]};
    *next += 2;
    return norm;
}

static Linear take_linear(const void ***next) {
    Linear linear = {(*next)[0], (*next)[1], (*next)[2]};
    *next += 3;
    return linear;
}

/* `weights`: the embedding's panels and scales, NULL, its columns' scales, positions, final norm; then each layer's in the order of `Layer`.
 * All of it, and the memory, stays the caller's and must outlive the decoder. NULL where memory is short. */
EXPORT Decoder *decoder_open(const Dims *dims, const Memory *memory, const void **weights, int n_threads) {
    Decoder *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->dims = *dims;
    d->memory = *memory;
    d->text_positions = (dims->n_text_ctx + PANEL - 1) / PANEL * PANEL;
    d->audio_positions = (dims->n_audio_ctx + PANEL - 1) / PANEL * PANEL;
    d->layers = calloc((size_t)dims->n_layer, sizeof *d->layers);
    d->window_ctx = calloc((size_t)dims->n_windows, sizeof *d->window_ctx);
    if (!pool_open(&d->pool, n_threads, PHASES_PER_LAYER * dims->n_layer + 1)) {
        free(d->layers);
        free(d->window_ctx);
        free(d);
        return NULL;
    }
    if (!make_room(d, n_threads)) {
        decoder_close(d);
        return NULL;
    }
    const void **next = weights;
    d->output = take_linear(&next);
    d->column_scales = *next++;
    d->positional_embedding = *next++;
    d->ln = take_norm(&next);
    for (int i = 0; i < dims->n_layer; i++) {
        Layer *l = &d->layers[i];
        l->attn_ln = take_norm(&next);
        l->attn_qkv = take_linear(&next);
        l->attn_out = take_linear(&next);
        l->cross_ln = take_norm(&next);
        l->cross_query = take_linear(&next);
        l->cross_out = take_linear(&next);
        l->mlp_ln = take_norm(&next);
        l->mlp_in = take_linear(&next);
        l->mlp_out = take_linear(&next);
    }
    return d;
}

#endif
