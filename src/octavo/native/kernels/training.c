/* What Python calls to train. See the headers for what each part does. */
#include "attention_training.h"
#include "experts_training.h"
#include "rows_training.h"

#define EXPORT __attribute__((visibility("default")))

/* Changes whenever a structure does. */
EXPORT int64_t octavo_training_sizes(int64_t which) {
    const int64_t sizes[] = {sizeof(Experts), sizeof(ExpertGradients), sizeof(Attention), sizeof(AttentionGradients)};
    return sizes[which];
}

EXPORT int64_t octavo_experts_floats(const Experts *experts) { return experts_floats(experts); }

EXPORT void octavo_experts(const Experts *experts, const ExpertGradients *gradients, void *sgemm, float *result, float *memory,
                           int64_t threads) {
    run_experts(experts, gradients, (Sgemm *)sgemm, result, memory, experts_floats(experts), threads);
}

EXPORT int64_t octavo_attention_floats(const Attention *attention) {
    AttentionSpace space;
    float nothing[1];
    return attention_space(attention, &space, nothing);
}

EXPORT void octavo_attention(const Attention *attention, const AttentionGradients *gradients, void *sgemm, float *memory,
                             int64_t threads) {
    run_attention(attention, gradients, (Sgemm *)sgemm, memory, threads);
}

EXPORT void octavo_norm(float *y, float *factors, const float *x, const float *weight, float eps, int64_t rows, int64_t width,
                        int64_t threads) {
    norm_forward(y, factors, x, weight, eps, rows, width, threads);
}

EXPORT void octavo_norm_backward(float *grad_x, float *grad_weight, const float *grad, const float *x, const float *weight,
                                 const float *factors, int64_t rows, int64_t width, float *memory, int64_t threads) {
    norm_backward(grad_x, grad_weight, grad, x, weight, factors, rows, width, memory, threads);
}

EXPORT void octavo_softmax(float *logits, const int64_t *targets, float *logprobs, float *entropy, int64_t rows,
                           int64_t vocabulary, int64_t threads) {
    softmax_rows(logits, targets, logprobs, entropy, rows, vocabulary, threads);
}

EXPORT void octavo_swiglu(float *h, const float *gate, const float *up, int64_t count, int64_t threads) {
    swiglu_forward(h, gate, up, count, threads);
}

EXPORT void octavo_swiglu_backward(float *grad_gate, float *grad_up, const float *grad, const float *gate, const float *up,
                                   int64_t count, int64_t threads) {
    swiglu_backward(grad_gate, grad_up, grad, gate, up, count, threads);
}
