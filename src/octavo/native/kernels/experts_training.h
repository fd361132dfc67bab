/* Routed experts with their gradients: each thread takes experts one by one, and a block of an expert's rows goes through
   both products, and back, without leaving the cache. No tensor of [token-expert pairs, width] exists.

   Sums over a token's experts are gathered by each thread for itself and added up in the end, so that with a given number of
   threads results never differ. */
#pragma once
#include "blas.h"

typedef struct {
    int64_t tokens, width, hidden, experts;
    const float *x;         /* [tokens, width] */
    const int64_t *token_Q; /* token of each pair, pairs sorted by expert */
    const int64_t *ends_E;  /* where the pairs of each expert end */
    const float *gates_Q;
    const float *gate_up;   /* [experts, width, 2 hidden] */
    const float *down;      /* [experts, hidden, width] */
    float *gate_up_Q;       /* [pairs, 2 hidden]: written forward, read backward */
} Experts;

typedef struct {
    const float *output; /* [tokens, width] */
    float *gates_Q;
    float *gate_up; /* or NULL, both */
    float *down;
} ExpertGradients;

static int64_t block_rows(const Experts *e) { return larger_of(128, 65536 / e->width); }

static int64_t first_pair(const Experts *e, int64_t expert) { return expert ? e->ends_E[expert - 1] : 0; }

/* The first expert of a thread: about as many pairs for each. */
static int64_t first_expert(const Experts *e, int64_t thread, int64_t threads) {
    int64_t pairs = e->ends_E[e->experts - 1], expert = 0;
    while (expert < e->experts && (first_pair(e, expert) + e->ends_E[expert]) * threads < 2 * pairs * thread) expert++;
    return thread == threads ? e->experts : expert;
}

static void gather(float *rows, const float *x, const int64_t *token_Q, int64_t count, int64_t width) {
    for (int64_t row = 0; row < count; row++)
        memcpy(rows + row * width, x + token_Q[row] * width, (size_t)width * sizeof(float));
}

static void add_back(float *sums, const float *rows, const int64_t *token_Q, int64_t count, int64_t width) {
    for (int64_t row = 0; row < count; row++) {
        float *to = sums + token_Q[row] * width;
        const float *from = rows + row * width;
        for (int64_t i = 0; i < width; i++) to[i] += from[i];
    }
}

static void forward_block(const Experts *e, Sgemm *sgemm, int64_t expert, int64_t pair, int64_t count, float *memory, float *sums) {
    int64_t width = e->width, hidden = e->hidden;
    const float *gate_up = e->gate_up + expert * width * 2 * hidden, *down = e->down + expert * hidden * width;
    float *both = e->gate_up_Q + pair * 2 * hidden;
    float *rows = take(&memory, block_rows(e) * width), *h = take(&memory, block_rows(e) * hidden);
    gather(rows, e->x, e->token_Q + pair, count, width);
    product(sgemm, both, 2 * hidden, plain(rows, width), plain(gate_up, 2 * hidden), count, 2 * hidden, width, 1, 0);
    for (int64_t row = 0; row < count; row++) {
        const float *gate = both + row * 2 * hidden;
        swiglu(h + row * hidden, gate, gate + hidden, hidden);
        for (int64_t i = 0; i < hidden; i++) h[row * hidden + i] *= e->gates_Q[pair + row];
    }
    product(sgemm, rows, width, plain(h, hidden), plain(down, width), count, width, hidden, 1, 0);
    add_back(sums, rows, e->token_Q + pair, count, width);
}

/* Of one row: h times its gate, the gradient of gate and up in the place of their values, and that of the router's gate. */
static float backward_row(float *h, float *both, const float *grad_h, float routed, int64_t hidden) {
    Floats total = {0};
    for (int64_t i = 0; i < hidden; i += LANES) {
        int64_t rest = hidden - i;
        Floats gate = load_most(both + i, rest), up = load_most(both + hidden + i, rest), grad = load_most(grad_h + i, rest);
        Floats s = sigmoid(gate), silu = gate * s;
        total += grad * silu * up;
        store_most(h + i, silu * up * routed, rest);
        grad *= routed;
        store_most(both + i, grad * up * (s + silu * (1.0f - s)), rest);
        store_most(both + hidden + i, grad * silu, rest);
    }
    return sum(total);
}

