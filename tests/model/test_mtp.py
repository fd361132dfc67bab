"""Multi-token prediction: against `transformers`, against its formula, and across packed documents."""

import torch
import transformers
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

transformers.utils.logging.disable_progress_bar()


def test_against_transformers(sparse, random_model, write_for_transformers):
    """Two depths, read by transformers from the released layout (layers behind the last one)."""
    model = random_model(sparse(mtp_layers=2, attention={"q_rank": 10}))
    peer = transformers.AutoModelForCausalLM.from_pretrained(write_for_transformers(model)).eval()
    # transformers finds MTP layers by this pattern, which it only has for the 61 layers of the released model.
    peer._keys_to_ignore_on_load_unexpected = [r"model\.layers\.3.*", r"model\.layers\.4.*"]
    mtp = MtpModel.from_pretrained(peer).eval()

    tokens = 15
    ids, positions = torch.randint(0, 50, (2, tokens)), torch.arange(tokens).expand(2, tokens)
    with torch.no_grad():
        hidden = model(ids, positions)
        expected = peer.model(ids).last_hidden_state
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-4)
        cache = MtpCache(config=peer.config.get_mtp_config())
        for depth, ours in enumerate(model.mtp_hidden(hidden, ids, positions), start=1):
            known = tokens - depth
            expected = mtp.forward_layer(
                depth - 1, expected[:, :known], positions[:, depth:], cache, input_ids=ids[:, depth:]
            )
            assert expected.abs().max() > 1
            torch.testing.assert_close(ours[:, :known], expected, rtol=0, atol=1e-4)


def test_the_embedding_comes_first(sparse, random_model):
    """h' = norm(block(M [norm(embedding of the next token); norm(h)])), written out."""
    model = random_model(sparse(mtp_layers=1))
    module = model.mtp[0]
    ids, positions = torch.randint(0, 50, (1, 9)), torch.arange(9)[None]
    with torch.no_grad():
        hidden = model(ids, positions)
        (found,) = model.mtp_hidden(hidden, ids, positions)
        inputs = []
        for t in range(8):
            embedding, h = model.embed.weight[ids[0, t + 1]], hidden[0, t]
            rms = [(x * x).mean().add(1e-6).sqrt() for x in (embedding, h)]
            normalized = [embedding / rms[0] * module.embed_norm.weight, h / rms[1] * module.hidden_norm.weight]
            inputs.append(module.project.weight[:, :16] @ normalized[0] + module.project.weight[:, 16:] @ normalized[1])
        # The block sees the eight joined inputs as one document.
        alone = Joined(module, torch.stack(inputs))(model, positions[:, :8])
    torch.testing.assert_close(found[0, :8], alone, rtol=1e-4, atol=1e-4)


class Joined:
    """Runs an MTP module's block and norm on inputs joined by hand."""

    def __init__(self, module, inputs_RD):
        self.module, self.inputs_RD = module, inputs_RD

    def __call__(self, model, positions):
        from octavo.model.layout import Layout

        out = self.module.block(self.inputs_RD, model.rope(positions.flatten()), Layout.of(positions))
        return self.module.norm(out)


def test_packed_documents_do_not_see_each_other(sparse, random_model):
    """Each depth d at all but the last d positions of a document is as if the document stood alone."""
    model = random_model(sparse(mtp_layers=2))
    lengths = (5, 1, 7, 3)
    ids = torch.randint(0, 50, (1, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.no_grad():
        packed = model.mtp_hidden(model(ids, positions), ids, positions)
        start = 0
        for length in lengths:
            span, steps = slice(start, start + length), torch.arange(length)[None]
            alone = model.mtp_hidden(model(ids[:, span], steps), ids[:, span], steps)
            for depth, (ours, expected) in enumerate(zip(packed, alone, strict=True), start=1):
                known = max(length - depth, 0)
                torch.testing.assert_close(ours[:, start : start + known], expected[:, :known], rtol=1e-4, atol=1e-4)
            start += length


def test_gradients_reach_everything_that_is_shared(sparse, random_model):
    """The MTP loss trains its own block, the main model below, and the shared embedding."""
    model = random_model(sparse(mtp_layers=1)).train()
    ids, positions = torch.randint(0, 50, (2, 9)), torch.arange(9).expand(2, 9)
    (hidden,) = model.mtp_hidden(model(ids, positions), ids, positions)
    model.logits(hidden[:, :-2]).logsumexp(-1).sum().backward()
    assert [name for name, parameter in model.named_parameters() if not torch.any(parameter.grad)] == []


def test_mtp_routers_count_too(sparse, random_model):
    model = random_model(sparse(mtp_layers=2)).train()
    ids, positions = torch.randint(0, 50, (2, 9)), torch.arange(9).expand(2, 9)
    assert len(model.routers()) == 2 + 2  # layers 1 and 2, and two depths
    model.mtp_hidden(model(ids, positions), ids, positions)
    assert [int(router.take_load().sum()) for router in model.routers()] == [18 * 3] * 4
