"""Peak memory, measured in a process of its own: loading takes the model and one tensor, saving one tensor."""

import json
import subprocess
import sys

import pytest

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.weights.hf import save_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")

SCRIPT = """
import json, sys
from pathlib import Path

import torch

from octavo.weights.hf import load_model, load_tokenizer, save_model


def peak_bytes_of(act):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    result = act()
    return result, memory("VmHWM") - before


def memory(field):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


folder = Path(sys.argv[1])
tokenizer = load_tokenizer(folder)
model, loading = peak_bytes_of(lambda: load_model(folder))
_, saving = peak_bytes_of(lambda: save_model(folder.parent / "again", model, tokenizer, torch.bfloat16))
parameters = list(model.parameters())
print(json.dumps({
    "model": sum(parameter.nbytes for parameter in parameters),
    "largest": max(parameter.nbytes for parameter in parameters),
    "loading": loading,
    "saving": saving,
    "sympy": "sympy" in sys.modules,
}))
"""


def test_peak_memory(tokenizer, tmp_path):
    mla = {"kind": "mla", "heads": 4, "kv_rank": 64, "nope_dim": 32, "rope_dim": 16, "v_dim": 32}
    moe = {"experts": 16, "experts_per_token": 2, "expert_width": 128}
    shape = {"vocab_size": 8000, "width": 512, "layers": 6, "ffn_width": 1024}
    model = Transformer(ModelConfig.parse(shape | {"attention": mla, "moe": moe, "mtp_layers": 1}))
    # In shards, one of them far larger than a tensor.
    save_model(tmp_path / "model", model, tokenizer, shard_bytes=60_000_000)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "model"], capture_output=True, text=True, check=True, timeout=100
    )
    found = json.loads(run.stdout)
    assert found["model"] > 100_000_000
    code = 12_000_000  # what torch loads when it is used for the first time
    assert found["model"] < found["loading"] < found["model"] + found["largest"] + code
    assert found["saving"] < found["largest"] + code
    # torch would import it, and 800 modules more, to make a model without memory as usual.
    assert not found["sympy"]
