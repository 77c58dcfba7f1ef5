/* A whole pass of Whisper's text decoder in one call: tokens in, logits out, attention memory kept between calls.
 *
 * `deploy/native.sh` compiles this file, `library.py` loads it, `inference.py` owns the memory and checks every argument: nothing here
 * allocates during a pass or checks a bound. Weights are int8 with one scale an output, the memory of the audio is int8
 * with one scale a position and head, that of the text float32. Activations are float32; what is multiplied by int8 is
 * rounded to int16 first, one scale a row: twice as many products an instruction as float32, and an error that is small
 * beside that of the weights.
 *
 * A pass is a sequence of phases (pool.h), eight a layer. Tokens are worked on in tiles of at most six that share what
 * they read: a panel of weights, the keys of one row (a prompt), the audio of one window (beams).
 *
 * Layouts, innermost last (P = ceil(positions / 16), H = n_state / n_head):
 *   weights               (ceil(n_out / 16), n_in / GROUP, 16, GROUP) int8 (linear.h)
 *   keys                  (n_layer, rows, n_head, P, H, 16) float, so that a panel is 16 positions
 *   values                (n_layer, rows, n_head, H / 16, 16 P, 16) float
 *   cross_keys            (n_layer, windows, n_head, P, H / 2, 16, 2) int8
 *   cross_values          (n_layer, windows, n_head, H / 16, 8 P, 16, 2) int8
 *   their scales          (n_layer, windows, n_head, 16 P) float
 *
 * Source: "Attention Is All You Need"; openai/whisper `model.py`.
 */
#include <math.h>

#include "choose.h"
#include "linear.h"
#include "pool.h"

DEFINE_PRODUCT(multiply_f32, float, float, floats, floats, 1, load_f32, all_of, add_product, itself)

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
    int timestamp_begin;
    int32_t *chosen;
    float *logprobs;
    Fill fill;
} Decoder;

/* A token's inputs of a product, normalised first where there is a norm. */
static void take_inputs(Scratch *scratch, int token, const Norm *norm, const float *x, int n_in) {
    if (norm) {
        normalise(norm->weight, norm->bias, x, scratch->normed, n_in);
        x = scratch->normed;
    }
    scratch->input_scales[token] = round_inputs(x, n_in, scratch->inputs + (size_t)token * n_in);
}

/* What becomes of 16 outputs of one token: `out` is where they belong in a plain (tokens, n_out) result. */
typedef enum { STORE, ADD, GELU, REMEMBER } Finish;

/* Keys and values go where attention will read them: position by position, 16 positions or 16 values a panel. */
static void remember(Decoder *d, int layer, int token, int output, const float *result) {
    const Dims *dims = &d->dims;
    const int head_size = dims->n_state / dims->n_head, position = d->positions[token];
    const bool is_key = output < 2 * dims->n_state;
    const int channel = output - (is_key ? 1 : 2) * dims->n_state, head = channel / head_size, i = channel % head_size;
    const size_t unit = (size_t)d->text_positions * head_size;
    const size_t base = (((size_t)layer * dims->n_rows + d->rows[token]) * dims->n_head + head) * unit;
    if (is_key) {
        float *to = d->memory.keys + base + ((size_t)(position / PANEL) * head_size + i) * PANEL + position % PANEL;
        for (int j = 0; j < PANEL; j++) to[j * PANEL] = result[j];
    } else {
        float *to = d->memory.values + base + ((size_t)(i / PANEL) * d->text_positions + position) * PANEL;
        memcpy(to, result, PANEL * sizeof *to);
    }
}

static void finish(Decoder *d, const Linear *linear, Finish how, int layer, int token, int panel, const float *sums,
                   float scale, float *out, int n_out) {
    const int output = panel * PANEL;
    float result[PANEL];
    float *to = out + (size_t)token * n_out + output;
    for (int i = 0; i < PANEL; i += LANES) {
        floats v = load_f32(sums + i) * all(scale) * load_f32(linear->scale + output + i);
        if (linear->bias) v += load_f32(linear->bias + output + i);
        if (how == GELU) v = gelu_f32(v);
        if (how == ADD) v += load_f32(to + i);
        store_f32(result + i, v);
    }
    if (how == REMEMBER && output >= d->dims.n_state) {
        remember(d, layer, token, output, result);
        return;
    }
    if (how == REMEMBER) to = d->query + (size_t)token * d->dims.n_state + output;
    memcpy(to, result, (size_t)(n_out - output < PANEL ? n_out - output : PANEL) * sizeof *to);
}

