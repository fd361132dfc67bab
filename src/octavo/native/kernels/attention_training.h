/* Causal attention over packed documents and their branches, with rotation of queries and keys, and its gradients. Flash
   attention's recomputation (Dao et al. 2022): of the scores only the logarithm of each row's sum is kept.

   A document and its branches lie in neighbouring rows: they are one group. A task is one group and one key-value head: its
   keys are rotated once, and tiles of queries go over those keys that they may see. Tasks touch nothing of each other's, so
   which thread computes them never changes a result. */
#pragma once
#include "blas.h"

#define TILE 64
#define HIDDEN_SCORE -1e30f

/* A sequence: `own` tokens from row `start` on, behind the first `borrowed` tokens of its group. */
typedef struct {
    int64_t start, own, borrowed;
} Span;

typedef struct {
    int64_t tokens, heads, kv_heads, nope, rope, value, groups, window; /* window 0: none */
    int64_t halves;                                                     /* pairs are (i, i + rope / 2), else neighbours */
    int64_t shared_rope, rope_stride;                                   /* one rotated key for all heads; from row to row */
    const float *q;                                                     /* [tokens, heads, nope + rope] */
    const float *k_rope;                                                /* [tokens, kv_heads or 1, rope] */
    const float *kv;                                                    /* [tokens, kv_heads, nope + value] */
    const float *cos, *sin;                                             /* [tokens, rope / 2] */
    const Span *spans;
    const int64_t *ends_G; /* where the sequences of each group end */
    float *out;            /* [tokens, heads, value] */
    float *log_sums;       /* [tokens, heads] */
    float scale;
} Attention;

typedef struct {
    const float *out;
    float *q, *k_rope, *kv; /* k_rope: [tokens, kv_heads, rope], also where the key is shared */
} AttentionGradients;

/* The memory of one thread. */
typedef struct {
    float *keys, *grad_keys, *scores, *grad_scores, *queries, *grad_queries;
    int64_t stride; /* of scores */
} AttentionSpace;

/* Queries of one head in one tile, and the keys that they see: columns `low` to `high` of the sequence. */
typedef struct {
    int64_t row, rows, low, high, position; /* position: of the first query in its sequence */
    Span span;
    int64_t head, kv_head, group_row;
} Tile;

static void rotate(float *to, const float *from, const float *cos, const float *sin, int64_t rope, int64_t halves, float sign) {
    int64_t half = rope / 2, apart = halves ? half : 1, step = halves ? 1 : 2;
    for (int64_t i = 0; i < half; i++) {
        float a = from[i * step], b = from[i * step + apart], s = sign * sin[i];
        to[i * step] = a * cos[i] - b * s;
        to[i * step + apart] = b * cos[i] + a * s;
    }
}

static void rotate_row(const Attention *a, float *to, const float *nope, const float *rope, int64_t token, float sign) {
    const float *cos = a->cos + token * (a->rope / 2), *sin = a->sin + token * (a->rope / 2);
    memcpy(to, nope, (size_t)a->nope * sizeof(float));
    rotate(to + a->nope, rope, cos, sin, a->rope, a->halves, sign);
}

static int64_t first_span(const Attention *a, int64_t group) { return group ? a->ends_G[group - 1] : 0; }

static int64_t rows_of_group(const Attention *a, int64_t group) {
    Span last = a->spans[a->ends_G[group] - 1];
    return last.start + last.own - a->spans[first_span(a, group)].start;
}

/* Both pieces of a tile's keys, borrowed and own: where they lie, and which columns of the scores they are. */
typedef struct {
    int64_t row, column, count;
} Piece;

static Piece piece_of(const Tile *t, int own) {
    if (own) {
        int64_t low = larger_of(t->low, t->span.borrowed);
        return (Piece){t->span.start + low - t->span.borrowed, low - t->low, t->high - low};
    }
    return (Piece){t->group_row + t->low, 0, larger_of(0, t->span.borrowed - t->low)};
}

static void read_queries(const Attention *a, const Tile *t, AttentionSpace *space) {
    int64_t size = a->nope + a->rope;
    for (int64_t row = 0; row < t->rows; row++) {
        const float *q = a->q + ((t->row + row) * a->heads + t->head) * size;
        rotate_row(a, space->queries + row * size, q, q + a->nope, t->row + row, 1);
    }
}

