/* Products with int8 weights: groups of 32 inputs share a scale, activations are rounded to int8 row by row in the same
   groups, and what is summed inside a group is whole numbers, so all ways below give the same result.

   Weights lie in panels of 16 outputs, as [panel][group][quad][output][4 inputs], plus 128 so that they are unsigned
   (the processor's products want one unsigned side); `corrections` takes the 128 out again. Scales: [panel][group][16]. */
#pragma once
#include "vectors.h"

#define GROUP 32
#define QUADS 8
#define PANEL 16
#define PANEL_BYTES (GROUP * PANEL)

#if defined(__AVX512VNNI__) && LANES == 16
#define VNNI 1
#define INT8_ROWS 6
typedef int8_t Rounded;
#elif defined(__AVX2__) && defined(__FMA__)
#define PAIRS 1 /* as int16: inputs 0 and 2 of each quad, then 1 and 3 */
#define INT8_ROWS 4
typedef int16_t Rounded;
#else
#define INT8_ROWS 4
typedef int8_t Rounded;
#endif

typedef struct {
    Rounded *values;      /* [rows][groups][32] */
    float *scales;        /* [rows][groups] */
    int32_t *corrections; /* [rows][groups]: -128 times the sum of the group */
    int64_t groups;
} Int8Rows;

static int64_t groups_of(int64_t inputs) { return (inputs + GROUP - 1) / GROUP; }

/* Round one row of floats. What is missing in the last group counts as 0. */
static void round_row(const Int8Rows *to, int64_t row, const float *x, int64_t inputs) {
    for (int64_t g = 0; g < to->groups; g++) {
        int64_t count = smaller(GROUP, inputs - g * GROUP);
        float group[GROUP] = {0};
        memcpy(group, x + g * GROUP, (size_t)count * sizeof(float));
        Floats most = {0};
        for (int i = 0; i < GROUP; i += LANES) {
            Floats values = load(group + i);
            most = larger(most, larger(values, -values));
        }
        float scale = greatest(most) / 127.0f;
        float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        int32_t rounded[GROUP], total = 0;
        for (int i = 0; i < GROUP; i += LANES) {
            /* 1.5 * 2^23: rounds to a whole number, which is then the low bits. */
            Ints whole = (Ints)(load(group + i) * inverse + 12582912.0f) - 0x4B400000;
            memcpy(rounded + i, &whole, sizeof whole);
        }
        Rounded *values = to->values + (row * to->groups + g) * GROUP;
        for (int i = 0; i < GROUP; i++) {
            total += rounded[i];
#if defined(PAIRS)
            values[(i & ~3) + ((i & 1) << 1) + ((i >> 1) & 1)] = (Rounded)rounded[i];
#else
            values[i] = (Rounded)rounded[i];
#endif
        }
        to->scales[row * to->groups + g] = scale;
        to->corrections[row * to->groups + g] = -128 * total;
    }
}

typedef struct {
    float *y;
    int64_t ldy;
    const Int8Rows *x;
    const uint8_t *values;
    const float *scales;
    int64_t outputs;
    int64_t add;
} Int8Product;

INLINE void put_panel(const Int8Product *p, int64_t row, int64_t panel, const float *sums16) {
    int64_t columns = smaller(PANEL, p->outputs - panel * PANEL);
    float *y = p->y + row * p->ldy + panel * PANEL;
    if (p->add)
        for (int64_t c = 0; c < columns; c++) y[c] += sums16[c];
    else
        memcpy(y, sums16, (size_t)columns * sizeof(float));
}

#if defined(VNNI)

INLINE void int8_tile(const Int8Product *p, int64_t row, int64_t panel, const int rows, const int panels) {
    const Int8Rows *x = p->x;
    const int64_t groups = x->groups;
    const uint8_t *w = p->values + panel * groups * PANEL_BYTES;
    const float *scales = p->scales + panel * groups * PANEL;
    __m512 total[INT8_ROWS * 4];
#pragma GCC unroll 24
    for (int i = 0; i < rows * panels; i++) total[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; g++) {
        __m512i acc[INT8_ROWS * 4];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (int j = 0; j < panels; j++) acc[i * panels + j] = _mm512_set1_epi32(x->corrections[(row + i) * groups + g]);
#pragma GCC unroll 8
        for (int q = 0; q < QUADS; q++) {
            __m512i ws[4];
#pragma GCC unroll 8
            for (int j = 0; j < panels; j++)
                ws[j] = _mm512_loadu_si512(w + (j * groups + g) * PANEL_BYTES + q * 4 * PANEL);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                int32_t quad;
                memcpy(&quad, x->values + ((row + i) * groups + g) * GROUP + 4 * q, 4);
                __m512i xs = _mm512_set1_epi32(quad);
#pragma GCC unroll 8
                for (int j = 0; j < panels; j++)
                    acc[i * panels + j] = _mm512_dpbusd_epi32(acc[i * panels + j], ws[j], xs);
            }
        }
#pragma GCC unroll 8
        for (int j = 0; j < panels; j++) {
            __m512 scale = _mm512_loadu_ps(scales + (j * groups + g) * PANEL);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x->scales[(row + i) * groups + g]));
                total[i * panels + j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i * panels + j]), both, total[i * panels + j]);
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < panels; j++) {
            float sums16[PANEL];
            _mm512_storeu_ps(sums16, total[i * panels + j]);
            put_panel(p, row + i, panel + j, sums16);
        }
}

