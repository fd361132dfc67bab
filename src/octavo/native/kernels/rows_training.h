/* What is done to each row by itself: RMSNorm and SwiGLU, with their gradients. */
#pragma once
#include "blas.h"

/* y = x / rms(x) * weight; factors [rows] = 1 / rms(x) are kept for the gradients. */
static void norm_forward(float *y, float *factors, const float *x, const float *weight, float eps, int64_t rows, int64_t width,
                         int64_t threads) {
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads((int)threads)
#endif
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width;
        float *to = y + row * width;
        Floats squares = {0};
        for (int64_t i = 0; i < width; i += LANES) {
            Floats values = load_most(from + i, width - i);
            squares += values * values;
        }
        float factor = factors[row] = 1.0f / sqrtf(sum(squares) / (float)width + eps);
        for (int64_t i = 0; i < width; i += LANES)
            store_most(to + i, load_most(from + i, width - i) * factor * load_most(weight + i, width - i), width - i);
    }
}

/* dx = factor (g w - x factor^2 mean(g w x)); dw = sum over rows of g x factor, gathered by each thread for itself in
   `memory` [threads, width]. */
static void norm_backward(float *grad_x, float *grad_weight, const float *grad, const float *x, const float *weight,
                          const float *factors, int64_t rows, int64_t width, float *memory, int64_t threads) {
    memset(memory, 0, (size_t)(threads * width) * sizeof(float));
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads((int)threads)
#endif
    for (int64_t row = 0; row < rows; row++) {
        const float *g = grad + row * width, *from = x + row * width;
        float *own = memory + omp_get_thread_num() * width, factor = factors[row];
        Floats total = {0};
        for (int64_t i = 0; i < width; i += LANES) {
            int64_t rest = width - i;
            Floats gx = load_most(g + i, rest) * load_most(from + i, rest);
            total += gx * load_most(weight + i, rest);
            store_most(own + i, load_most(own + i, rest) + gx * factor, rest);
        }
        float mean = sum(total) / (float)width * factor * factor;
        for (int64_t i = 0; i < width; i += LANES) {
            int64_t rest = width - i;
            Floats gw = load_most(g + i, rest) * load_most(weight + i, rest);
            store_most(grad_x + row * width + i, factor * (gw - load_most(from + i, rest) * mean), rest);
        }
    }
    for (int64_t i = 0; i < width; i++) {
        float all = 0;
        for (int64_t thread = 0; thread < threads; thread++) all += memory[thread * width + i];
        grad_weight[i] = all;
    }
}

/* Logits to probabilities, in place; the log-prob of one target a row, and, unless it is NULL, the entropy. */
static void softmax_rows(float *logits, const int64_t *targets, float *logprobs, float *entropy, int64_t rows, int64_t vocabulary,
                         int64_t threads) {
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads((int)threads)
#endif
    for (int64_t row = 0; row < rows; row++) {
        float *x = logits + row * vocabulary, target = x[targets[row]];
        Floats most = (Floats){0} + x[0];
        int64_t whole = vocabulary / LANES * LANES;
        for (int64_t i = 0; i < whole; i += LANES) most = larger(most, load(x + i));
        float top = greatest(most), all = 0, expected = 0;
        for (int64_t i = whole; i < vocabulary; i++) top = x[i] > top ? x[i] : top;
        /* Sums of blocks, so that many small numbers are not lost in a large one. */
        for (int64_t begin = 0; begin < whole; begin += 64 * LANES) {
            Floats part = {0}, products = {0};
            for (int64_t i = begin; i < smaller(begin + 64 * LANES, whole); i += LANES) {
                Floats shifted = load(x + i) - top, exp = exponential(shifted);
                part += exp;
                products += exp * shifted;
                store(x + i, exp);
            }
            all += sum(part);
            expected += sum(products);
        }
        for (int64_t i = whole; i < vocabulary; i++) {
            float shifted = x[i] - top;
            all += x[i] = expf(shifted);
            expected += x[i] * shifted;
        }
        logprobs[row] = target - top - logf(all);
        if (entropy) entropy[row] = logf(all) - expected / all;
        float factor = 1.0f / all;
        for (int64_t i = 0; i < whole; i += LANES) store(x + i, load(x + i) * factor);
        for (int64_t i = whole; i < vocabulary; i++) x[i] *= factor;
    }
}

#define CHUNK 4096

/* h = silu(gate) up. */
static void swiglu_forward(float *h, const float *gate, const float *up, int64_t count, int64_t threads) {
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads((int)threads)
#endif
    for (int64_t begin = 0; begin < count; begin += CHUNK)
        swiglu(h + begin, gate + begin, up + begin, smaller(CHUNK, count - begin));
}

static void swiglu_backward(float *grad_gate, float *grad_up, const float *grad, const float *gate, const float *up, int64_t count,
                            int64_t threads) {
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads((int)threads)
#endif
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t rest = count - i;
        Floats g = load_most(gate + i, rest), d = load_most(grad + i, rest), s = sigmoid(g), silu = g * s;
        store_most(grad_gate + i, d * load_most(up + i, rest) * (s + silu * (1.0f - s)), rest);
        store_most(grad_up + i, d * silu, rest);
    }
}
