/* Attention in the decoder, a phase each: to the text before in float32, and to the audio of a window in whole numbers.
 *
 * Source: "Attention Is All You Need"; openai/whisper `model.py`.
 */
#ifndef DECODER_ATTENTION_H
#define DECODER_ATTENTION_H

#include <math.h>

#include "decoder_state.h"

DEFINE_PRODUCT(multiply_f32, float, float, floats, floats, 1, load_f32, all_of, add_product, itself)

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

#endif
