/* Words in time: what model/decoding/alignment.py does with torch and numpy, in one reading of the scores, on one thread.
 *
 * `deploy/native.sh` compiles this file beside decoder.c, `alignment.py` calls it and checks every argument.
 *
 * Source: openai/whisper `timing.py` (find_alignment, median_filter, dtw).
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "vectors.h"

#define REACH 3 /* frames to each side of a median of seven */

typedef struct {
    int n_heads, n_tokens, n_ctx; /* of the scores */
    int n_frames;                 /* that count */
    int first, n_text;            /* tokens that are asked for */
    size_t stride;                /* n_frames rounded up to whole vectors, with room for what is mirrored */
} Shape;

INLINE floats smaller(floats a, floats b) { return -larger(-a, -b); }

INLINE void sort(floats *a, floats *b) {
    const floats low = smaller(*a, *b);
    *b = larger(*a, *b);
    *a = low;
}

/* The median of seven: the middle two of two sorted threes, and the seventh between them. */
INLINE floats median(const float *x) {
    floats a[3], b[3];
    for (int i = 0; i < 3; i++) {
        a[i] = load_f32(x + i);
        b[i] = load_f32(x + 3 + i);
    }
    sort(a, a + 1), sort(a + 1, a + 2), sort(a, a + 1);
    sort(b, b + 1), sort(b + 1, b + 2), sort(b, b + 1);
    const floats below = smaller(smaller(a[2], b[2]), smaller(larger(a[0], b[1]), larger(a[1], b[0])));
    const floats above = larger(larger(a[0], b[0]), larger(smaller(a[2], b[1]), smaller(a[1], b[2])));
    return larger(below, smaller(above, load_f32(x + 6)));
}

/* Scores of one head -> probabilities of each token's frames; what fills up a row becomes zeros. */
static void softmax_rows(const Shape *s, const float *scores, float *plane) {
    for (int t = 0; t < s->n_tokens; t++) {
        float *row = plane + t * s->stride;
        memcpy(row, scores + (size_t)t * s->n_ctx, s->n_frames * sizeof *row);
        for (size_t i = s->n_frames; i < s->stride; i++) row[i] = -INFINITY;
        floats top = all(-INFINITY), sum = all(0.0f);
        for (size_t i = 0; i < s->stride; i += LANES) top = larger(top, load_f32(row + i));
        const floats highest = all(maximum_of(top));
        for (size_t i = 0; i < s->stride; i += LANES) {
            const floats e = exp_f32(load_f32(row + i) - highest);
            store_f32(row + i, e);
            sum += e;
        }
        const floats inverse = all(1.0f / sum_of(sum));
        for (size_t i = 0; i < s->stride; i += LANES) store_f32(row + i, load_f32(row + i) * inverse);
    }
}

/* Every frame to mean 0 and variance 1 over the tokens. One at which all tokens look alike says nothing: zeros. */
static void normalise_frames(const Shape *s, float *plane) {
    for (size_t i = 0; i < s->stride; i += LANES) {
        /* From the first token on: where all are equal, nothing is left. */
        const floats origin = load_f32(plane + i);
        floats sum = all(0.0f), squares = all(0.0f);
        for (int t = 0; t < s->n_tokens; t++) sum += load_f32(plane + t * s->stride + i) - origin;
        const floats mean = origin + sum / all((float)s->n_tokens);
        for (int t = 0; t < s->n_tokens; t++) {
            const floats centred = load_f32(plane + t * s->stride + i) - mean;
            squares += centred * centred;
        }
        float deviation[LANES];
        store_f32(deviation, squares / all((float)s->n_tokens));
        for (int j = 0; j < LANES; j++) deviation[j] = deviation[j] > 0.0f ? 1.0f / sqrtf(deviation[j]) : 0.0f;
        for (int t = 0; t < s->n_tokens; t++) {
            float *at = plane + t * s->stride + i;
            store_f32(at, (load_f32(at) - mean) * load_f32(deviation));
        }
    }
}