/* One phase: the outputs of a linear layer for all tokens, whose inputs are normalised first where there is a norm. */
static void linear_phase(Decoder *d, Scratch *scratch, int phase, const Norm *norm, const float *in, int n_in,
                         const Linear *linear, Finish how, int layer, float *out, int n_out) {
    const int n_panels = (n_out + PANEL - 1) / PANEL;
    int chunk = CHUNK;
    while (chunk > 1 && n_panels < 2 * chunk * d->pool.n_threads) chunk /= 2;
    const size_t stride = (size_t)padded_inputs(n_in) * PANEL;
    bool ready = false;
    FOR_UNITS(unit, &d->pool, phase, (n_panels + chunk - 1) / chunk) {
        for (int t = 0; t < d->n && !ready; t++) take_inputs(scratch, t, norm, in + (size_t)t * n_in, n_in);
        ready = true;
        const int first = unit * chunk, count = n_panels - first < chunk ? n_panels - first : chunk;
        for (int t = 0, rows; t < d->n; t += rows) {
            rows = next_rows(d->n - t);
            multiply_rows(rows, count, linear->weight + first * stride, scratch->inputs + (size_t)t * n_in, n_in, scratch->sums);
            for (int r = 0; r < rows; r++)
                for (int p = 0; p < count; p++)
                    finish(d, linear, how, layer, t + r, first + p, scratch->sums + (r * CHUNK + p) * PANEL,
                           scratch->input_scales[t + r], out, n_out);
        }
    }
}

/* Products of queries and int8 keys -> scores. */
static void scale_by_position(float *scores, int n_ctx, float scale, const float *key_scales) {
    for (int i = 0; i < n_ctx; i++) scores[i] *= scale * key_scales[i];
}

/* Scores times `scale` -> probabilities in place, zero from `seen` on. */
static void softmax(float *scores, int seen, int positions, float scale) {
    floats top = all(-INFINITY), sum = all(0.0f);
    for (int i = seen; i < positions; i++) scores[i] = -INFINITY;
    for (int i = 0; i < positions; i += LANES) top = larger(top, load_f32(scores + i));
    const floats maximum = all(maximum_of(top)), factor = all(scale);
    for (int i = 0; i < positions; i += LANES) {
        floats e = exp_f32((load_f32(scores + i) - maximum) * factor);
        store_f32(scores + i, e);
        sum += e;
    }
    const floats inverse = all(1.0f / sum_of(sum));
    for (int i = 0; i < positions; i += LANES) store_f32(scores + i, load_f32(scores + i) * inverse);
}

/* Attention of a row's tokens to that row's text, each to what stands before it and itself. */
static void self_attention_phase(Decoder *d, Scratch *scratch, int phase, int layer) {
    const int n_state = d->dims.n_state, n_head = d->dims.n_head, size = n_state / n_head;
    const size_t keys_of_head = (size_t)d->text_positions * size;
    FOR_UNITS(unit, &d->pool, phase, d->n_self_tiles * n_head) {
        const Tile *tile = &d->self_tiles[unit / n_head];
        const int head = unit % n_head;
        const size_t base = (((size_t)layer * d->dims.n_rows + tile->slot) * n_head + head) * keys_of_head;
        const int longest = d->positions[tile->start + tile->count - 1] + 1;
        const int panels = (longest + PANEL - 1) / PANEL, positions = panels * PANEL;
        const size_t place = (size_t)tile->start * n_state + head * size;
        multiply_f32(tile->count, panels, d->memory.keys + base, (size_t)size * PANEL, d->query + place, n_state, size,
                     scratch->scores, d->text_positions);
        for (int r = 0; r < tile->count; r++)
            softmax(scratch->scores + (size_t)r * d->text_positions, d->positions[tile->start + r] + 1, positions,
                    1.0f / sqrtf((float)size));
        multiply_f32(tile->count, size / PANEL, d->memory.values + base, (size_t)d->text_positions * PANEL,
                     scratch->scores, d->text_positions, longest, d->attended + place, n_state);
    }
}

