/* Float32 products of few rows with matrices that lie as torch has them: nothing is packed or copied.

   `by_rows`:    y[m, n] = sum_k x[m, k] w[n, k], w [outputs, inputs] as in nn.Linear. Vectors run along k.
   `by_columns`: y[m, n] = sum_k x[m, k] w[k, n], w [inputs, outputs] as in a stack of experts. Vectors run along n.
   Both are for one thread; a row's result does not depend on the rows beside it. */
#pragma once
#include "vectors.h"

typedef struct {
    float *y;
    int64_t ldy;
    const float *x;
    int64_t ldx;
    const float *w;
    int64_t ldw;
    int64_t inputs;
    int64_t add; /* onto what y holds */
} Product;

INLINE void put(const Product *p, int64_t row, int64_t column, float value) {
    float *to = p->y + row * p->ldy + column;
    *to = p->add ? *to + value : value;
}

INLINE void put_four(const Product *p, int64_t row, int64_t column, Four values) {
    float *to = p->y + row * p->ldy + column;
    Four before = {0};
    if (p->add) memcpy(&before, to, sizeof before);
    values = p->add ? before + values : values;
    memcpy(to, &values, sizeof values);
}

INLINE void row_tile(const Product *p, int64_t row, int64_t column, const int rows, const int columns) {
    Floats acc[TILE_ROWS][TILE_COLUMNS];
    const float *x = p->x + row * p->ldx, *w = p->w + column * p->ldw;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) acc[i][j] = (Floats){0};
    int64_t k = 0;
    for (; k + LANES <= p->inputs; k += LANES) {
        Floats xs[TILE_ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) xs[i] = load(x + i * p->ldx + k);
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) {
            Floats ws = load(w + j * p->ldw + k);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) acc[i][j] += xs[i] * ws;
        }
    }
    if (k < p->inputs) {
        Floats xs[TILE_ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) xs[i] = load_part(x + i * p->ldx + k, p->inputs - k);
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) {
            Floats ws = load_part(w + j * p->ldw + k, p->inputs - k);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) acc[i][j] += xs[i] * ws;
        }
    }
#if LANES == 16
    if (rows == 4 && columns == 6) {
        Floats column_folds[6];
#pragma GCC unroll 8
        for (int j = 0; j < 6; j++) column_folds[j] = folds(acc[0][j], acc[1][j], acc[2][j], acc[3][j]);
        Floats four = join(halve(column_folds[0], column_folds[1]), halve(column_folds[2], column_folds[3]));
        Floats two = halve(column_folds[4], column_folds[5]);
        two = join(two, two);
        float fours[LANES], twos[LANES];
        store(fours, four);
        store(twos, two);
#pragma GCC unroll 8
        for (int i = 0; i < 4; i++) {
            Four quarter;
            memcpy(&quarter, fours + 4 * i, sizeof quarter);
            put_four(p, row + i, column, quarter);
            put(p, row + i, column + 4, twos[4 * i]);
            put(p, row + i, column + 5, twos[4 * i + 1]);
        }
        return;
    }
#endif
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        int j = 0;
#pragma GCC unroll 8
        for (; j + 4 <= columns; j += 4)
            put_four(p, row + i, column + j, sums(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]));
#pragma GCC unroll 8
        for (; j < columns; j++) put(p, row + i, column + j, sum(acc[i][j]));
    }
}

INLINE void row_tiles(const Product *p, int64_t rows, int64_t column, const int columns) {
    int64_t row = 0;
    for (; row + TILE_ROWS <= rows; row += TILE_ROWS) row_tile(p, row, column, TILE_ROWS, columns);
    switch (rows - row) {
#if TILE_ROWS > 3
    case 3: row_tile(p, row, column, 3, columns); break;
#endif
    case 2: row_tile(p, row, column, 2, columns); break;
    case 1: row_tile(p, row, column, 1, columns); break;
    }
}

static void by_rows(const Product *p, int64_t rows, int64_t first, int64_t last) {
    int64_t column = first;
    for (; column + TILE_COLUMNS <= last; column += TILE_COLUMNS) row_tiles(p, rows, column, TILE_COLUMNS);
#if TILE_COLUMNS > 4
    if (column + 4 <= last) {
        row_tiles(p, rows, column, 4);
        column += 4;
    }
#endif
    for (; column < last; column++) row_tiles(p, rows, column, 1);
}

INLINE void column_tile(const Product *p, int64_t row, int64_t column, const int rows, const int vectors, int64_t part) {
    Floats acc[ACCUMULATORS];
    const float *x = p->x + row * p->ldx, *w = p->w + column;
#pragma GCC unroll 24
    for (int i = 0; i < rows * vectors; i++) acc[i] = (Floats){0};
    for (int64_t k = 0; k < p->inputs; k++) {
        Floats ws[4];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            ws[j] = part ? load_part(w + k * p->ldw, part) : load(w + k * p->ldw + j * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++) acc[i * vectors + j] += ws[j] * x[i * p->ldx + k];
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            float *y = p->y + (row + i) * p->ldy + column + j * LANES;
            if (part)
                store_part(y, p->add ? acc[i * vectors + j] + load_part(y, part) : acc[i * vectors + j], part);
            else
                store(y, p->add ? acc[i * vectors + j] + load(y) : acc[i * vectors + j]);
        }
}

#define COLUMN_ROWS (ACCUMULATORS / 4)

INLINE void column_tiles(const Product *p, int64_t rows, int64_t column, const int vectors, int64_t part) {
    int64_t row = 0;
    for (; row + COLUMN_ROWS <= rows; row += COLUMN_ROWS) column_tile(p, row, column, COLUMN_ROWS, vectors, part);
    switch (rows - row) {
#if COLUMN_ROWS > 3
    case 5: column_tile(p, row, column, 5, vectors, part); break;
    case 4: column_tile(p, row, column, 4, vectors, part); break;
    case 3: column_tile(p, row, column, 3, vectors, part); break;
#endif
    case 2: column_tile(p, row, column, 2, vectors, part); break;
    case 1: column_tile(p, row, column, 1, vectors, part); break;
    }
}

static void by_columns(const Product *p, int64_t rows, int64_t outputs) {
    int64_t column = 0;
    for (; column + 4 * LANES <= outputs; column += 4 * LANES) column_tiles(p, rows, column, 4, 0);
    if (column + 2 * LANES <= outputs) {
        column_tiles(p, rows, column, 2, 0);
        column += 2 * LANES;
    }
    if (column + LANES <= outputs) {
        column_tiles(p, rows, column, 1, 0);
        column += LANES;
    }
    if (column < outputs) column_tiles(p, rows, column, 1, outputs - column);
}
