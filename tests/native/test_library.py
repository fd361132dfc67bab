"""The kernels against NumPy in double precision, and what they promise: no dependence on neighbours and threads.

Shapes: `R` rows, `I` inputs, `O` outputs, `V` vocabulary.
"""

import numpy as np
import pytest
import torch

from octavo import native
from octavo.model.int8 import Int8Linear
from octavo.native.structures import FLOAT_ROWS, Matrix

SIZES = [(1, 1, 1), (1, 96, 80), (3, 37, 19), (5, 576, 50), (13, 40, 97), (70, 64, 200), (130, 33, 1030)]


@pytest.fixture(autouse=True)
def inference():
    if not native.available():
        pytest.skip(native.status().why)
    threads = torch.get_num_threads()
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def float_matrix(w_OI, bias_O=None):
    return Matrix(FLOAT_ROWS, *w_OI.shape, w_OI.data_ptr(), None, None if bias_O is None else bias_O.data_ptr())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_float_products(rows, inputs, outputs, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(rows)
    x_RI, w_OI, bias_O = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    expected = x_RI.double() @ w_OI.double().T + bias_O
    found = native.multiply(float_matrix(w_OI, bias_O), x_RI)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_int8_products_are_whole_numbers_inside_a_group(rows, inputs, outputs, threads):
    """Weights as packed, activations rounded in groups of 32 to 127ths of the greatest: nothing else is lost."""
    torch.set_num_threads(threads)
    torch.manual_seed(rows)
    linear = torch.nn.Linear(inputs, outputs)
    packed, x_RI = Int8Linear(linear.weight, linear.bias), torch.randn(rows, inputs)
    x_RI[0] = 0
    padded = torch.nn.functional.pad(x_RI, (0, -inputs % 32)).unflatten(1, (-1, 32))
    scale = padded.abs().amax(-1, keepdim=True) / 127
    rounded = torch.where(scale > 0, (padded * (1 / scale)).round() * scale, 0).flatten(1)[:, :inputs]
    expected = rounded.double() @ packed.weight.double().T + linear.bias
    torch.testing.assert_close(packed(x_RI).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_row_depends_on_neither_neighbours_nor_threads(kind):
    """Bit for bit, so what is sampled does not depend on who else is there."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(100, 70, bias=False)
    matrix = float_matrix(linear.weight) if kind == "float" else Int8Linear(linear.weight).matrix()
    packed = Int8Linear(linear.weight)
    matrix = float_matrix(linear.weight) if kind == "float" else packed.matrix()
    x_RI = torch.randn(150, 100)
    torch.set_num_threads(2)
    together = native.multiply(matrix, x_RI)
    torch.set_num_threads(1)
    assert torch.equal(native.multiply(matrix, x_RI), together)
    for row in (0, 5, 63, 64, 149):
        assert torch.equal(native.multiply(matrix, x_RI[row : row + 1])[0], together[row])
    assert torch.equal(native.multiply(matrix, x_RI[7:20]), together[7:20])


@pytest.mark.parametrize("vocabulary", [1, 7, 256, 300, 5000])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
def test_sampling(vocabulary, temperature):
    """The token where the cumulative distribution passes the uniform number, in double precision."""
    torch.manual_seed(vocabulary)
    logits_RV = torch.randn(40, vocabulary) * 3
    logits_RV[:, ::5] = -torch.inf
    logits_RV[:, -1] = 0.5
    uniform_R = np.linspace(0, 1, 40, endpoint=False)
    ids_R, logprobs_R = native.sample(logits_RV, np.full(40, temperature), uniform_R)
    exact_RV = logits_RV.double()
    torch.testing.assert_close(logprobs_R, exact_RV.log_softmax(-1).gather(1, ids_R[:, None])[:, 0].float())
    if not temperature:
        assert torch.equal(ids_R, logits_RV.argmax(-1))
        return
    cumulative_RV = (exact_RV / temperature).softmax(-1).cumsum(-1)
    before_R = cumulative_RV.gather(1, ids_R[:, None])[:, 0]
    weight_R = (exact_RV / temperature).softmax(-1).gather(1, ids_R[:, None])[:, 0]
    assert (weight_R > 0).all()
    assert (before_R.numpy() > uniform_R - 1e-6).all()
    assert ((before_R - weight_R).numpy() <= uniform_R + 1e-6).all()


def test_a_tiny_temperature_is_greedy():
    logits_RV = torch.randn(20, 300)
    ids_R, _ = native.sample(logits_RV, np.full(20, 1e-30), np.linspace(0, 0.999, 20))
    assert torch.equal(ids_R, logits_RV.argmax(-1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_without_a_distribution(bad):
    logits_RV = torch.zeros(9, 40)
    logits_RV[4, 33] = bad
    assert native.sample(logits_RV, np.ones(9), np.zeros(9)) is None
    assert native.sample(torch.full((1, 5), -torch.inf), np.ones(1), np.zeros(1)) is None


def test_whom_kernels_serve(monkeypatch):
    floats = torch.zeros(2)
    assert native.serves(floats)
    assert not native.serves(floats, floats.double())
    with torch.inference_mode(False), torch.enable_grad():
        assert not native.serves(floats)
    monkeypatch.setenv(native.SWITCH, "0")
    assert not native.serves(floats)
    assert native.status() == native.Status(False, "switched off by OCTAVO_NATIVE=0")
