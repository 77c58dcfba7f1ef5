/* The most probable tokens of a row under its rules: `model.search.rules` and `model.search.sampling` at temperature 0, in
 * two readings of the logits, and a third where beams want more than one.
 */
#ifndef CHOOSE_H
#define CHOOSE_H

#include <math.h>
#include <stdbool.h>

#include "vectors.h"

typedef struct {
    int32_t text_from, time_from, time_to; /* tokens admitted: [text_from, begin) and [time_from, time_to) */
    int32_t timed;                         /* timestamps win where together they outweigh every text token */
} Limits;

typedef struct {
    int token;
    float logit; /* -INFINITY where the range is empty */
} Top;

/* The largest of [from, to), the first of equals. */
static Top top_of(const float *logits, int from, int to) {
    floats top = all(-INFINITY);
    int i = from;
    for (; i + LANES <= to; i += LANES) top = larger(top, load_f32(logits + i));
    float largest = maximum_of(top);
    for (; i < to; i++) largest = logits[i] > largest ? logits[i] : largest;
    int token = from;
    while (token < to && logits[token] != largest) token++;
    return (Top){token, largest};
}

/* Sum of e^(logit - top) over [from, to). */
static float sum_exp(const float *logits, int from, int to, float top) {
    floats sum = all(0.0f);
    int i = from;
    for (; i + LANES <= to; i += LANES) sum += exp_f32(load_f32(logits + i) - all(top));
    float rest = sum_of(sum);
    for (; i < to; i++) rest += expf(logits[i] - top);
    return rest;
}

/* What a row may say next: text [text_from, begin), none of it where `due`, and timestamps [time_from, time_to). */
typedef struct {
    int text_from, time_from, time_to;
    bool due;
    Top top;   /* the most probable of them */
    float sum; /* of e^(logit - top) over them */
} Admitted;

static Admitted admitted(const float *logits, int begin, int n_vocab, const Limits *limits) {
    const bool timed = limits->timed;
    Admitted a;
    a.text_from = timed ? limits->text_from : 0;
    a.time_from = timed ? limits->time_from : begin;
    a.time_to = timed ? limits->time_to : n_vocab;
    const Top text = top_of(logits, a.text_from, begin), time = top_of(logits, a.time_from, a.time_to);
    const float times = time.logit > -INFINITY ? sum_exp(logits, a.time_from, a.time_to, time.logit) : 0.0f;
    a.due = timed && logf(times) + time.logit > text.logit;
    a.top = a.due || time.logit > text.logit ? time : text;
    a.sum = times > 0.0f ? times * expf(time.logit - a.top.logit) : 0.0f;
    if (!a.due) a.sum += sum_exp(logits, a.text_from, begin, a.top.logit);
    return a;
}

/* Let the tokens of [from, to) take their places among the `count` most probable ones so far, which stand best first; of
 * equals the first is before the others. */
static void rank(const float *logits, int from, int to, int count, int32_t *tokens, float *best) {
    enum { STRIDE = 8 * LANES };
    for (int start = from; start < to; start += STRIDE) {
        const int stop = start + STRIDE < to ? start + STRIDE : to;
        if (stop - start == STRIDE) { /* nearly all are passed over whole */
            floats top = load_f32(logits + start);
            for (int i = LANES; i < STRIDE; i += LANES) top = larger(top, load_f32(logits + start + i));
            if (maximum_of(top) <= best[count - 1]) continue;
        }
        for (int token = start; token < stop; token++) {
            if (!(logits[token] > best[count - 1])) continue;
            int place = count - 1;
            for (; place > 0 && best[place - 1] < logits[token]; place--) {
                tokens[place] = tokens[place - 1];
                best[place] = best[place - 1];
            }
            tokens[place] = token;
            best[place] = logits[token];
        }
    }
}

static bool is_among(int token, const int32_t *tokens, int n) {
    for (int i = 0; i < n; i++)
        if (tokens[i] == token) return true;
    return false;
}

/* The `count` most probable tokens, best first, and their log-probabilities; 0 is certain: what is not admitted counts
 * for nothing. Where fewer are admitted, tokens of log-probability -INFINITY fill the places up. */
static void choose(const float *logits, int begin, int n_vocab, const Limits *limits, int count, int32_t *tokens, float *logprobs) {
    const Admitted a = admitted(logits, begin, n_vocab, limits);
    if (count == 1) {
        tokens[0] = a.top.token;
        logprobs[0] = -logf(a.sum);
        return;
    }
    for (int place = 0; place < count; place++) {
        tokens[place] = -1;
        logprobs[place] = -INFINITY;
    }
    if (!a.due) rank(logits, a.text_from, begin, count, tokens, logprobs);
    rank(logits, a.time_from, a.time_to, count, tokens, logprobs);
    const float total = a.top.logit + logf(a.sum);
    for (int place = 0, next = 0; place < count; place++) {
        logprobs[place] -= total;
        if (tokens[place] >= 0) continue;
        while (is_among(next, tokens, place)) next++;
        tokens[place] = next;
    }
}

#endif