#elif defined(PAIRS)

INLINE void int8_tile(const Int8Product *p, int64_t row, int64_t panel, const int rows, const int panels) {
    const Int8Rows *x = p->x;
    const int64_t groups = x->groups;
    const __m256i low = _mm256_set1_epi32(0x00FF00FF);
    for (int panel_index = 0; panel_index < panels; panel_index++) {
        const uint8_t *w = p->values + (panel + panel_index) * groups * PANEL_BYTES;
        const float *scales = p->scales + (panel + panel_index) * groups * PANEL;
        __m256 total[INT8_ROWS][2];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) total[i][0] = total[i][1] = _mm256_setzero_ps();
        for (int64_t g = 0; g < groups; g++) {
            __m256i acc[INT8_ROWS][2];
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = _mm256_set1_epi32(x->corrections[(row + i) * groups + g]);
            for (int q = 0; q < QUADS; q++) {
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    __m256i ws = _mm256_loadu_si256((const __m256i *)(w + g * PANEL_BYTES + q * 4 * PANEL + half * 32));
                    __m256i even = _mm256_and_si256(ws, low), odd = _mm256_srli_epi16(ws, 8);
#pragma GCC unroll 8
                    for (int i = 0; i < rows; i++) {
                        int32_t pairs[2];
                        memcpy(pairs, x->values + ((row + i) * groups + g) * GROUP + 4 * q, 8);
                        __m256i sum = _mm256_add_epi32(
                            _mm256_madd_epi16(even, _mm256_set1_epi32(pairs[0])),
                            _mm256_madd_epi16(odd, _mm256_set1_epi32(pairs[1])));
                        acc[i][half] = _mm256_add_epi32(acc[i][half], sum);
                    }
                }
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                __m256 scale = _mm256_loadu_ps(scales + g * PANEL + half * 8);
#pragma GCC unroll 8
                for (int i = 0; i < rows; i++) {
                    __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(x->scales[(row + i) * groups + g]));
                    total[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[i][half]), both, total[i][half]);
                }
            }
        }
        for (int i = 0; i < rows; i++) {
            float sums16[PANEL];
            _mm256_storeu_ps(sums16, total[i][0]);
            _mm256_storeu_ps(sums16 + 8, total[i][1]);
            put_panel(p, row + i, panel + panel_index, sums16);
        }
    }
}

#else

INLINE void int8_tile(const Int8Product *p, int64_t row, int64_t panel, const int rows, const int panels) {
    const Int8Rows *x = p->x;
    const int64_t groups = x->groups;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < panels; j++) {
            const uint8_t *w = p->values + (panel + j) * groups * PANEL_BYTES;
            const float *scales = p->scales + (panel + j) * groups * PANEL;
            float total[PANEL] = {0};
            for (int64_t g = 0; g < groups; g++) {
                const Rounded *values = x->values + ((row + i) * groups + g) * GROUP;
                int32_t acc[PANEL];
                for (int c = 0; c < PANEL; c++) acc[c] = x->corrections[(row + i) * groups + g];
                for (int q = 0; q < QUADS; q++)
                    for (int c = 0; c < PANEL; c++)
                        for (int k = 0; k < 4; k++)
                            acc[c] += (int32_t)w[g * PANEL_BYTES + (q * PANEL + c) * 4 + k] * values[4 * q + k];
                for (int c = 0; c < PANEL; c++)
                    total[c] += (float)acc[c] * (scales[g * PANEL + c] * x->scales[(row + i) * groups + g]);
            }
            put_panel(p, row + i, panel + j, total);
        }
}

#endif

INLINE void int8_tiles(const Int8Product *p, int64_t row, int64_t rows, int64_t panel, const int panels) {
    int64_t end = row + rows;
    for (; row + INT8_ROWS <= end; row += INT8_ROWS) int8_tile(p, row, panel, INT8_ROWS, panels);
    switch (end - row) {
#if INT8_ROWS > 4
    case 5: int8_tile(p, row, panel, 5, panels); break;
    case 4: int8_tile(p, row, panel, 4, panels); break;
#endif
    case 3: int8_tile(p, row, panel, 3, panels); break;
    case 2: int8_tile(p, row, panel, 2, panels); break;
    case 1: int8_tile(p, row, panel, 1, panels); break;
    }
}

/* Rows `row` to `row + rows` - 1 by panels `first` to `last` - 1. y's rows are counted as x's are. */
static void by_int8(const Int8Product *p, int64_t row, int64_t rows, int64_t first, int64_t last) {
    int64_t panel = first;
    if (rows == 1) /* one product must not wait for the one before: more of them at once */
        for (; panel + 4 <= last; panel += 4) int8_tile(p, row, panel, 1, 4);
    for (; panel + 2 <= last; panel += 2) int8_tiles(p, row, rows, panel, 2);
    for (; panel < last; panel++) int8_tiles(p, row, rows, panel, 1);
}
