"""The loader: shuffled, resumable at every step, the same rows whatever the ranks."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.data.batch import Batch
from octavo.data.loader import PackedLoader
from octavo.data.sources import ListSource
from octavo.errors import CheckpointError, ConfigError, DataError
from octavo.text.messages import Document
from octavo.text.template import TokenDocument, encode_documents
from octavo.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rank:
    rank: int = 0
    size: int = 1


def one_id_per_character(documents: Sequence[Document]) -> list[TokenDocument]:
    return [TokenDocument([ord(char) for char in document.text or ""], [1.0] * len(document.text or ""))
            for document in documents]  # fmt: skip


def numbered_source(lengths: Sequence[int]) -> ListSource:
    """Document number i consists of the character 1000 + i."""
    return ListSource(Document(text=chr(1000 + i) * length) for i, length in enumerate(lengths))


LENGTHS = [(7 * i) % 13 + 2 for i in range(40)] + [45, 60]  # two are longer than a row
SOURCE = numbered_source(LENGTHS)


def make_loader(source=SOURCE, *, world=Rank(), epochs: int | None = 2, seed=7, step=60, row=20, micro=40):
    return PackedLoader(
        source, one_id_per_character, tokens_per_step=step, tokens_per_row=row, micro_batch_tokens=micro,
        seed=seed, epochs=epochs, world=world,
    )  # fmt: skip


def plain(steps) -> list[list[dict[str, list]]]:
    """Steps as values that == compares."""
    return [[_values(batch) for batch in step] for step in steps]


def _values(batch: Batch) -> dict[str, list]:
    return {field.name: value.tolist() for field in fields(batch) if (value := getattr(batch, field.name)) is not None}


def predictions(steps) -> Counter[int]:
    counts: Counter[int] = Counter()
    for batch in (batch for step in steps for batch in step):
        counts.update(batch.inputs_BT[batch.weights_BT > 0].tolist())
    return counts


def test_an_epoch_holds_every_prediction_once():
    expected = {1000 + i: length - 1 for i, length in enumerate(LENGTHS)}
    assert predictions(make_loader(epochs=1)) == expected
    assert predictions(make_loader(epochs=3)) == {id: 3 * count for id, count in expected.items()}


def test_steps_and_micro_batches_have_the_sizes_asked_for():
    steps = list(make_loader(epochs=2))
    assert [[tuple(batch.inputs_BT.shape) for batch in step] for step in steps[:-1]] == [[(2, 20), (1, 20)]] * (
        len(steps) - 1
    )
    assert all(batch.inputs_BT.shape[1] == 20 for batch in steps[-1])
    assert sum(map(sum, ([batch.weight for batch in step] for step in steps))) == 2 * (sum(LENGTHS) - len(LENGTHS))


def test_epochs_are_shuffled_differently_and_seeds_too():
    first_rows = {seed: plain([next(make_loader(seed=seed))]) for seed in (1, 2)}
    assert first_rows[1] != first_rows[2]
    assert first_rows[1] == plain([next(make_loader(seed=1))])
    short = numbered_source([21] * 6)  # a document a row, so that the rows tell the order
    order = [step[0].inputs_BT[0, 0].item() for step in make_loader(short, step=20, micro=20, epochs=4)]
    epochs = [tuple(order[start : start + 6]) for start in range(0, 24, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(1000, 1006))] * 4
    assert len(set(epochs)) == 4


@pytest.mark.parametrize("epochs", [1, 3])
def test_resuming_after_any_step_equals_the_uninterrupted_run(epochs: int):
    loader = make_loader(epochs=epochs)
    states, steps = [json.dumps(loader.state_dict())], []
    for step in loader:
        steps.append(step)
        states.append(json.dumps(loader.state_dict()))
    assert len(steps) > 5 * epochs
    uninterrupted = plain(steps)
    for taken, state in enumerate(states):
        resumed = make_loader(epochs=epochs)
        resumed.load_state_dict(json.loads(state))
        assert json.dumps(resumed.state_dict()) == state
        assert plain(resumed) == uninterrupted[taken:]


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12).filter(lambda lengths: max(lengths) > 1),
    rows=st.integers(1, 5),
    row=st.integers(1, 30),
    taken=st.integers(0, 12),
)
def test_resuming_any_source_without_end(lengths: list[int], rows: int, row: int, taken: int):
    make = partial(make_loader, numbered_source(lengths), epochs=None, step=rows * row, row=row, micro=row)
    loader = make()
    for _ in range(taken):
        next(loader)
    state = loader.state_dict()
    assert len(state["waiting"]) <= 32
    ahead = [next(loader) for _ in range(6)]
    resumed = make()
    for _ in range(2):  # a loader that was used already may be set back, too
        resumed.load_state_dict(state)
        assert plain(next(resumed) for _ in range(6)) == plain(ahead)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_hold_the_step_of_a_single_rank(size: int):
    single = list(make_loader(step=100))
    ranks = [list(make_loader(step=100, world=Rank(rank, size))) for rank in range(size)]
    assert {len(steps) for steps in ranks} == {len(single)}
    for number, step in enumerate(single):
        for name in ("inputs_BT", "targets_BT", "weights_BT", "positions_BT"):
            whole = torch.cat([getattr(batch, name) for batch in step])
            parts = torch.cat([getattr(batch, name) for steps in ranks for batch in steps[number]])
            assert torch.equal(whole, parts)
    shares = [[sum(len(batch.inputs_BT) for batch in step) for step in steps[:-1]] for steps in ranks]
    assert max(map(max, shares)) - min(map(min, shares)) <= 1


def test_state_does_not_depend_on_ranks_or_micro_batches():
    loader, other = make_loader(), make_loader(world=Rank(1, 2), micro=20)
    for _ in range(3):
        next(loader)
        next(other)
    assert loader.state_dict() == other.state_dict()


def test_a_state_of_other_data_is_refused():
    state = make_loader().state_dict()
    for loader, change in [
        (make_loader(numbered_source(LENGTHS[:-1])), "fingerprint"),
        (make_loader(seed=8), "seed"),
        (make_loader(row=15), "tokens_per_row"),
    ]:
        with pytest.raises(CheckpointError, match=f"another {change} of the training data"):
            loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"row": 0}, "tokens_per_row must be at least 1, got 0"),
        ({"micro": 19}, r"micro_batch_tokens \(19\) is less than tokens_per_row \(20\)"),
        ({"step": 19}, r"tokens_per_step \(19\) is less than a row"),
        ({"step": 59, "world": Rank(0, 3)}, "for each of 3 ranks"),
    ],
)
def test_sizes_that_do_not_fit(sizes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        make_loader(**sizes)


def test_nothing_to_read_or_to_predict():
    with pytest.raises(DataError, match="no documents"):
        make_loader(ListSource([]))
    with pytest.raises(DataError, match="nothing to predict"):
        next(make_loader(numbered_source([1, 1]), epochs=None))


def test_with_a_tokenizer_batches_read_as_the_documents():
    texts = ["the first text", "a second one, a little longer", "third"]
    tokenizer = Tokenizer.train(texts, 270)
    loader = PackedLoader(
        ListSource(Document(text=text) for text in texts), partial(encode_documents, tokenizer),
        tokens_per_step=256, tokens_per_row=256, micro_batch_tokens=256, seed=0, epochs=1, world=Rank(),
    )  # fmt: skip
    [[batch]] = list(loader)
    starts = [*(batch.positions_BT[0] == 0).nonzero().flatten().tolist(), 256]
    read = [
        tokenizer.decode([*batch.inputs_BT[0, start : start + 1].tolist(), *batch.targets_BT[0, start:stop].tolist()])
        for start, stop in pairwise(starts)
    ]
    assert sorted(read) == sorted([*texts, ""])
    assert batch.weight == sum(len(tokenizer.encode(text)) for text in texts)
