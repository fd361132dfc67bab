"""The decoder-only transformer of every family that Octavo knows, by config.

Shapes: `B` rows, `T` tokens, `R` = B T flat tokens, `D` width, `V` vocabulary.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from octavo.losses.balance import sequence_balance_loss
from octavo.model.block import Block
from octavo.model.cache import Cache, CacheStep
from octavo.model.config import MLAConfig, ModelConfig
from octavo.model.decoder import Decoder
from octavo.model.int8 import Int8Matrix
from octavo.model.layout import Layout
from octavo.model.mtp import MTP
from octavo.model.norm import RMSNorm
from octavo.model.rope import Rope
from octavo.model.router import Router

# The kernels attend token by token; above so many of one row, torch's attention over blocks of them is faster.
_MOST_KERNEL_TOKENS = 768


class Transformer(nn.Module):
    """Token ids to final hidden states; the head is applied by losses and the engine where it is needed."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        attention = config.attention
        rotated = attention.rope_dim if isinstance(attention, MLAConfig) else config.head_dim
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.rope = Rope(rotated, config.rope_theta, config.rope_scaling)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        self.mtp = nn.ModuleList(MTP(config, config.layers + depth) for depth in range(config.mtp_layers))
        self._layout: Layout | None = None
        self._decoder: Decoder | None = None
        self.initialize()

    def __getstate__(self) -> dict[str, Any]:
        """A copy lies elsewhere in memory, and describes itself to the kernels anew."""
        return self.__dict__ | {"_decoder": None}

    @staticmethod
    def blueprint(config: ModelConfig) -> "Transformer":
        """A model without memory, of which only names and shapes can be asked."""
        with torch.device("meta"), _Undrawn():
            return Transformer(config)

    @staticmethod
    def empty(config: ModelConfig) -> "Transformer":
        """A model whose weights are memory not yet written: for readers of checkpoints, who fill all of it."""
        with _Undrawn():
            return Transformer(config)

    def forward(self, inputs_BT: Int[Tensor, "B T"], positions_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Packed documents to hidden states behind the final norm. A document starts wherever the position is 0."""
        layout = self._layout = Layout.of(positions_BT)
        rotation = self.rope(positions_BT.flatten())
        x_RD = self.embed(inputs_BT.flatten())
        for block in self.layers:
            x_RD = block(x_RD, rotation, layout)
        _count_load(self.layers)
        return self.norm(x_RD).view(*inputs_BT.shape, -1)

    def mtp_hidden(
        self, hidden_BTD: Float[Tensor, "B T D"], inputs_BT: Int[Tensor, "B T"], positions_BT: Int[Tensor, "B T"]
    ) -> list[Float[Tensor, "B T D"]]:
        """Hidden states of each MTP depth d (1, 2, ...), which at position t predict token t + 1 + d.

        Positions whose tokens t + 1 ... t + d lie outside the document hold values without meaning; losses mask them.
        """
        layout = Layout.of(positions_BT)
        rotation = self.rope(positions_BT.flatten())
        hidden_RD, tokens_BT = hidden_BTD.flatten(0, 1), inputs_BT
        outputs = []
        for module in self.mtp:
            # Within each row: a row must not depend on which others it is cut into a micro-batch with.
            tokens_BT = tokens_BT.roll(-1, dims=1)
            hidden_RD = module(hidden_RD, self.embed(tokens_BT.flatten()), rotation, layout)
            outputs.append(hidden_RD.view_as(hidden_BTD))
        _count_load(self.mtp)
        return outputs

    def forward_cached(self, inputs_BT: Int[Tensor, "B T"], cache: Cache) -> Float[Tensor, "B T D"]:
        """Append T tokens to each row of the cache, and return their hidden states behind the final norm.

        Rows padded on the right hold garbage behind their true length until the caller sets `cache.lengths_B`.
        """
        tokens = inputs_BT.shape[1]
        longest = int(cache.lengths_B.max()) + tokens
        assert longest <= cache.max_tokens, f"{longest} tokens do not fit in a cache of {cache.max_tokens}"
        x_BTD = self.embed(inputs_BT)
        if decoder := self._decoder_for(tokens):
            hidden_BTD = decoder.extend(x_BTD, cache)
        else:
            hidden_BTD = self._extend(x_BTD, cache)
        cache.lengths_B.add_(tokens)
        return hidden_BTD

    def _extend(self, x_BTD: Tensor, cache: Cache) -> Tensor:
        step = CacheStep.of(cache.lengths_B, x_BTD.shape[1], x_BTD.dtype, self.config.sliding_window)
        rotation = self.rope(step.slots_BT)
        for block, cached in zip(cast(Iterable[Block], self.layers), cache.layers, strict=True):
            x_BTD = block.extend(x_BTD, rotation, cached, step)
        return self.norm(x_BTD)

    def _decoder_for(self, tokens: int) -> Decoder | None:
        """The model for the kernels, described anew whenever several tokens are read: modules may have changed."""
        if tokens > _MOST_KERNEL_TOKENS:
            return None
        if tokens > 1 or self._decoder is None or not self._decoder.is_valid():
            self._decoder = Decoder.of(self)
        return self._decoder

    @property
    def head_weight_VD(self) -> Tensor:
        """The output projection: its own matrix, or the embedding where they are tied."""
        return self.embed.weight if self.head is None else self.head.weight

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Whole logits: for a few positions only. Losses use `losses.logprobs`, which never holds them whole."""
        head = self.embed if self.head is None else self.head
        return head.multiply(hidden) if isinstance(head, Int8Matrix) else hidden @ head.weight.T

    def new_cache(self, rows: int, max_tokens: int) -> Cache:
        """An empty cache for `rows` sequences of at most `max_tokens` tokens."""
        weight = self.norm.weight
        return Cache.allocate(self.config, rows, max_tokens, weight.dtype, weight.device)

    def routers(self) -> list[Router]:
        """Routers from the first sparse layer to the last, those of MTP blocks included."""
        return _routers_in(self)

    def balance_loss(self) -> Tensor | None:
        """Sequence-wise balance loss (DeepSeek-V3, eq. 17), summed over tokens and the layers of the last forward.

        To be divided by the number of tokens and weighted with alpha by the caller. None without experts.
        """
        routings = [router.routing for router in self.routers() if router.routing is not None]
        if not routings or self._layout is None:
            return None
        layout = self._layout
        losses = [
            sequence_balance_loss(routing.scores_RE, routing.experts_RK, layout.document_R, layout.documents)
            for routing in routings
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw all weights anew from the current random state.

        Normal with `init_std`; projections into the residual stream are divided by sqrt(2 layers) (GPT-2), biases 0.
        """
        std = self.config.init_std
        into_residual = std / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():
            leaf = name.removesuffix(".weight").rsplit(".", 1)[-1]
            if parameter.ndim >= 2:
                parameter.normal_(0.0, into_residual if leaf in ("o", "down", "down_EFD") else std)
            elif name.endswith("bias"):
                parameter.zero_()


def _routers_in(module: nn.Module) -> list[Router]:
    return [part for part in module.modules() if isinstance(part, Router)]


def _count_load(blocks: nn.Module) -> None:
    """Once for each forward pass of the whole: a block that is run again for its gradients must not count twice."""
    for router in _routers_in(blocks):
        router.count_load()


class _Undrawn(TorchFunctionMode):
    """Leaves initial weights undrawn. (On the meta device, torch would import for 1.5 s to draw what is not there.)"""

    _DRAWS = frozenset({nn.init.normal_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_})

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return None if func in self._DRAWS else func(*args, **(kwargs or {}))
