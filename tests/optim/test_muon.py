import pytest
import torch

from octavo.optim.muon import Muon, orthogonalize

A, B, C = 3.4445, -4.7750, 2.0315


def slow_orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """The quintic applied to the singular values."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = A * s + B * s**3 + C * s**5
    return u * s @ v


@pytest.mark.parametrize("shape", [(8, 8), (8, 13), (13, 8), (6, 30), (30, 6), (1, 5)])
def test_orthogonalizes_as_the_singular_values_say(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    expected = torch.stack([slow_orthogonalize(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices), expected)
    # One row: its only singular value goes 1 -> 0.701 -> ... and cycles through the same band.
    singular = torch.linalg.svdvals(orthogonalize(matrices))
    assert singular.max() < 1.3


def test_long_and_nearly_singular_matrices_keep_their_accuracy_in_float32():
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(64, 16, generator=generator, dtype=torch.float64))[0]
    matrix = (left * torch.logspace(0, -6, 16, dtype=torch.float64)) @ right.T
    result = orthogonalize(matrix.float()[None])[0]
    torch.testing.assert_close(result.double(), slow_orthogonalize(matrix), atol=1e-3, rtol=0)


def test_many_matrices_go_through_in_slices(monkeypatch):
    matrices = torch.randn(7, 4, 6, generator=torch.Generator().manual_seed(0))
    whole = orthogonalize(matrices)
    monkeypatch.setattr("octavo.optim.muon._CACHE_NUMBERS", 2 * 4 * 6)
    torch.testing.assert_close(orthogonalize(matrices), whole)


def test_a_zero_matrix_stays_zero():
    assert orthogonalize(torch.zeros(2, 3, 5)).abs().max() == 0


def reference_steps(weight, gradients, lr, momentum, decay):
    """Moonlight's update of one matrix, written out."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + gradient
        update = slow_orthogonalize(gradient + momentum * buffer)
        weight = weight - lr * (0.2 * max(weight.shape) ** 0.5 * update + decay * weight)
    return weight


def test_steps_equal_the_written_out_update_for_matrices_experts_and_halves():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    start = [draw(4, 6), draw(4, 6), draw(3, 6, 4), draw(3, 4, 10)]
    gradients = [[draw(*tensor.shape) for tensor in start] for _ in range(3)]
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    optimizer = Muon(
        [{"params": parameters[:3]}, {"params": parameters[3:], "parts": 2}], lr=0.1, momentum=0.9, weight_decay=0.3
    )
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()

    def expected(index, select):
        return reference_steps(select(start[index]), [select(step[index]) for step in gradients], 0.1, 0.9, 0.3)

    for index in (0, 1):
        torch.testing.assert_close(parameters[index].data, expected(index, lambda t: t))
    for expert in range(3):
        torch.testing.assert_close(parameters[2].data[expert], expected(2, lambda t, e=expert: t[e]))
        for half in (slice(0, 5), slice(5, 10)):
            torch.testing.assert_close(
                parameters[3].data[expert, :, half], expected(3, lambda t, e=expert, h=half: t[e, :, h])
            )


def test_parameters_without_gradient_and_wrong_shapes():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    assert parameter.eq(1).all()
    with pytest.raises(ValueError, match="not 1 matrices"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)
