import pytest
import torch
from tiny_training import SPARSE, random_batch, tiny_model

from octavo.data.batch import Batch
from octavo.losses.cross_entropy import cross_entropy
from octavo.optim.groups import OptimizerConfig
from octavo.train.pretrain import PretrainConfig, mtp_loss_sum, pretrain_loss, targets_ahead
from octavo.train.types import LoopConfig

CONFIG = PretrainConfig(
    loop=LoopConfig(steps=10),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    tokens_per_step=24,
    tokens_per_row=12,
    micro_batch_tokens=24,
    mtp_weight=0.3,
    mtp_late_weight=0.1,
    mtp_late_share=0.5,
    balance_alpha=0.01,
)


def test_targets_ahead_stay_inside_the_document():
    # Documents "10 11 12 13" and "20 21 22" (and padding): each predicts its own next tokens.
    batch = Batch(
        inputs_BT=torch.tensor([[10, 11, 12, 20, 21, 0]]),
        targets_BT=torch.tensor([[11, 12, 13, 21, 22, 0]]),
        weights_BT=torch.tensor([[1.0, 1.0, 0.5, 1.0, 1.0, 0.0]]),
        positions_BT=torch.tensor([[0, 1, 2, 0, 1, 0]]),
    )
    targets_BT, weights_BT = targets_ahead(batch, 1)
    assert weights_BT.tolist() == [[1.0, 0.5, 0.0, 1.0, 0.0, 0.0]]
    assert targets_BT[weights_BT > 0].tolist() == [12, 13, 22]
    targets_BT, weights_BT = targets_ahead(batch, 2)
    assert weights_BT.tolist() == [[0.5, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert targets_BT[weights_BT > 0].tolist() == [13]


def test_a_row_that_begins_anew_is_not_ahead_of_its_end():
    """Rolled in from the row's beginning stands position 0, which follows no position; but -1 + 1 would."""
    batch = Batch(*(torch.tensor([[1, 2, 3]]),) * 2, torch.ones(1, 3), torch.tensor([[0, 1, 2]]))
    for depth in (1, 2, 3):
        assert targets_ahead(batch, depth)[1].tolist() == [[1.0] * (3 - depth) + [0.0] * depth]


def test_the_loss_is_the_sum_of_its_parts():
    model, batch = tiny_model(), random_batch(0)
    model.train()
    early = pretrain_loss(CONFIG, model, batch, 0.49)
    late = pretrain_loss(CONFIG, model, batch, 0.5)
    hidden_BTD = model(batch.inputs_BT, batch.positions_BT)
    expected = cross_entropy(
        hidden_BTD.flatten(0, 1), model.head_weight_VD, batch.targets_BT.flatten(), batch.weights_BT.flatten()
    )
    torch.testing.assert_close(early.loss_sum, expected.loss_sum)
    torch.testing.assert_close(early.sums["mtp_loss"], mtp_loss_sum(model, hidden_BTD, batch).detach())
    torch.testing.assert_close(early.auxiliary_sum, 0.3 * early.sums["mtp_loss"])
    torch.testing.assert_close(late.auxiliary_sum, 0.1 * early.sums["mtp_loss"])
    # Two sparse layers (one of them in the MTP block), each near perfect balance: a token counts about 1.
    assert early.balance_sum.item() == pytest.approx(0.01 * 2 * batch.tokens, rel=0.1)


def test_documents_packed_together_lose_as_much_as_apart():
    model = tiny_model().train()
    batch = random_batch(0, rows=1)
    first = int((batch.positions_BT[0] == 0).nonzero()[1])
    tensors = (batch.inputs_BT, batch.targets_BT, batch.weights_BT, batch.positions_BT)
    whole = pretrain_loss(CONFIG, model, batch, 0.0)
    parts = [pretrain_loss(CONFIG, model, Batch(*(tensor[:, span] for tensor in tensors)), 0.0)
             for span in (slice(0, first), slice(first, None))]  # fmt: skip
    torch.testing.assert_close(whole.loss_sum, parts[0].loss_sum + parts[1].loss_sum)
    torch.testing.assert_close(whole.sums["mtp_loss"], parts[0].sums["mtp_loss"] + parts[1].sums["mtp_loss"])


def test_parts_that_are_off_cost_nothing():
    model = tiny_model(SPARSE).train()
    config = CONFIG.model_copy(update={"mtp_weight": 0.0, "balance_alpha": 0.0})
    loss = pretrain_loss(config, model, random_batch(0), 0.0)
    assert loss.auxiliary_sum is None
    assert loss.balance_sum is None
    loss.loss_sum.backward()
    assert all(parameter.grad is None for parameter in model.mtp.parameters())
