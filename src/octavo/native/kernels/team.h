/* Work that all threads of a parallel region share. Functions named `team_...` must be reached by all of them, and return
   when all are done. Which thread computes what never changes a result. */
#pragma once
#include "int8.h"
#include "products.h"

#if defined(_OPENMP)
extern int omp_get_thread_num(void);
#define PRAGMA(text) _Pragma(#text)
#define TEAM PRAGMA(omp parallel num_threads((int)threads))
#define SHARED PRAGMA(omp for schedule(dynamic))
#define SHARED_EVENLY PRAGMA(omp for schedule(static))
#define SHARED_UNAWAITED PRAGMA(omp for schedule(dynamic) nowait)
#define AWAIT PRAGMA(omp barrier)
#define ONE PRAGMA(omp single)
#define ATOMIC_WRITE PRAGMA(omp atomic write)
static int this_thread(void) { return omp_get_thread_num(); }
#else
#define TEAM
#define SHARED
#define SHARED_EVENLY
#define SHARED_UNAWAITED
#define AWAIT
#define ONE
#define ATOMIC_WRITE
static int this_thread(void) { return 0; }
#endif

enum { ABSENT = 0, FLOAT_ROWS = 1, FLOAT_COLUMNS = 2, INT8 = 3 };

/* [outputs, inputs] as FLOAT_ROWS or INT8; a stack of `experts` of them as FLOAT_COLUMNS ([inputs, outputs] each) or INT8. */
typedef struct {
    int64_t kind;
    int64_t outputs;
    int64_t inputs;
    const void *values;
    const float *scales; /* of INT8 */
    const float *bias;   /* or NULL */
} Matrix;

/* What several products read: rows of floats, and, where a matrix is int8, the same rounded. */
typedef struct {
    const float *x;
    int64_t ldx;
    Int8Rows rounded;
} Rows;

/* Rows a block: what of x stays in the cache next to the core while weights go by. */
#define BLOCK 64

static void team_round(Rows *rows, int64_t count, int64_t inputs) {
    rows->rounded.groups = groups_of(inputs);
    SHARED_EVENLY
    for (int64_t row = 0; row < count; row++) round_row(&rows->rounded, row, rows->x + row * rows->ldx, inputs);
}

/* y = x W^T + bias, added to y with `add`; of one expert of a stack, for one thread. */
static void multiply(const Matrix *w, int64_t expert, const Rows *x, int64_t row, int64_t count, int64_t first, int64_t last,
                     float *y, int64_t ldy, int64_t add) {
    if (w->kind == INT8) {
        int64_t panels = (w->outputs + PANEL - 1) / PANEL, size = panels * x->rounded.groups * PANEL;
        Int8Product product = {y, ldy, &x->rounded, (const uint8_t *)w->values + expert * size * GROUP,
                               w->scales + expert * size, w->outputs, add};
        by_int8(&product, row, count, first / PANEL, (last + PANEL - 1) / PANEL);
    } else {
        const float *values = (const float *)w->values + expert * w->outputs * w->inputs;
        Product product = {y + row * ldy, ldy, x->x + row * x->ldx, x->ldx, values, 0, w->inputs, add};
        if (w->kind == FLOAT_ROWS) {
            product.ldw = w->inputs;
            by_rows(&product, count, first, last);
        } else {
            product.ldw = w->outputs;
            by_columns(&product, count, w->outputs);
        }
    }
    if (w->bias)
        for (int64_t r = row; r < row + count; r++)
            for (int64_t column = first; column < last; column++) y[r * ldy + column] += w->bias[column];
}

/* All of one matrix, by pieces of rows and outputs; not awaited. */
static void team_multiply_unawaited(const Matrix *w, const Rows *x, int64_t rows, float *y, int64_t ldy, int64_t add) {
    /* A multiple of panels and tiles; small enough that every thread finds work, large enough to be worth handing out. */
    int64_t piece = w->outputs >= 1024 ? 192 : 48;
    int64_t across = (w->outputs + piece - 1) / piece, down = (rows + BLOCK - 1) / BLOCK;
    SHARED_UNAWAITED
    for (int64_t task = 0; task < across * down; task++) {
        int64_t row = task / across * BLOCK, first = task % across * piece;
        multiply(w, 0, x, row, smaller(BLOCK, rows - row), first, smaller(first + piece, w->outputs), y, ldy, add);
    }
}

static void team_multiply(const Matrix *w, const Rows *x, int64_t rows, float *y, int64_t ldy, int64_t add) {
    team_multiply_unawaited(w, x, rows, y, ldy, add);
    AWAIT
}