/* Add the running median of each text token's frames, mirrored at both ends, to the map; too few frames are taken as they are. */
static void add_medians(const Shape *s, const float *plane, float *mirrored, float *map) {
    for (int t = 0; t < s->n_text; t++, map += s->stride) {
        const float *row = plane + (size_t)(s->first + t) * s->stride;
        if (s->n_frames <= REACH) {
            for (int i = 0; i < s->n_frames; i++) map[i] += row[i];
            continue;
        }
        memcpy(mirrored + REACH, row, s->n_frames * sizeof *row);
        for (int i = 1; i <= REACH; i++) {
            mirrored[REACH - i] = row[i];
            mirrored[REACH + s->n_frames - 1 + i] = row[s->n_frames - 1 - i];
        }
        for (int i = 0; i < s->n_frames; i += LANES) store_f32(map + i, load_f32(map + i) + median(mirrored + i));
    }
}

/* How the cheapest path came to a cell. */
enum { FROM_BOTH, FROM_TOKEN, FROM_FRAME };

/* `costs` holds one row (n_frames + 1) of sums at a time, `from` all steps (n_text, n_frames). A step to the next token,
 * with or without the next frame, must be cheaper than the two others. */
static void warp(const Shape *s, const float *map, double *sums, uint8_t *from) {
    const int m = s->n_frames;
    sums[0] = 0.0;
    for (int j = 1; j <= m; j++) sums[j] = INFINITY;
    for (int t = 0; t < s->n_text; t++, map += s->stride, from += m) {
        double both = sums[0], stayed = INFINITY;
        sums[0] = INFINITY;
        for (int j = 0; j < m; j++) {
            const double advanced = sums[j + 1];
            const int step = both < advanced && both < stayed ? FROM_BOTH : advanced < both && advanced < stayed ? FROM_TOKEN : FROM_FRAME;
            const double before = step == FROM_BOTH ? both : step == FROM_TOKEN ? advanced : stayed;
            both = advanced;
            sums[j + 1] = stayed = before - (double)(map[j] / (float)s->n_heads);
            from[j] = (uint8_t)step;
        }
    }
}

static void walk_back(const Shape *s, const uint8_t *from, int32_t *frames) {
    int at = s->n_frames - 1;
    for (int t = s->n_text - 1; t >= 0; t--) {
        const uint8_t *row = from + (size_t)t * s->n_frames;
        while (at > 0 && row[at] == FROM_FRAME) at--;
        frames[t] = at;
        if (row[at] == FROM_BOTH && at > 0) at--;
    }
}

/* Scores (n_heads, n_tokens, n_ctx) -> for n_text tokens from `first` on, the frame, of the first n_frames, at which the
 * cheapest monotonic path comes to each. False where memory is short. */
EXPORT bool alignment_find(int n_heads, int n_tokens, int n_ctx, const float *scores, int n_frames, int first, int n_text,
                           int32_t *frames) {
    const size_t stride = ((size_t)n_frames + 2 * REACH + LANES - 1) / LANES * LANES + LANES;
    const Shape s = {n_heads, n_tokens, n_ctx, n_frames, first, n_text, stride};
    float *plane = malloc((size_t)n_tokens * stride * sizeof *plane), *mirrored = calloc(stride, sizeof *mirrored);
    float *map = calloc((size_t)n_text * stride, sizeof *map);
    double *sums = malloc(((size_t)n_frames + 1) * sizeof *sums);
    uint8_t *from = malloc((size_t)n_text * n_frames);
    const bool good = plane && mirrored && map && sums && from;
    for (int head = 0; good && head < n_heads; head++) {
        softmax_rows(&s, scores + (size_t)head * n_tokens * n_ctx, plane);
        normalise_frames(&s, plane);
        add_medians(&s, plane, mirrored, map);
    }
    if (good) {
        warp(&s, map, sums, from);
        walk_back(&s, from, frames);
    }
    free(plane);
    free(mirrored);
    free(map);
    free(sums);
    free(from);
    return good;
}
