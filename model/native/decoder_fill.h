/* The keys and values of a window's audio, rounded to int8 and laid out as decoder_attention.h reads them. */
#ifndef DECODER_FILL_H
#define DECODER_FILL_H

#include "decoder_state.h"

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

#endif