/* scores = scale q k^T, and HIDDEN_SCORE where a query may not look, up to a whole vector. */
static void score(const Attention *a, const Tile *t, AttentionSpace *space, Sgemm *sgemm) {
    int64_t size = a->nope + a->rope, width = t->high - t->low, rounded = (width + LANES - 1) / LANES * LANES;
    for (int own = 0; own < 2; own++) {
        Piece piece = piece_of(t, own);
        product(sgemm, space->scores + piece.column, space->stride, plain(space->queries, size),
                transposed(space->keys + (piece.row - t->group_row) * size, size), t->rows, piece.count, size, a->scale, 0);
    }
    for (int64_t row = 0; row < t->rows; row++) {
        float *scores = space->scores + row * space->stride;
        int64_t seen = t->position + row + 1 - t->low;
        for (int64_t i = seen; i < rounded; i++) scores[i] = HIDDEN_SCORE;
        for (int64_t i = 0; a->window && i < seen - a->window; i++) scores[i] = HIDDEN_SCORE;
    }
}

static void forward_tile(const Attention *a, const Tile *t, AttentionSpace *space, Sgemm *sgemm) {
    int64_t width = t->high - t->low;
    read_queries(a, t, space);
    score(a, t, space, sgemm);
    float weights[TILE];
    for (int64_t row = 0; row < t->rows; row++) {
        float *scores = space->scores + row * space->stride;
        Floats most = (Floats){0} + HIDDEN_SCORE, total = {0};
        for (int64_t i = 0; i < width; i += LANES) most = larger(most, load(scores + i));
        float top = greatest(most);
        for (int64_t i = 0; i < width; i += LANES) {
            Floats exp = exponential(load(scores + i) - top);
            total += exp;
            store(scores + i, exp);
        }
        float all = sum(total);
        weights[row] = 1.0f / all;
        a->log_sums[(t->row + row) * a->heads + t->head] = top + logf(all);
    }
    int64_t kv_size = a->nope + a->value, kv_stride = a->kv_heads * kv_size, stride = a->heads * a->value;
    float *out = a->out + (t->row * a->heads + t->head) * a->value;
    for (int own = 0; own < 2; own++) {
        Piece piece = piece_of(t, own);
        if (piece.count)
            product(sgemm, out, stride, plain(space->scores + piece.column, space->stride),
                    plain(a->kv + piece.row * kv_stride + t->kv_head * kv_size + a->nope, kv_stride), t->rows, a->value,
                    piece.count, 1, own && piece.column > 0);
    }
    for (int64_t row = 0; row < t->rows; row++)
        for (int64_t i = 0; i < a->value; i++) out[row * stride + i] *= weights[row];
}

static void backward_tile(const Attention *a, const AttentionGradients *to, const Tile *t, AttentionSpace *space, Sgemm *sgemm) {
    int64_t width = t->high - t->low, size = a->nope + a->rope, stride = a->heads * a->value;
    int64_t kv_size = a->nope + a->value, kv_stride = a->kv_heads * kv_size;
    const float *grad_out = to->out + (t->row * a->heads + t->head) * a->value;
    read_queries(a, t, space);
    score(a, t, space, sgemm);
    for (int own = 0; own < 2; own++) {
        Piece piece = piece_of(t, own);
        product(sgemm, space->grad_scores + piece.column, space->stride, plain(grad_out, stride),
                transposed(a->kv + piece.row * kv_stride + t->kv_head * kv_size + a->nope, kv_stride), t->rows, piece.count,
                a->value, 1, 0);
    }
    for (int64_t row = 0; row < t->rows; row++) {
        float *scores = space->scores + row * space->stride, *grads = space->grad_scores + row * space->stride;
        const float *out = a->out + ((t->row + row) * a->heads + t->head) * a->value;
        Floats products = {0};
        for (int64_t i = 0; i < a->value; i += LANES)
            products += load_most(out + i, a->value - i) * load_most(grad_out + row * stride + i, a->value - i);
        float log_sum = a->log_sums[(t->row + row) * a->heads + t->head], mean = sum(products);
        for (int64_t i = 0; i < width; i += LANES) {
            Floats p = exponential(load(scores + i) - log_sum);
            store(scores + i, p);
            store(grads + i, p * (load(grads + i) - mean));
        }
    }
    for (int own = 0; own < 2; own++) {
        Piece piece = piece_of(t, own);
        if (!piece.count) continue;
        float *keys = space->keys + (piece.row - t->group_row) * size, *grad_keys = space->grad_keys + (keys - space->keys);
        float *grad_v = to->kv + piece.row * kv_stride + t->kv_head * kv_size + a->nope;
        Factor p = transposed(space->scores + piece.column, space->stride), grads = plain(space->grad_scores + piece.column, space->stride);
        product(sgemm, grad_v, kv_stride, p, plain(grad_out, stride), piece.count, a->value, t->rows, 1, 1);
        product(sgemm, grad_keys, size, transposed(grads.values, grads.stride), plain(space->queries, size), piece.count, size,
                t->rows, a->scale, 1);
        product(sgemm, space->grad_queries, size, grads, plain(keys, size), t->rows, size, piece.count, a->scale,
                own && piece.column > 0);
    }
    for (int64_t row = 0; row < t->rows; row++) {
        const float *grad = space->grad_queries + row * size;
        float *q = to->q + ((t->row + row) * a->heads + t->head) * size;
        rotate_row(a, q, grad, grad + a->nope, t->row + row, -1);
    }
}

