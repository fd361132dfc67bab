import math

import pytest
import torch

from octavo.errors import DataError
from octavo.evals.perplexity import english_prose, score_texts
from octavo.model.config import GQAConfig, ModelConfig
from octavo.model.quantize import quantize
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["one two three"], vocab_size=280)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    attention = GQAConfig(heads=2, kv_heads=1)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, width=16, layers=1, ffn_width=16, attention=attention)
    return Transformer(config)


def test_a_model_that_knows_nothing_is_as_unsure_as_it_has_tokens(model, tokenizer):
    torch.nn.init.zeros_(model.head.weight)
    score = score_texts(model, tokenizer, ["abcdefgh", "ijkl"])
    assert score.perplexity == pytest.approx(tokenizer.vocab_size)
    # The closing <|endoftext|> is foretold too: 9 and 5 ids, of which the first of each is given.
    assert (score.tokens, score.bytes) == (8 + 4, 12)
    assert score.bits_per_byte == pytest.approx(math.log2(tokenizer.vocab_size))


@torch.no_grad()
def test_every_token_but_the_first_is_scored_once_whatever_the_window(model, tokenizer):
    text = "the quick brown fox"
    ids = [*tokenizer.encode(text), tokenizer.token_id("<|endoftext|>")]
    expected = 0.0
    for at in range(1, len(ids)):
        start = (at - 1) // 4 * 4
        seen = torch.tensor([ids[start:at]])
        logits_V = model.logits(model(seen, torch.arange(at - start)[None]))[0, -1]
        expected -= float(logits_V.log_softmax(-1)[ids[at]])
    score = score_texts(model, tokenizer, [text], window_tokens=4)
    assert score.tokens == len(ids) - 1
    assert score.nats_per_token * score.tokens == pytest.approx(expected, rel=1e-5)


def test_of_a_quantized_model_through_its_rounded_head(model, tokenizer, way):
    """Nearly the same, and not the same; by both ways."""
    text = "the quick brown fox jumps over the lazy dog " * 4
    exact = score_texts(model, tokenizer, [text])
    quantize(model, "int8")
    with torch.no_grad():
        ids = torch.tensor(tokenizer.encode(text))
        logits_TV = model.logits(model(ids[None], torch.arange(len(ids))[None])[0])
        expected = -logits_TV[:-1].log_softmax(-1).gather(1, ids[1:, None]).double().sum()
    rounded = score_texts(model, tokenizer, [text])
    assert rounded.nats_per_token == pytest.approx(exact.nats_per_token, rel=0.01)
    assert rounded.nats_per_token != exact.nats_per_token
    # The score has one token more, the closing <|endoftext|>.
    assert 0 < rounded.nats_per_token * rounded.tokens - float(expected) < 10


def test_nothing_to_score_is_an_error(model, tokenizer):
    with pytest.raises(DataError, match="no text"):
        score_texts(model, tokenizer, [])


def test_the_prose_is_prose():
    (story,) = english_prose(5000)
    assert 4000 < len(story.encode()) <= 5000
    assert story.count(" the ") > 10
