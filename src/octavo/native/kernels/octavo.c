/* What Python calls. One file for the compiler; see the headers for what each part does. */
#include "extend.h"
#include "sample.h"
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* Changes whenever a structure or a signature does. */
EXPORT int64_t octavo_sizes(int64_t which) {
    const int64_t sizes[] = {sizeof(Matrix), sizeof(Layer), sizeof(Routing), sizeof(Model), sizeof(Tokens), LANES};
    return sizes[which];
}

/* Bytes of scratch memory that `octavo_extend` needs, and -1 for more threads than it can serve. */
EXPORT int64_t octavo_extend_bytes(const Model *model, int64_t tokens, int64_t longest, int64_t threads) {
    Space space;
    Arena arena = {NULL, 0};
    if (threads > MOST_THREADS) return -1;
    lay_out(&space, &arena, model, tokens, longest, threads);
    return arena.used;
}

EXPORT void octavo_extend(const Model *model, const Tokens *tokens, void *scratch, int64_t threads) {
    Space space;
    Arena arena = {scratch, 0};
    lay_out(&space, &arena, model, tokens->tokens, tokens->longest, threads);
    TEAM
    team_extend(model, tokens, &space);
}

EXPORT int64_t octavo_multiply_bytes(int64_t rows, int64_t inputs) {
    Arena arena = {NULL, 0};
    take_rounded(&arena, rows, inputs);
    return arena.used;
}

/* y [rows, outputs] = x [rows, inputs] W^T + bias; W of kind FLOAT_ROWS or INT8. */
EXPORT void octavo_multiply(const Matrix *w, const float *x, int64_t rows, float *y, void *scratch, int64_t threads) {
    Arena arena = {scratch, 0};
    Rows input = {x, w->inputs, take_rounded(&arena, rows, w->inputs)};
    TEAM {
        if (w->kind == INT8) team_round(&input, rows, w->inputs);
        team_multiply(w, &input, rows, y, w->outputs, 0);
    }
}

/* Draw one token for each row. Returns 0 where a row of logits [rows, vocabulary] has no distribution. */
EXPORT int64_t octavo_sample(const float *logits, int64_t rows, int64_t vocabulary, const float *temperature,
                             const double *uniform, int64_t *ids, float *logprobs, int64_t threads) {
    int64_t bad = 0;
    TEAM {
        double *blocks = malloc((size_t)(vocabulary / SAMPLE_BLOCK + 1) * sizeof(double));
        SHARED
        for (int64_t row = 0; row < rows; row++)
            if (!blocks || !sample_row(logits + row * vocabulary, vocabulary, temperature[row], uniform[row], blocks,
                                       ids + row, logprobs + row)) {
                ATOMIC_WRITE
                bad = 1;
            }
        free(blocks);
    }
    return !bad;
}
