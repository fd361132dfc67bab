/* Matrix products by the library that torch brought into the process, and threads. Row-major throughout.

   The product computes with one thread inside a parallel region, which is how everything here calls it: rows or heads are
   what threads share, so that what a product reads and writes stays in the cache next to its core. */
#pragma once
#include "vectors.h"
#include <stdlib.h>

#if defined(_OPENMP)
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

typedef void Sgemm(const char *, const char *, const int *, const int *, const int *, const float *, const float *, const int *,
                   const float *, const int *, const float *, float *, const int *);

typedef struct {
    const float *values;
    int64_t stride; /* from row to row */
    int transposed;
} Factor;

INLINE Factor plain(const float *values, int64_t stride) { return (Factor){values, stride, 0}; }

INLINE Factor transposed(const float *values, int64_t stride) { return (Factor){values, stride, 1}; }

/* c [rows, columns] = scale a [rows, inner] b [inner, columns] + keep c. */
static void product(Sgemm *sgemm, float *c, int64_t stride, Factor a, Factor b, int64_t rows, int64_t columns, int64_t inner,
                    float scale, float keep) {
    int m = (int)columns, n = (int)rows, k = (int)inner, lda = (int)b.stride, ldb = (int)a.stride, ldc = (int)stride;
    if (m && n) sgemm(b.transposed ? "T" : "N", a.transposed ? "T" : "N", &m, &n, &k, &scale, b.values, &lda, a.values, &ldb, &keep, c, &ldc);
}

INLINE int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* Memory of one thread. */
static float *take(float **free_memory, int64_t count) {
    float *taken = *free_memory;
    *free_memory += (count + 15) & -16;
    return taken;
}