static void backward_block(const Experts *e, const ExpertGradients *to, Sgemm *sgemm, int64_t expert, int64_t pair, int64_t count,
                           float *memory, float *sums) {
    int64_t width = e->width, hidden = e->hidden, most = block_rows(e);
    int64_t offset = expert * hidden * width;
    const float *gate_up = e->gate_up + 2 * offset, *down = e->down + offset;
    float *rows = take(&memory, most * width), *grad = take(&memory, most * width), *h = take(&memory, most * hidden);
    float *grad_h = take(&memory, most * hidden), *both = take(&memory, most * 2 * hidden);
    gather(grad, to->output, e->token_Q + pair, count, width);
    memcpy(both, e->gate_up_Q + pair * 2 * hidden, (size_t)(count * 2 * hidden) * sizeof(float));
    product(sgemm, grad_h, hidden, plain(grad, width), transposed(down, width), count, hidden, width, 1, 0);
    for (int64_t row = 0; row < count; row++)
        to->gates_Q[pair + row] = backward_row(h + row * hidden, both + row * 2 * hidden, grad_h + row * hidden,
                                               e->gates_Q[pair + row], hidden);
    if (to->down) {
        float keep = pair > first_pair(e, expert);
        gather(rows, e->x, e->token_Q + pair, count, width);
        product(sgemm, to->down + offset, width, transposed(h, hidden), plain(grad, width), hidden, width, count, 1, keep);
        product(sgemm, to->gate_up + 2 * offset, 2 * hidden, transposed(rows, width), plain(both, 2 * hidden), width, 2 * hidden,
                count, 1, keep);
    }
    product(sgemm, rows, width, plain(both, 2 * hidden), transposed(gate_up, 2 * hidden), count, width, 2 * hidden, 1, 0);
    add_back(sums, rows, e->token_Q + pair, count, width);
}

/* result [tokens, width]; forward if `to` is NULL, else backward. `memory` holds experts_floats() floats. */
static void run_experts(const Experts *e, const ExpertGradients *to, Sgemm *sgemm, float *result, float *memory, int64_t each,
                        int64_t threads) {
    int64_t size = e->tokens * e->width;
#if defined(_OPENMP)
#pragma omp parallel num_threads((int)threads)
#endif
    {
        int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
        float *own = memory + thread * each, *sums = thread ? take(&own, size) : result;
        memset(sums, 0, (size_t)size * sizeof(float));
        int64_t last = first_expert(e, thread + 1, team);
        for (int64_t expert = first_expert(e, thread, team); expert < last; expert++) {
            int64_t begin = first_pair(e, expert), end = e->ends_E[expert];
            if (begin == end && to && to->down) {
                memset(to->down + expert * e->hidden * e->width, 0, (size_t)(e->hidden * e->width) * sizeof(float));
                memset(to->gate_up + 2 * expert * e->hidden * e->width, 0, (size_t)(2 * e->hidden * e->width) * sizeof(float));
            }
            for (int64_t pair = begin; pair < end; pair += block_rows(e)) {
                int64_t count = smaller(block_rows(e), end - pair);
                if (to)
                    backward_block(e, to, sgemm, expert, pair, count, own, sums);
                else
                    forward_block(e, sgemm, expert, pair, count, own, sums);
            }
        }
#if defined(_OPENMP)
#pragma omp barrier
#pragma omp for schedule(static)
#endif
        for (int64_t token = 0; token < e->tokens; token++)
            for (int64_t other = 1; other < team; other++)
                for (int64_t i = token * e->width; i < (token + 1) * e->width; i++) result[i] += memory[other * each + i];
    }
}

/* Floats that each thread needs. */
static int64_t experts_floats(const Experts *e) {
    return e->tokens * e->width + block_rows(e) * (2 * e->width + 4 * e->hidden) + 128;
}
