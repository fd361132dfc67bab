"""The engine: requests in, completions out, many sequences decoded at once.

    submit -> Scheduler -> prefill -> Slots -> [ decode -> sample -> record -> retire ] each step

Sequences come and go at any step (continuous batching: Orca, Yu et al. 2022). What a sequence draws depends neither on
its neighbours nor on when it ran, up to the rounding of the model's products.
Not for several threads: whoever drives `step` also calls `submit` and `cancel`.
"""

from collections import deque
from collections.abc import Sequence as SequenceOf
from itertools import count

import numpy as np
import torch
from torch import Tensor

from octavo.engine.checks import check_request
from octavo.engine.config import EngineConfig
from octavo.engine.constraint import Constrain, constrained
from octavo.engine.drawn import DrawnToken, describe, score
from octavo.engine.prefix_cache import BLOCK_TOKENS, PrefixCache
from octavo.engine.runner import Runner
from octavo.engine.sampler import sample
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Event, Group, Sequence
from octavo.engine.slots import Slots
from octavo.engine.transcript import Transcript
from octavo.errors import ConfigError
from octavo.model.transformer import Transformer
from octavo.tasks.types import Completion, CompletionRequest, FinishReason, SamplingParams
from octavo.text.tokenizer import Tokenizer


class Engine:
    """Serves a model, whose weights may change between calls of `complete`. While it has work, cache memory is reused;
    when `complete` ends it is given back: a trainer has another use for it."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, config: EngineConfig | None = None) -> None:
        """Raises ConfigError where the config asks for longer sequences than the model can read."""
        config = config or EngineConfig()
        longest = model.config.max_positions
        if config.max_tokens is not None and config.max_tokens > longest:
            raise ConfigError(f"engine: max_tokens is {config.max_tokens}, expected at most the model's {longest}")
        self._tokenizer = tokenizer
        self._vocabulary = model.config.vocab_size
        self._max_tokens = config.max_tokens or longest
        self._scheduler = Scheduler(config)
        self._model = model
        self._runner = Runner(model, config.prefill_tokens)
        self._prefixes = PrefixCache(config.prefix_cache_bytes)
        self._slots = Slots(model, config.max_rows, self._max_tokens, config.cache_tokens)
        self._end_V = np.zeros(self._vocabulary, bool)
        self._end_V[[token for token in tokenizer.end_ids if token < self._vocabulary]] = True
        self._ids = count()
        self.tokens_drawn = 0
        """Since it was made, by all sequences."""

    @property
    def has_work(self) -> bool:
        """Whether any sequence runs or waits."""
        return self._slots.used > 0 or self._scheduler.waiting > 0

    @property
    def free_slots(self) -> int:
        """Rows that no sequence uses."""
        return self._slots.free

    @property
    def prefix_cache_bytes(self) -> int:
        """Memory of the prompts that are kept."""
        return self._prefixes.used_bytes

    def submit(
        self,
        request: CompletionRequest,
        streamed: bool = False,
        constrain: Constrain | None = None,
        top_logprobs: int | None = None,
    ) -> int:
        """Queue a request; return its id. Streamed ones give an Event for each piece of text. Raises RequestError.

        `constrain` makes what each sample is held to. With `top_logprobs`, events tell of the tokens themselves.
        """
        check_request(request, self._vocabulary, self._max_tokens)
        limit = min(request.params.max_tokens, self._max_tokens - len(request.prompt_ids))
        group = Group(next(self._ids), request, streamed, limit, top_logprobs=top_logprobs)
        watched = streamed or bool(request.params.stop)
        group.waiting = deque(
            Sequence(
                group,
                index,
                Transcript(self._tokenizer, request.params.stop) if watched else None,
                constrain() if constrain else None,
            )
            for index in range(request.samples)
        )
        self._scheduler.add(group)
        return group.request_id

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Let waiting sequences enter, then draw one token for every row; return what became known."""
        events: list[Event] = []
        self._admit(events)
        if self._slots.used:
            self._draw(0, self._runner.decode(self._slots.last_B, self._slots.cache), events)
        return events

    @torch.inference_mode()
    def cancel(self, request_id: int) -> list[Event]:
        """End what is left of a request and free its rows at once; unknown and finished ids give nothing."""
        events = []
        for row in reversed(range(self._slots.used)):
            if self._slots.sequences[row].group.request_id == request_id:
                events.append(self._retire(row, "cancelled"))
        for sequence in self._scheduler.remove(request_id):
            prompt = sequence.group.request.prompt_ids
            events.append(Event(request_id, sequence.sample, completion=Completion(prompt, (), (), "", "cancelled")))
        return events

    @torch.inference_mode()
    def score(self, ids: SequenceOf[int], top: int = 0) -> list[DrawnToken]:
        """How likely each token but the first is behind those before it, with its `top` likeliest alternatives.

        Nothing is drawn, and no row is used. Raises RequestError.
        """
        params = SamplingParams(max_tokens=1)
        check_request(CompletionRequest(tuple(ids), params), self._vocabulary, self._max_tokens + 1)
        return score(self._model, ids, top)

    def complete(self, requests: SequenceOf[CompletionRequest]) -> list[list[Completion]]:
        """All samples of all requests, in order. Alone at work: nothing may be submitted. Raises RequestError.

        If it is interrupted at any moment (KeyboardInterrupt), the engine is empty and usable afterwards.
        """
        assert not self.has_work, "complete() would swallow the events of submitted requests"
        completions: dict[int, dict[int, Completion]] = {}
        try:
            for request in requests:
                completions[self.submit(request)] = {}
            while self.has_work:
                for event in self.step():
                    if event.completion is not None:
                        completions[event.request_id][event.sample] = event.completion
        finally:
            self.clear()
        return [[samples[index] for index in range(len(samples))] for samples in completions.values()]

    def clear(self) -> None:
        """Drop all that runs and waits, without events, and the memory of the cache."""
        self._scheduler.clear()
        self._slots.clear()

    def _admit(self, events: list[Event]) -> None:
        """Read the prompts of those who enter, give them rows and draw their first token."""
        admitted = self._scheduler.admit(self._slots.free, self._slots.fits)
        if not admitted:
            return
        self._read([group for group, _ in admitted if group.prefix is None])
        first = self._slots.used
        self._slots.reserve(
            rows=first + sum(len(sequences) for _, sequences in admitted),
            tokens=max(len(group.request.prompt_ids) + group.limit for group, _ in admitted),
        )
        logits = []
        for group, sequences in admitted:
            assert group.prefix is not None
            self._slots.enter(sequences, group.prefix)
            logits.append(group.prefix.logits_V.expand(len(sequences), -1))
            if not group.waiting:
                group.prefix = None
        self._draw(first, torch.cat(logits), events)

    def _read(self, groups: SequenceOf[Group]) -> None:
        """Read prompts. Those that begin as another one among them does wait for it, and read only the rest."""
        later: list[Group] = []
        heads, begun = [], set()
        now: list[Group] = []
        for group in groups:
            ids = group.request.prompt_ids
            head = self._prefixes.find(ids)
            next_block = ids[head.tokens : head.tokens + BLOCK_TOKENS]
            if self._prefixes.enabled and len(next_block) == BLOCK_TOKENS:
                if (head.last, next_block) in begun:
                    later.append(group)
                    continue
                begun.add((head.last, next_block))
            now.append(group)
            heads.append(head)
        prefixes = self._runner.prefill([group.request.prompt_ids for group in now], heads)
        for group, prefix, head in zip(now, prefixes, heads, strict=True):
            group.prefix, group.cached_tokens = prefix, head.tokens
            self._prefixes.keep(group.request.prompt_ids, prefix.cache, prefix.row)
        if later:
            self._read(later)

    def _draw(self, first: int, logits_BV: Tensor, events: list[Event]) -> None:
        """Draw a token for each of rows `first` to the last, and retire those that end with it."""
        sequences = self._slots.sequences[first:]
        allowed_BV = constrained(logits_BV, [sequence.constraint for sequence in sequences])
        ids_B, logprobs_B = sample(allowed_BV, self._slots.draws(first))
        if allowed_BV is not logits_BV:
            logprobs_B = logits_BV.float().log_softmax(-1).gather(1, ids_B[:, None])[:, 0]
        ids = ids_B.cpu().numpy()
        self.tokens_drawn += len(ids)
        for sequence, token in zip(sequences, ids, strict=True):
            if sequence.constraint is not None:
                sequence.constraint.advance(int(token))
        if asked := [row for row, sequence in enumerate(sequences) if sequence.group.top_logprobs is not None]:
            top = [sequences[row].group.top_logprobs or 0 for row in asked]
            for row, told in zip(asked, describe(logits_BV[asked], ids[asked].tolist(), top), strict=True):
                sequences[row].told.append(told)
        ended_B = self._slots.record(first, ids, logprobs_B.cpu().numpy(), self._end_V)
        for row in self._slots.watched(first):
            sequence = self._slots.sequences[row]
            token = int(ids[row - first])
            transcript = sequence.transcript
            assert transcript is not None
            if not self._end_V[token]:
                transcript.add(token)
            if transcript.stopped:
                ended_B[row - first] = True
            elif sequence.group.streamed and not ended_B[row - first] and (text := transcript.take()):
                events.append(Event(sequence.group.request_id, sequence.sample, text, tokens=sequence.take_told()))
        # From the last row down, so that the row that moves into a gap is never one that ends too.
        for row in reversed(first + np.flatnonzero(ended_B)):
            events.append(self._retire(int(row)))

    def _retire(self, row: int, reason: FinishReason | None = None) -> Event:
        """Free a row and give its completion; without a `reason`, its last token tells why it ended."""
        sequence = self._slots.sequences[row]
        ids, logprobs = self._slots.drawn(row)
        if reason is None:  # the last token was drawn, but never read
            written = (*sequence.group.request.prompt_ids, *ids[:-1])
            self._prefixes.keep(written, self._slots.cache, row)
        self._slots.leave(row)
        ended = bool(ids) and bool(self._end_V[ids[-1]])
        group, transcript, piece = sequence.group, sequence.transcript, ""
        if transcript is None:
            text = self._tokenizer.decode(ids[:-1] if ended else ids)
        else:
            transcript.close()
            text = transcript.text
            if group.streamed:
                piece = transcript.take()
        if reason is None:
            reason = "stop" if ended or (transcript is not None and transcript.stopped) else "length"
        completion = Completion(
            group.request.prompt_ids, tuple(ids), tuple(logprobs), text, reason, group.cached_tokens
        )
        return Event(group.request_id, sequence.sample, piece, completion, sequence.take_told())
