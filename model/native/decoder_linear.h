/* A linear layer of the decoder as one phase: every token's inputs rounded, multiplied, and put where they are wanted. */
#ifndef DECODER_LINEAR_H
#define DECODER_LINEAR_H

#include "decoder_state.h"

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

#endif