/* Attention to the audio of each token's window. */
static void cross_attention_phase(Decoder *d, Scratch *scratch, int phase, int layer) {
    const int n_state = d->dims.n_state, n_head = d->dims.n_head, size = n_state / n_head;
    FOR_UNITS(unit, &d->pool, phase, d->n_cross_tiles * n_head) {
        const Tile *tile = &d->cross_tiles[unit / n_head];
        const size_t head = ((size_t)layer * d->dims.n_windows + tile->slot) * n_head + unit % n_head;
        const int8_t *keys = d->memory.cross_keys + head * d->audio_positions * size;
        const int8_t *values = d->memory.cross_values + head * d->audio_positions * size;
        const int page = d->watched ? d->watched[layer * n_head + unit % n_head] : -1;
        const float *key_scales = d->memory.cross_key_scales + head * d->audio_positions;
        const float *value_scales = d->memory.cross_value_scales + head * d->audio_positions;
        const int n_ctx = d->window_ctx[tile->slot], panels = (n_ctx + PANEL - 1) / PANEL;
        const size_t place = (size_t)tile->start * n_state + (unit % n_head) * size;
        for (int r = 0; r < tile->count; r++)
            scratch->input_scales[r] = quantise_inputs(d->query + place + (size_t)r * n_state, size, largest_input(size),
                                                       scratch->inputs + (size_t)r * size);
        multiply_i8(tile->count, panels, keys, (size_t)size * PANEL, scratch->inputs, size, size, scratch->scores,
                    d->audio_positions);
        for (int r = 0; r < tile->count; r++) {
            float *scores = scratch->scores + (size_t)r * d->audio_positions;
            scale_by_position(scores, n_ctx, scratch->input_scales[r] / sqrtf((float)size), key_scales);
            if (page >= 0)
                memcpy(d->seen + ((size_t)page * d->n_tokens + d->first_token + tile->start + r) * n_ctx, scores,
                       (size_t)n_ctx * sizeof *scores);
            softmax(scores, n_ctx, panels * PANEL, 1.0f);
            for (int i = 0; i < n_ctx; i++) scores[i] *= value_scales[i];
            scratch->input_scales[r] = quantise_inputs(scores, panels * PANEL, largest_input(n_ctx),
                                                       scratch->weights + (size_t)r * d->audio_positions);
        }
        multiply_i8(tile->count, size / PANEL, values, (size_t)d->audio_positions * PANEL, scratch->weights,
                    d->audio_positions, n_ctx, d->attended + place, n_state);
        for (int r = 0; r < tile->count; r++)
            for (int i = 0; i < size; i++) d->attended[place + (size_t)r * n_state + i] *= scratch->input_scales[r];
    }
}

static void output_phase(Decoder *d, Scratch *scratch, int phase) {
    const int n_state = d->dims.n_state, n_vocab = d->dims.n_vocab, n_panels = (n_vocab + PANEL - 1) / PANEL;
    const size_t stride = (size_t)padded_inputs(n_state) * PANEL;
    const int chunk = CHUNK, pieces = 4;
    bool ready = false;
    FOR_UNITS(unit, &d->pool, phase, (n_panels + chunk * pieces - 1) / (chunk * pieces)) {
        for (int i = 0; i < d->n_kept && !ready; i++)
            take_inputs(scratch, i, &d->ln, d->x + (size_t)d->kept[i] * n_state, n_state);
        ready = true;
        for (int first = unit * chunk * pieces; first < (unit + 1) * chunk * pieces && first < n_panels; first += chunk) {
            const int count = n_panels - first < chunk ? n_panels - first : chunk;
            for (int t = 0, rows; t < d->n_kept; t += rows) {
                rows = next_rows(d->n_kept - t);
                multiply_rows(rows, count, d->output.weight + first * stride, scratch->inputs + (size_t)t * n_state, n_state, scratch->sums);
                for (int r = 0; r < rows; r++)
                    for (int p = 0; p < count; p++)
                        finish(d, &d->output, STORE, 0, t + r, first + p, scratch->sums + (r * CHUNK + p) * PANEL,
                               scratch->input_scales[t + r], d->logits, n_vocab);
            }
        }
    }
}

