"""A recipe of seconds, for the tests of what runs recipes."""

RECIPE = """
name: tiny
threads: 1
tasks:
  gcd: {kind: reasoning_gym, name: gcd, params: {max_value: 20}}
evaluation: {problems: 6, samples: 2, max_tokens: 16}
stages:
  tokenizer: {kind: tokenizer, vocab_size: 280, corpus: {kind: solutions, documents: 30}}
  guess: {kind: eval, row: guess}
  base:
    kind: pretrain
    tokenizer: tokenizer
    corpus: {kind: solutions, documents: 30}
    model:
      {width: 16, layers: 1, ffn_width: 16, tie_embeddings: true,
       attention: {kind: gqa, heads: 2, kv_heads: 1, qkv_bias: true}}
    optimizer: {learning_rate: 0.003}
    tokens_per_step: 256
    tokens_per_row: 128
    micro_batch_tokens: 256
    loop: {steps: 6, checkpoint_every_steps: 2}
  tuned:
    kind: sft
    model: base
    corpus: {kind: solutions, documents: 30}
    optimizer: {learning_rate: 0.003}
    tokens_per_step: 256
    tokens_per_row: 128
    micro_batch_tokens: 256
    loop: {steps: 3}
  eval-tuned: {kind: eval, row: tuned, model: tuned}
result: tuned
"""
