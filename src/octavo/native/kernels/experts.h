/* The router's choice and the routed experts, as model/router.py and model/experts.py define them. */
#pragma once
#include "team.h"

typedef struct {
    int64_t experts, chosen, groups, kept_groups;
    int64_t softmax;   /* scores by softmax; else by sigmoid, with `bias` in the choice */
    int64_t normalize; /* gates of the chosen sum to 1 */
    float routed_scale;
} Routing;

/* Index of the greatest value that is not taken yet; the first of equals. */
static int64_t best_of(const float *values, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

/* The chosen experts of one row and their gates, from its scores before sigmoid or softmax; `scores` and `biased` hold E. */
static void route(const Routing *r, const float *bias, float *scores, float *biased, int64_t *experts, float *gates) {
    int64_t e = 0;
    if (r->softmax) {
        float peak = scores[best_of(scores, r->experts)], total = 0.0f;
        for (e = 0; e < r->experts; e += LANES) {
            int64_t count = smaller(LANES, r->experts - e);
            store_most(scores + e, exponential(load_most(scores + e, count) - peak), count);
        }
        for (e = 0; e < r->experts; e++) total += scores[e];
        for (e = 0; e < r->experts; e++) scores[e] /= total;
    } else {
        for (e = 0; e < r->experts; e += LANES) {
            int64_t count = smaller(LANES, r->experts - e);
            store_most(scores + e, sigmoid(load_most(scores + e, count)), count);
        }
    }
    for (e = 0; e < r->experts; e++) biased[e] = scores[e] + (bias ? bias[e] : 0.0f);
    if (r->groups > 1) {
        int64_t size = r->experts / r->groups, best = bias ? smaller(2, size) : 1;
        float strength[r->groups];
        for (int64_t g = 0; g < r->groups; g++) {
            const float *group = biased + g * size;
            int64_t first = best_of(group, size);
            strength[g] = group[first];
            if (best == 2) {
                float second = -INFINITY;
                for (int64_t i = 0; i < size; i++)
                    if (i != first && group[i] > second) second = group[i];
                strength[g] += second;
            }
        }
        int64_t kept[r->groups];
        memset(kept, 0, sizeof kept);
        for (int64_t k = 0; k < r->kept_groups; k++) {
            int64_t g = best_of(strength, r->groups);
            kept[g] = 1;
            strength[g] = -INFINITY;
        }
        for (e = 0; e < r->experts; e++)
            if (!kept[e / size]) biased[e] = -INFINITY;
    }
    float total = 0.0f;
    for (int64_t k = 0; k < r->chosen; k++) {
        experts[k] = best_of(biased, r->experts);
        biased[experts[k]] = -INFINITY;
        gates[k] = scores[experts[k]];
        total += gates[k];
    }
    float factor = r->normalize ? r->routed_scale / (total + 1e-20f) : r->routed_scale;
    for (int64_t k = 0; k < r->chosen; k++) gates[k] *= factor;
}

/* Rows that one expert computes at once. */
#define CHUNK 32

/* Sort the pairs of row and choice by expert: `starts` [E + 1], `order` [rows * chosen]. */
static void sort_by_expert(const Routing *r, int64_t rows, const int64_t *experts, int64_t *starts, int64_t *order) {
    memset(starts, 0, (size_t)(r->experts + 1) * sizeof(int64_t));
    for (int64_t pair = 0; pair < rows * r->chosen; pair++) starts[experts[pair] + 1]++;
    for (int64_t e = 0; e < r->experts; e++) starts[e + 1] += starts[e];
    for (int64_t pair = 0; pair < rows * r->chosen; pair++) order[starts[experts[pair]]++] = pair;
    for (int64_t e = r->experts; e > 0; e--) starts[e] = starts[e - 1];
    starts[0] = 0;
}

/* What one thread needs to compute one expert. */
typedef struct {
    Rows x, h;
    float *gathered; /* [CHUNK][inputs] */
    float *hidden;   /* [CHUNK][2 F] */
    float *y;        /* [CHUNK][width] */
} ExpertDesk;

/* pairs[pair] = down(silu(gate x) * up x) of the pair's row by the pair's expert. */
static void team_experts(const Routing *r, const Matrix *gate_up, const Matrix *down, const float *x, int64_t width,
                         const int64_t *starts, const int64_t *order, float *pairs, ExpertDesk *desks) {
    SHARED
    for (int64_t e = 0; e < r->experts; e++) {
        ExpertDesk *desk = desks + this_thread();
        const int64_t hidden = down->inputs;
        for (int64_t start = starts[e]; start < starts[e + 1]; start += CHUNK) {
            int64_t count = smaller(CHUNK, starts[e + 1] - start);
            for (int64_t i = 0; i < count; i++)
                memcpy(desk->gathered + i * width, x + order[start + i] / r->chosen * width, (size_t)width * sizeof(float));
            if (gate_up->kind == INT8)
                for (int64_t i = 0; i < count; i++) round_row(&desk->x.rounded, i, desk->gathered + i * width, width);
            multiply(gate_up, e, &desk->x, 0, count, 0, 2 * hidden, desk->hidden, 2 * hidden, 0);
            for (int64_t i = 0; i < count; i++) {
                float *gate = desk->hidden + i * 2 * hidden;
                swiglu(gate, gate, gate + hidden, hidden);
                if (down->kind == INT8) round_row(&desk->h.rounded, i, gate, hidden);
            }
            multiply(down, e, &desk->h, 0, count, 0, width, desk->y, width, 0);
            for (int64_t i = 0; i < count; i++)
                memcpy(pairs + order[start + i] * width, desk->y + i * width, (size_t)width * sizeof(float));
        }
    }
}