static void pass_job(void *argument, int thread) {
    Decoder *d = argument;
    Scratch *s = &d->scratch[thread];
    const int n_state = d->dims.n_state;
    int phase = 0;
    open_tiles();
    for (int i = 0; i < d->dims.n_layer; i++) {
        const Layer *l = &d->layers[i];
        linear_phase(d, s, phase++, &l->attn_ln, d->x, n_state, &l->attn_qkv, REMEMBER, i, d->query, 3 * n_state);
        self_attention_phase(d, s, phase++, i);
        linear_phase(d, s, phase++, NULL, d->attended, n_state, &l->attn_out, ADD, i, d->x, n_state);
        linear_phase(d, s, phase++, &l->cross_ln, d->x, n_state, &l->cross_query, STORE, i, d->query, n_state);
        cross_attention_phase(d, s, phase++, i);
        linear_phase(d, s, phase++, NULL, d->attended, n_state, &l->cross_out, ADD, i, d->x, n_state);
        linear_phase(d, s, phase++, &l->mlp_ln, d->x, n_state, &l->mlp_in, GELU, i, d->wide, 4 * n_state);
        linear_phase(d, s, phase++, NULL, d->wide, 4 * n_state, &l->mlp_out, ADD, i, d->x, n_state);
    }
    if (d->n_kept) output_phase(d, s, phase);
    close_tiles();
}

static void embed(Decoder *d) {
    const int n_state = d->dims.n_state;
    for (int t = 0; t < d->n; t++) {
        const int token = d->tokens[t];
        const int8_t *column = d->output.weight + (size_t)(token / PANEL) * padded_inputs(n_state) * PANEL + token % PANEL * GROUP;
        const float *position = d->positional_embedding + (size_t)d->positions[t] * n_state;
        for (int i = 0; i < n_state; i++)
            d->x[t * n_state + i] =
                (float)column[i / GROUP * GROUP * PANEL + i % GROUP] * d->output.scale[token] * d->column_scales[i] + position[i];
    }
}

/* Neighbouring tokens of one slot, at most TILE together, as even as can be. */
static int make_tiles(Tile *tiles, const int32_t *slots, int n) {
    int count = 0;
    for (int start = 0, stop; start < n; start = stop) {
        for (stop = start + 1; stop < n && slots[stop] == slots[start];) stop++;
        for (int t = start, rows; t < stop; t += rows) {
            rows = next_tile(stop - t);
            tiles[count++] = (Tile){t, rows, slots[start]};
        }
    }
    return count;
}

/* n tokens, each of a row, at a position, hearing a window; neighbours of one row are at ascending positions.
 * `kept`: ascending indices of the tokens whose logits (n_kept, n_vocab) are wanted. `watched` and `seen`: see Decoder;
 * with them all tokens hear one window. */
EXPORT void decoder_pass(Decoder *d, int n, const int32_t *tokens, const int32_t *rows, const int32_t *positions,
                  const int32_t *windows, int n_kept, const int32_t *kept, float *logits,
                         const int32_t *watched, float *seen) {
    int32_t kept_here[BLOCK];
    int next_kept = 0;
    d->watched = watched;
    d->seen = seen;
    d->n_tokens = n;
    for (int start = 0; start < n; start += BLOCK) {
        d->first_token = start;
        d->n = n - start < BLOCK ? n - start : BLOCK;
        d->tokens = tokens + start;
        d->rows = rows + start;
        d->positions = positions + start;
        d->n_self_tiles = make_tiles(d->self_tiles, rows + start, d->n);
        d->n_cross_tiles = make_tiles(d->cross_tiles, windows + start, d->n);
        d->logits = logits + (size_t)next_kept * d->dims.n_vocab;
        d->kept = kept_here;
        d->n_kept = 0;
        while (next_kept < n_kept && kept[next_kept] < start + d->n) kept_here[d->n_kept++] = kept[next_kept++] - start;
        embed(d);
        pool_run(&d->pool, pass_job, d);
    }
}

static void choose_job(void *argument, int thread) {
    Decoder *d = argument;
    (void)thread;
    FOR_UNITS(row, &d->pool, 0, d->n) {
        const float *logits = d->choices + (size_t)row * d->dims.n_vocab;
        d->chosen[row] = choose(logits, d->timestamp_begin, d->dims.n_vocab, d->limits + row, d->logprobs + row);
    }
}

