/* Attention of the query heads of one row that share their keys, to a run of cached positions: one thread. */
#pragma once
#include "team.h"

/* scores [heads][length], then their softmax; values are weighted into out [heads][value_dim]. */
static void attend(float *out, int64_t ldout, const float *q, int64_t ldq, const float *keys, int64_t ldk, const float *values,
                   int64_t ldv, int64_t heads, int64_t length, int64_t key_dim, int64_t value_dim, float scale,
                   float *scores) {
    Product products = {scores, length, q, ldq, keys, ldk, key_dim, 0};
    by_rows(&products, heads, 0, length);
    for (int64_t head = 0; head < heads; head++) {
        float *row = scores + head * length;
        Floats most = (Floats){0} - INFINITY;
        int64_t i = 0;
        for (; i + LANES <= length; i += LANES) most = larger(most, load(row + i));
        float peak = greatest(most);
        for (; i < length; i++) peak = row[i] > peak ? row[i] : peak;
        Floats totals = {0};
        for (i = 0; i + LANES <= length; i += LANES) {
            Floats weights = exponential((load(row + i) - peak) * scale);
            store(row + i, weights);
            totals += weights;
        }
        float total = sum(totals);
        if (i < length) {
            float rest[LANES];
            store(rest, exponential((load_part(row + i, length - i) - peak) * scale));
            for (int64_t j = 0; i + j < length; j++) {
                row[i + j] = rest[j];
                total += rest[j];
            }
        }
        float inverse = 1.0f / total;
        for (i = 0; i < length; i++) row[i] *= inverse;
    }
    Product weighted = {out, ldout, scores, length, values, ldv, length, 0};
    by_columns(&weighted, heads, value_dim);
}

/* Rotate the pairs (2i, 2i + 1) of x by the angles of one position; y may be x. */
static void rotate_neighbours(float *y, const float *x, const float *cosine, const float *sine, int64_t dim) {
    for (int64_t i = 0; i < dim / 2; i++) {
        float even = x[2 * i], odd = x[2 * i + 1];
        y[2 * i] = even * cosine[i] - odd * sine[i];
        y[2 * i + 1] = odd * cosine[i] + even * sine[i];
    }
}

/* Rotate the pairs (i, i + dim / 2). */
static void rotate_halves(float *y, const float *x, const float *cosine, const float *sine, int64_t dim) {
    int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        y[i] = first * cosine[i] - second * sine[i];
        y[i + half] = second * cosine[i] + first * sine[i];
    }
}
