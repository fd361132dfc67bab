/* One pass of a whole model over new tokens of cached sequences: what Transformer.forward_cached computes, in one call.

   R tokens, each with the cache row that it belongs to and its position there. */
#pragma once
#include "attend.h"
#include "experts.h"

typedef struct {
    const float *attention_norm, *ffn_norm;
    Matrix q_a, q, k, v, kv_a, o;
    const float *q_norm, *k_norm; /* of MLA: of the compressed query, of the latent */
    const float *kv_b;            /* [heads][nope + v_dim][rank] */
    Matrix gate, up, down;        /* the dense feed-forward, or the shared experts */
    Matrix router, gate_up, experts_down;
    const float *router_bias;
} Layer;

enum { NO_NORM = 0, NORM_OF_HEADS = 1, NORM_OF_ALL = 2 };

typedef struct {
    int64_t width, layers, latent /* MLA, else GQA */, heads, kv_heads, nope, rotated, value_dim, rank, q_rank;
    int64_t qk_norm, window, ffn_width /* the widest dense or shared one */;
    Routing routing;
    float score_scale, norm_eps, latent_norm_eps;
    const float *final_norm;
    const Layer *layer;
} Model;

typedef struct {
    int64_t tokens;
    const int64_t *row, *slot;   /* [R] */
    int64_t longest;             /* greatest slot + 1 */
    const float *cosine, *sine;  /* [positions][rotated / 2] */
    float *const *cache;         /* latents, or keys and values, of each layer */
    int64_t row_stride, head_stride; /* floats */
    float *x;                    /* [R][D]: embeddings, then hidden states */
} Tokens;

typedef struct {
    char *base;
    int64_t used;
} Arena;

static void *take(Arena *arena, int64_t bytes) {
    void *here = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + 63) & ~(int64_t)63;
    return here;
}

static float *take_floats(Arena *arena, int64_t count) { return take(arena, count * (int64_t)sizeof(float)); }

static Int8Rows take_rounded(Arena *arena, int64_t rows, int64_t inputs) {
    int64_t groups = groups_of(inputs);
    Int8Rows rounded = {take(arena, rows * groups * GROUP * (int64_t)sizeof(Rounded)), take_floats(arena, rows * groups),
                        take(arena, rows * groups * (int64_t)sizeof(int32_t)), groups};
    return rounded;
}

#define MOST_THREADS 256

typedef struct {
    float *normed, *compressed, *q, *k, *v, *absorbed, *latent_out, *heads_out, *gate, *up, *scores, *biased, *gates, *pairs;
    int64_t *experts, *starts, *order;
    float *attention_scores[MOST_THREADS];
    ExpertDesk desks[MOST_THREADS];
    Int8Rows rounded_width, rounded_inner;
} Space;

static int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }

static void lay_out(Space *s, Arena *arena, const Model *m, int64_t R, int64_t longest, int64_t threads) {
    const Routing *r = &m->routing;
    int64_t head = m->nope + m->rotated, expert = r->experts ? m->layer[m->layers - 1].experts_down.inputs : 0;
    int64_t inner = most_of(m->ffn_width, most_of(m->heads * m->value_dim, m->q_rank));
    s->normed = take_floats(arena, R * m->width);
    s->compressed = take_floats(arena, R * most_of(m->q_rank, 1));
    s->q = take_floats(arena, R * m->heads * head);
    s->k = take_floats(arena, R * (m->latent ? m->rank + m->rotated : m->kv_heads * head));
    s->v = take_floats(arena, R * m->kv_heads * head);
    s->absorbed = take_floats(arena, m->latent ? R * m->heads * (m->rank + m->rotated) : 1);
    s->latent_out = take_floats(arena, m->latent ? R * m->heads * m->rank : 1);
    s->heads_out = take_floats(arena, R * m->heads * m->value_dim);
    s->gate = take_floats(arena, R * m->ffn_width);
    s->up = take_floats(arena, R * m->ffn_width);
    s->scores = take_floats(arena, R * r->experts);
    s->biased = take_floats(arena, R * r->experts);
    s->gates = take_floats(arena, R * r->chosen);
    s->pairs = take_floats(arena, R * r->chosen * m->width);
    s->experts = take(arena, R * r->chosen * (int64_t)sizeof(int64_t));
    s->order = take(arena, R * r->chosen * (int64_t)sizeof(int64_t));
    s->starts = take(arena, (r->experts + 1) * (int64_t)sizeof(int64_t));
    s->rounded_width = take_rounded(arena, R, m->width);
    s->rounded_inner = take_rounded(arena, R, inner);
    for (int thread = 0; thread < threads; thread++) {
        s->attention_scores[thread] = take_floats(arena, m->heads / m->kv_heads * longest);
        ExpertDesk *desk = &s->desks[thread];
        desk->gathered = take_floats(arena, CHUNK * m->width);
        desk->hidden = take_floats(arena, CHUNK * 2 * expert);
        desk->y = take_floats(arena, CHUNK * m->width);
        desk->x = (Rows){desk->gathered, m->width, take_rounded(arena, CHUNK, m->width)};
        desk->h = (Rows){desk->hidden, 2 * expert, take_rounded(arena, CHUNK, expert)};
    }
}

