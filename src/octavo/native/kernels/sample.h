/* Draws from whole distributions, and the log-probs of what was drawn, as engine/sampler.py defines them. */
#pragma once
#include "team.h"

/* Weights of so many tokens are summed in float32; sums of these, in double. */
#define SAMPLE_BLOCK 256

INLINE float block_sum(const float *logits, int64_t count, float peak, const float temperature) {
    Floats total = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t part = smaller(LANES, count - i);
        Floats weights = exponential((load_most(logits + i, part) - peak) / temperature);
        if (part < LANES) {
            float rest[LANES] = {0};
            store_part(rest, weights, part);
            weights = load(rest);
        }
        total += weights;
    }
    return sum(total);
}

/* The first token whose cumulative weight exceeds `uniform` times the total; never one of weight 0. */
static int64_t draw(const float *logits, int64_t vocabulary, float peak, float temperature, double uniform, double *blocks) {
    const int64_t count = (vocabulary + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
    double total = 0.0, before = 0.0;
    for (int64_t b = 0; b < count; b++) {
        int64_t start = b * SAMPLE_BLOCK;
        blocks[b] = block_sum(logits + start, smaller(SAMPLE_BLOCK, vocabulary - start), peak, temperature);
        total += blocks[b];
    }
    double threshold = uniform * total;
    int64_t chosen = 0, last = 0;
    for (int64_t b = 0; b < count; b++)
        if (blocks[b] > 0.0) last = b;
    while (chosen < last && before + blocks[chosen] <= threshold) before += blocks[chosen++];
    int64_t start = chosen * SAMPLE_BLOCK, end = smaller(start + SAMPLE_BLOCK, vocabulary), found = start;
    for (int64_t i = start; i < end; i += LANES) {
        float weights[LANES];
        store(weights, exponential((load_most(logits + i, smaller(LANES, end - i)) - peak) / temperature));
        for (int64_t j = 0; j < LANES && i + j < end; j++) {
            if (weights[j] <= 0.0f) continue;
            found = i + j;
            before += weights[j];
            if (before > threshold) return found;
        }
    }
    return found;
}

/* Returns whether all logits are such that a distribution exists. Temperature 0 is greedy. */
static int64_t sample_row(const float *logits, int64_t vocabulary, float temperature, double uniform, double *blocks,
                          int64_t *id, float *logprob) {
    Floats most = (Floats){0} - INFINITY;
    int64_t i = 0, best = 0;
    for (; i + LANES <= vocabulary; i += LANES) most = larger(load(logits + i), most);
    float peak = greatest(most);
    for (; i < vocabulary; i++) peak = logits[i] > peak ? logits[i] : peak;
    double total = 0.0;
    for (i = 0; i < vocabulary; i += SAMPLE_BLOCK)
        total += block_sum(logits + i, smaller(SAMPLE_BLOCK, vocabulary - i), peak, 1.0f);
    if (!(total > 0.0 && total < INFINITY)) return 0;
    if (temperature == 0.0f) {
        while (logits[best] != peak) best++;
    } else {
        best = draw(logits, vocabulary, peak, temperature, uniform, blocks);
    }
    *id = best;
    *logprob = logits[best] - peak - (float)log(total);
    return 1;
}