static void read_keys(const Attention *a, const AttentionGradients *to, int64_t first, int64_t rows, int64_t kv_head, AttentionSpace *space) {
    int64_t size = a->nope + a->rope, kv_size = a->nope + a->value;
    for (int64_t row = 0; row < rows; row++) {
        int64_t token = first + row, place = (token * a->kv_heads + kv_head) * kv_size;
        const float *rope = a->k_rope + token * a->rope_stride + (a->shared_rope ? 0 : kv_head * a->rope);
        rotate_row(a, space->keys + row * size, a->kv + place, rope, token, 1);
        if (to) memset(to->kv + place + a->nope, 0, (size_t)a->value * sizeof(float));
    }
    if (to) memset(space->grad_keys, 0, (size_t)(rows * size) * sizeof(float));
}

static void write_key_gradients(const Attention *a, const AttentionGradients *to, int64_t first, int64_t rows, int64_t kv_head,
                                const AttentionSpace *space) {
    int64_t size = a->nope + a->rope;
    for (int64_t row = 0; row < rows; row++) {
        int64_t token = first + row, head = token * a->kv_heads + kv_head;
        const float *grad = space->grad_keys + row * size;
        const float *cos = a->cos + token * (a->rope / 2), *sin = a->sin + token * (a->rope / 2);
        memcpy(to->kv + head * (a->nope + a->value), grad, (size_t)a->nope * sizeof(float));
        rotate(to->k_rope + head * a->rope, grad + a->nope, cos, sin, a->rope, a->halves, -1);
    }
}

static void run_task(const Attention *a, const AttentionGradients *to, int64_t task, AttentionSpace *space, Sgemm *sgemm) {
    int64_t group = task / a->kv_heads, kv_head = task % a->kv_heads, shared = a->heads / a->kv_heads;
    int64_t first = a->spans[first_span(a, group)].start, rows = rows_of_group(a, group);
    read_keys(a, to, first, rows, kv_head, space);
    for (int64_t index = first_span(a, group); index < a->ends_G[group]; index++) {
        Span span = a->spans[index];
        for (int64_t head = kv_head * shared; head < (kv_head + 1) * shared; head++)
            for (int64_t begin = 0; begin < span.own; begin += TILE) {
                int64_t count = smaller(TILE, span.own - begin), position = span.borrowed + begin;
                int64_t low = a->window ? larger_of(0, position + 1 - a->window) : 0;
                Tile tile = {span.start + begin, count, low, position + count, position, span, head, kv_head, first};
                if (to)
                    backward_tile(a, to, &tile, space, sgemm);
                else
                    forward_tile(a, &tile, space, sgemm);
            }
    }
    if (to) write_key_gradients(a, to, first, rows, kv_head, space);
}

/* Lays out the memory of a thread; returns how many floats it is. */
static int64_t attention_space(const Attention *a, AttentionSpace *space, float *memory) {
    int64_t size = a->nope + a->rope, rows = 0, longest = 0;
    for (int64_t group = 0; group < a->groups; group++) {
        rows = larger_of(rows, rows_of_group(a, group));
        for (int64_t index = first_span(a, group); index < a->ends_G[group]; index++)
            longest = larger_of(longest, a->spans[index].borrowed + a->spans[index].own);
    }
    float *rest = memory;
    space->stride = (longest + 15) & -16;
    space->keys = take(&rest, rows * size);
    space->grad_keys = take(&rest, rows * size);
    space->scores = take(&rest, TILE * space->stride);
    space->grad_scores = take(&rest, TILE * space->stride);
    space->queries = take(&rest, TILE * size);
    space->grad_queries = take(&rest, TILE * size);
    return rest - memory;
}

static void run_attention(const Attention *a, const AttentionGradients *to, Sgemm *sgemm, float *memory, int64_t threads) {
#if defined(_OPENMP)
#pragma omp parallel num_threads((int)threads)
#endif
    {
        AttentionSpace space;
        int64_t each = attention_space(a, &space, memory);
        attention_space(a, &space, memory + each * omp_get_thread_num());
#if defined(_OPENMP)
#pragma omp for schedule(dynamic)
#endif
        for (int64_t task = 0; task < a->groups * a->kv_heads; task++) run_task(a, to, task, &space, sgemm);
    }
}