static void team_norm(float *y, const float *x, int64_t ld, const float *weight, float eps, int64_t rows, int64_t dim) {
    SHARED_EVENLY
    for (int64_t row = 0; row < rows; row++) rms_norm(y + row * ld, x + row * ld, weight, eps, dim);
}

static void team_latent_attention(const Model *m, const Layer *l, const Tokens *t, Space *s, float *cache) {
    const int64_t R = t->tokens, N = m->heads, C = m->rank, P = m->rotated, H = m->nope + P, V = m->value_dim, L = C + P;
    Rows normed = {s->normed, m->width, s->rounded_width};
    if (l->kv_a.kind == INT8) team_round(&normed, R, m->width);
    team_multiply_unawaited(&l->kv_a, &normed, R, s->k, L, 0);
    if (l->q_a.kind) {
        team_multiply(&l->q_a, &normed, R, s->compressed, m->q_rank, 0);
        team_norm(s->compressed, s->compressed, m->q_rank, l->q_norm, m->latent_norm_eps, R, m->q_rank);
        Rows compressed = {s->compressed, m->q_rank, s->rounded_inner};
        if (l->q.kind == INT8) team_round(&compressed, R, m->q_rank);
        team_multiply(&l->q, &compressed, R, s->q, N * H, 0);
    } else {
        team_multiply(&l->q, &normed, R, s->q, N * H, 0);
    }
    SHARED_EVENLY
    for (int64_t r = 0; r < R; r++) {
        const float *cosine = t->cosine + t->slot[r] * (P / 2), *sine = t->sine + t->slot[r] * (P / 2);
        float *latent = cache + t->row[r] * t->row_stride + t->slot[r] * L;
        rms_norm(latent, s->k + r * L, l->k_norm, m->latent_norm_eps, C);
        rotate_neighbours(latent + C, s->k + r * L + C, cosine, sine, P);
        for (int64_t n = 0; n < N; n++)
            rotate_neighbours(s->absorbed + (r * N + n) * L + C, s->q + (r * N + n) * H + m->nope, cosine, sine, P);
    }
    const int64_t blocks = (R + BLOCK - 1) / BLOCK;
    /* The keys' half of W_kvb goes into the query ... */
    SHARED
    for (int64_t task = 0; task < N * blocks; task++) {
        int64_t n = task / blocks, row = task % blocks * BLOCK;
        Product product = {s->absorbed + (row * N + n) * L, N * L, s->q + (row * N + n) * H, N * H,
                           l->kv_b + n * (m->nope + V) * C, C, m->nope, 0};
        by_columns(&product, smaller(BLOCK, R - row), C);
    }
    SHARED
    for (int64_t r = 0; r < R; r++)
        attend(s->latent_out + r * N * C, C, s->absorbed + r * N * L, L, cache + t->row[r] * t->row_stride, L,
               cache + t->row[r] * t->row_stride, L, N, t->slot[r] + 1, L, C, m->score_scale,
               s->attention_scores[this_thread()]);
    /* ... and the values' half follows the weighted latents. */
    SHARED
    for (int64_t task = 0; task < N * blocks; task++) {
        int64_t n = task / blocks, row = task % blocks * BLOCK;
        Product product = {s->heads_out + (row * N + n) * V, N * V, s->latent_out + (row * N + n) * C, N * C,
                           l->kv_b + (n * (m->nope + V) + m->nope) * C, C, C, 0};
        by_rows(&product, smaller(BLOCK, R - row), 0, V);
    }
}

/* Norms (Qwen3: of each head; OLMoE: of all) and rotation of the heads of one row. */
static void finish_heads(const Model *m, float *y, float *x, const float *norm, int64_t heads, int64_t stride,
                         const float *cosine, const float *sine) {
    const int64_t H = m->rotated;
    if (m->qk_norm == NORM_OF_ALL) rms_norm(x, x, norm, m->norm_eps, heads * H);
    for (int64_t n = 0; n < heads; n++) {
        if (m->qk_norm == NORM_OF_HEADS) rms_norm(x + n * H, x + n * H, norm, m->norm_eps, H);
        float rotated[H];
        rotate_halves(rotated, x + n * H, cosine, sine, H);
        memcpy(y + n * stride, rotated, sizeof rotated);
    }
}

