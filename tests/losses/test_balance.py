import torch

from octavo.losses.balance import sequence_balance_loss


def slow(scores_RE, chosen_RK, document_R):
    """The paper's formula, document by document."""
    experts, chosen = scores_RE.shape[1], chosen_RK.shape[1]
    total = torch.zeros((), dtype=scores_RE.dtype)
    for document in document_R.unique():
        rows = document_R == document
        tokens = int(rows.sum())
        for expert in range(experts):
            fraction = experts / (chosen * tokens) * int((chosen_RK[rows] == expert).sum())
            probability = (scores_RE[rows, expert] / scores_RE[rows].sum(-1)).sum() / tokens
            total = total + tokens * fraction * probability
    return total


def test_value_by_hand():
    # Two tokens of one document, both to expert 0 of 2, whose normalized score is 0.8: f = (2, 0), P = (0.8, 0.2).
    scores_RE = torch.tensor([[0.4, 0.1], [0.8, 0.2]])
    loss = sequence_balance_loss(scores_RE, torch.tensor([[0], [0]]), torch.tensor([0, 0]), 1)
    torch.testing.assert_close(loss, torch.tensor(2 * 2 * 0.8))


def test_perfect_balance_gives_the_number_of_tokens():
    chosen_RK = torch.tensor([[0, 1], [2, 3]])
    loss = sequence_balance_loss(torch.full((2, 4), 0.5), chosen_RK, torch.tensor([0, 0]), 1)
    torch.testing.assert_close(loss, torch.tensor(2.0))


def test_value_and_gradient_are_those_of_the_paper():
    torch.manual_seed(0)
    scores_RE = torch.rand(12, 5, dtype=torch.float64, requires_grad=True)
    chosen_RK = scores_RE.topk(2).indices
    document_R = torch.tensor([0] * 3 + [1] * 4 + [3] * 5)
    expected = slow(scores_RE, chosen_RK, document_R)
    loss = sequence_balance_loss(scores_RE, chosen_RK, document_R, 4)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, scores_RE), torch.autograd.grad(expected, scores_RE))


def test_packing_changes_nothing():
    torch.manual_seed(0)
    scores_RE, chosen_RK = torch.rand(9, 4), torch.randint(4, (9, 1))
    packed = sequence_balance_loss(scores_RE, chosen_RK, torch.tensor([0] * 4 + [1] * 5), 2)
    zeros = torch.zeros(9, dtype=torch.long)
    apart = sequence_balance_loss(scores_RE[:4], chosen_RK[:4], zeros[:4], 1) + sequence_balance_loss(
        scores_RE[4:], chosen_RK[4:], zeros[4:], 1
    )
    torch.testing.assert_close(packed, apart)