/* The most probable tokens of n rows of logits (n, n_vocab) under their limits, and their log-probabilities. */
EXPORT void decoder_choose(Decoder *d, int n, const float *logits, const Limits *limits, int timestamp_begin,
                           int32_t *chosen, float *logprobs) {
    d->n = n;
    d->choices = logits;
    d->limits = limits;
    d->timestamp_begin = timestamp_begin;
    d->chosen = chosen;
    d->logprobs = logprobs;
    pool_run(&d->pool, choose_job, d);
}

/* Up to 16 positions of one head, of keys (part 0) or values (part 1) -> int8, position by position; their scales. What is
 * beyond the last position becomes zeros. */
static void round_panel(const Decoder *d, Scratch *scratch, int part, int head, int first, int8_t *whole, float *scales) {
    const int n_state = d->dims.n_state, size = n_state / d->dims.n_head, left = d->window_ctx[d->fill.window] - first;
    const size_t column = (size_t)part * n_state + head * size;
    float *row = scratch->normed;
    if (left < PANEL) memset(whole, 0, PANEL * size);
    for (int j = 0; j < PANEL && j < left; j++) {
        const floats scale = all(d->fill.row_scales ? d->fill.row_scales[first + j] : 1.0f);
        const float *from = d->fill.products + (size_t)(first + j) * 2 * n_state + column;
        for (int i = 0; i < size; i += LANES) {
            floats v = load_f32(from + i) * scale;
            if (d->fill.bias) v += load_f32(d->fill.bias + column + i);
            store_f32(row + i, v);
        }
        scales[j] = quantise_head(row, size, whole + j * size);
    }
}

static void fill_job(void *argument, int thread) {
    Decoder *d = argument;
    Scratch *scratch = &d->scratch[thread];
    const int n_head = d->dims.n_head, size = d->dims.n_state / n_head;
    const int panels = (d->window_ctx[d->fill.window] + PANEL - 1) / PANEL;
    int8_t *whole = (int8_t *)scratch->inputs;
    FOR_UNITS(unit, &d->pool, 0, panels) {
        for (int head = 0; head < n_head; head++) {
            const size_t slot = ((size_t)d->fill.layer * d->dims.n_windows + d->fill.window) * n_head + head;
            const size_t at = slot * d->audio_positions + unit * PANEL;
            int8_t *keys = d->memory.cross_keys + at * size, *values = d->memory.cross_values + slot * d->audio_positions * size;
            round_panel(d, scratch, 0, head, unit * PANEL, whole, d->memory.cross_key_scales + at);
            for (int i = 0; i < size; i += 2)
                for (int j = 0; j < PANEL; j++) memcpy(keys + (i * PANEL + j * 2), whole + j * size + i, 2);
            round_panel(d, scratch, 1, head, unit * PANEL, whole, d->memory.cross_value_scales + at);
            for (int i = 0; i < size; i++) {
                int8_t *to = values + ((size_t)(i / PANEL) * d->audio_positions + unit * PANEL) * PANEL + i % PANEL * 2;
                for (int j = 0; j < PANEL; j++) to[j / 2 * PANEL * 2 + j % 2] = whole[j * size + i];
            }
        }
    }
}

/* Remember one layer's keys and values of a window, (n_ctx, 2 * n_state): products times each row's scale plus bias, where
 * they are not NULL. */
EXPORT void decoder_fill(Decoder *d, int layer, int window, int n_ctx, const float *products, const float *row_scales,
                         const float *bias) {
    d->fill = (Fill){layer, window, products, row_scales, bias};
    d->window_ctx[window] = n_ctx;
    pool_run(&d->pool, fill_job, d);
}

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

/* Inputs that neighbour each other in the weights, and to how many of them they are filled up, for weights.py. */
EXPORT const int32_t weight_group = GROUP;
EXPORT int32_t weight_inputs(int32_t n_in) { return padded_inputs(n_in); }

/* A hash of what this was compiled from (deploy/native.sh), for library.py to compare. */
EXPORT const char native_sources[] = SOURCES;