static void team_grouped_attention(const Model *m, const Layer *l, const Tokens *t, Space *s, float *keys, float *values) {
    const int64_t R = t->tokens, N = m->heads, U = m->kv_heads, H = m->rotated, G = N / U;
    Rows normed = {s->normed, m->width, s->rounded_width};
    if (l->q.kind == INT8) team_round(&normed, R, m->width);
    team_multiply_unawaited(&l->q, &normed, R, s->q, N * H, 0);
    team_multiply_unawaited(&l->k, &normed, R, s->k, U * H, 0);
    team_multiply(&l->v, &normed, R, s->v, U * H, 0);
    SHARED_EVENLY
    for (int64_t r = 0; r < R; r++) {
        const float *cosine = t->cosine + t->slot[r] * (H / 2), *sine = t->sine + t->slot[r] * (H / 2);
        const int64_t to = t->row[r] * t->row_stride + t->slot[r] * H;
        finish_heads(m, s->q + r * N * H, s->q + r * N * H, l->q_norm, N, H, cosine, sine);
        finish_heads(m, keys + to, s->k + r * U * H, l->k_norm, U, t->head_stride, cosine, sine);
        for (int64_t u = 0; u < U; u++)
            memcpy(values + to + u * t->head_stride, s->v + (r * U + u) * H, (size_t)H * sizeof(float));
    }
    SHARED
    for (int64_t task = 0; task < R * U; task++) {
        int64_t r = task / U, u = task % U;
        int64_t first = m->window ? most_of(0, t->slot[r] + 1 - m->window) : 0;
        int64_t from = t->row[r] * t->row_stride + u * t->head_stride + first * H;
        attend(s->heads_out + (r * N + u * G) * H, H, s->q + (r * N + u * G) * H, H, keys + from, H, values + from, H, G,
               t->slot[r] + 1 - first, H, H, m->score_scale, s->attention_scores[this_thread()]);
    }
}

/* x += down(silu(gate normed) * up normed) */
static void team_dense(const Model *m, const Layer *l, const Tokens *t, Space *s, Rows *normed) {
    const int64_t R = t->tokens, F = l->down.inputs;
    team_multiply_unawaited(&l->gate, normed, R, s->gate, F, 0);
    team_multiply(&l->up, normed, R, s->up, F, 0);
    Rows hidden = {s->gate, F, s->rounded_inner};
    hidden.rounded.groups = groups_of(F);
    SHARED_EVENLY
    for (int64_t r = 0; r < R; r++) {
        swiglu(s->gate + r * F, s->gate + r * F, s->up + r * F, F);
        if (l->down.kind == INT8) round_row(&hidden.rounded, r, s->gate + r * F, F);
    }
    team_multiply(&l->down, &hidden, R, t->x, m->width, 1);
}

static void team_sparse(const Model *m, const Layer *l, const Tokens *t, Space *s, const Rows *normed) {
    const Routing *routing = &m->routing;
    const int64_t R = t->tokens, E = routing->experts, K = routing->chosen, D = m->width;
    team_multiply(&l->router, normed, R, s->scores, E, 0);
    SHARED_EVENLY
    for (int64_t r = 0; r < R; r++)
        route(routing, l->router_bias, s->scores + r * E, s->biased + r * E, s->experts + r * K, s->gates + r * K);
    ONE
    sort_by_expert(routing, R, s->experts, s->starts, s->order);
    team_experts(routing, &l->gate_up, &l->experts_down, s->normed, D, s->starts, s->order, s->pairs, s->desks);
    SHARED_EVENLY
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = 0; i < D; i += LANES) {
            int64_t count = smaller(LANES, D - i);
            Floats total = load_most(t->x + r * D + i, count);
            for (int64_t k = 0; k < K; k++) total += load_most(s->pairs + (r * K + k) * D + i, count) * s->gates[r * K + k];
            store_most(t->x + r * D + i, total, count);
        }
}

static void team_extend(const Model *m, const Tokens *t, Space *s) {
    const int64_t R = t->tokens, D = m->width;
    for (int64_t layer = 0; layer < m->layers; layer++) {
        const Layer *l = m->layer + layer;
        team_norm(s->normed, t->x, D, l->attention_norm, m->norm_eps, R, D);
        if (m->latent)
            team_latent_attention(m, l, t, s, t->cache[layer]);
        else
            team_grouped_attention(m, l, t, s, t->cache[2 * layer], t->cache[2 * layer + 1]);
        Rows heads = {s->heads_out, m->heads * m->value_dim, s->rounded_inner};
        if (l->o.kind == INT8) team_round(&heads, R, heads.ldx);
        team_multiply(&l->o, &heads, R, t->x, D, 1);
        team_norm(s->normed, t->x, D, l->ffn_norm, m->norm_eps, R, D);
        Rows normed = {s->normed, D, s->rounded_width};
        if (l->gate.kind == INT8) team_round(&normed, R, D);
        if (l->router.kind) team_sparse(m, l, t, s, &normed);
        if (l->gate.kind) team_dense(m, l, t, s, &normed);
    }
    team_norm(t->x, t->x, D, m->final_norm, m->norm_eps, R, D);
}
