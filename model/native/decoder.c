/* A whole pass of Whisper's text decoder in one call: tokens in, logits out, attention memory kept between calls.
 *
 * `deploy/native.sh` compiles this file, `library.py` loads it, `inference.py` owns the memory and checks every argument:
 * nothing here allocates during a pass or checks a bound. Weights are int8 with one scale an output, the memory of the
 * audio is int8 with one scale a position and head, that of the text float32. Activations are float32; what is multiplied
 * by int8 is rounded to int16 first, one scale a row: twice as many products an instruction as float32, and an error that
 * is small beside that of the weights.
 *
 * A pass is a sequence of phases (pool.h), eight a layer: decoder_linear.h and decoder_attention.h. Tokens are worked on
 * in tiles of at most six that share what they read: a panel of weights, the keys of one row (a prompt), the audio of one
 * window (beams). What is kept in between, and how it is laid out: decoder_state.h.
 *
 * Source: "Attention Is All You Need"; openai/whisper `model.py`.
 */
#include "decoder_attention.h"
#include "decoder_fill.h"
#include "decoder_linear.h"

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
        choose(logits, d->timestamp_begin, d->dims.n_vocab, d->limits + row, d->n_chosen, d->chosen + row * d->n_chosen,
               d->logprobs + row * d->n_chosen);
    }
}

/* The n_chosen most probable tokens (n, n_chosen) of n rows of logits (n, n_vocab) under their limits, and their
 * log-probabilities. */
EXPORT void decoder_choose(Decoder *d, int n, const float *logits, const Limits *limits, int timestamp_begin, int n_chosen,
                           int32_t *chosen, float *logprobs) {
    d->n = n;
    d->choices = logits;
    d->limits = limits;
    d->timestamp_begin = timestamp_begin;
    d->n_chosen = n_chosen;
    d->chosen = chosen;
    d->logprobs = logprobs;
    pool_run(&d->pool, choose_job, d);
}

/* Inputs that neighbour each other in the weights, and to how many of them they are filled up, for weights.py. */
EXPORT const int32_t weight_group = GROUP;
EXPORT int32_t weight_inputs(int32_t n_in) { return padded_inputs(n_in); }

/* A hash of what this was compiled from (deploy/native.sh), for library.py to compare. */
EXPORT const char native_sources[] = SOURCES;
