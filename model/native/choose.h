/* The most probable token of a row under its rules: `model.search.rules` and `model.search.sampling` at temperature 0, in two readings
 * of the logits.
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

/* Log-probability 0 is certain: what is not admitted counts for nothing. */
static int choose(const float *logits, int begin, int n_vocab, const Limits *limits, float *logprob) {
    const bool timed = limits->timed;
    const int text_from = timed ? limits->text_from : 0;
    const int time_from = timed ? limits->time_from : begin, time_to = timed ? limits->time_to : n_vocab;
    const Top text = top_of(logits, text_from, begin), time = top_of(logits, time_from, time_to);
    const float times = time.logit > -INFINITY ? sum_exp(logits, time_from, time_to, time.logit) : 0.0f;
    const bool due = timed && logf(times) + time.logit > text.logit;
    const bool is_time = due || time.logit > text.logit;
    const Top top = is_time ? time : text;
    float sum = times > 0.0f ? times * expf(time.logit - top.logit) : 0.0f;
    if (!due) sum += sum_exp(logits, text_from, begin, top.logit);
    *logprob = -logf(sum);
    return top.token;
}

#endif
