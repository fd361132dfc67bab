"""The one thread that drives all engines: it takes requests in, steps whoever has work, and hands out the news.

    submit, cancel, call  ->  commands  ->  [ commands | one step of each engine with work | deadlines ]  ->  deliver

Engines take turns step by step, so that several models share the processor fairly.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from octavo.engine.constraint import Constrain
from octavo.engine.engine import Engine
from octavo.engine.sequence import Event
from octavo.errors import OctavoError
from octavo.serve.errors import ApiError
from octavo.tasks.types import CompletionRequest

log = logging.getLogger(__name__)
T = TypeVar("T")
Item = Event | Exception


@dataclass(frozen=True)
class Job:
    """What an engine is asked for."""

    request: CompletionRequest
    constrain: Constrain | None = None
    top_logprobs: int | None = None


@dataclass(eq=False)
class Ticket:
    """A request under way. Whoever submitted it gets an Event for each piece of text, or one exception at the end."""

    engine: Engine
    job: Job
    put: Callable[[Item], None]
    deadline: float
    """In `time.monotonic()`."""
    id: int = -1
    unfinished: int = field(init=False)

    def __post_init__(self) -> None:
        self.unfinished = self.job.request.samples


def put_directly(news: list[tuple[Ticket, Item]]) -> None:
    """Hand out news on the driver's own thread."""
    for ticket, item in news:
        ticket.put(item)


class Driver:
    """Starts its thread at once. `deliver` is called on that thread, once a step."""

    def __init__(self, deliver: Callable[[list[tuple[Ticket, Item]]], None] = put_directly) -> None:
        self._deliver = deliver
        self._commands: list[Callable[[], None]] = []
        self._news: list[tuple[Ticket, Item]] = []
        self._tickets: dict[Engine, dict[int, Ticket]] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="octavo-engines", daemon=True)
        self._thread.start()

    def submit(self, ticket: Ticket) -> None:
        """Take a request in. What is wrong with it comes as an item."""
        self._command(lambda: self._start(ticket))

    def cancel(self, ticket: Ticket) -> None:
        """Free what a request holds, before the next step. It gets no further items."""
        self._command(lambda: self._stop(ticket))

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Run something between two steps, as what computes with a model beside its engine."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

        self._command(run)
        return future

    def close(self) -> None:
        """End the thread after its step; what runs is dropped."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _command(self, command: Callable[[], None]) -> None:
        with self._wake:
            if self._closing:
                raise ApiError(503, "the server is shutting down", "shutting_down")
            self._commands.append(command)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._commands or self._tickets or self._closing):
                    self._wake.wait()
                if self._closing:
                    return
                commands, self._commands = self._commands, []
            for command in commands:
                command()
            self._give_up_late_ones()
            for engine in list(self._tickets):
                self._step(engine)
            if self._news:
                news, self._news = self._news, []
                self._deliver(news)

    def _start(self, ticket: Ticket) -> None:
        job = ticket.job
        try:
            ticket.id = ticket.engine.submit(job.request, True, job.constrain, job.top_logprobs)
        except Exception as error:
            self._fail([ticket], error)
            return
        self._tickets.setdefault(ticket.engine, {})[ticket.id] = ticket

    def _stop(self, ticket: Ticket) -> None:
        if ticket.id in self._tickets.get(ticket.engine, {}):
            ticket.engine.cancel(ticket.id)
            self._forget(ticket)

    def _step(self, engine: Engine) -> None:
        try:
            events = engine.step()
        except Exception as error:  # the model, not a request: all of its requests end
            tickets = list(self._tickets.pop(engine).values())
            engine.clear()
            self._fail(tickets, error)
            return
        for event in events:
            ticket = self._tickets[engine][event.request_id]
            self._news.append((ticket, event))
            if event.completion is not None:
                ticket.unfinished -= 1
                if not ticket.unfinished:
                    self._forget(ticket)

    def _give_up_late_ones(self) -> None:
        now = time.monotonic()
        late = [ticket for tickets in self._tickets.values() for ticket in tickets.values() if ticket.deadline < now]
        for ticket in late:
            self._stop(ticket)
            self._news.append((ticket, ApiError(408, "the request took longer than its deadline", "deadline")))

    def _fail(self, tickets: list[Ticket], error: Exception) -> None:
        if not isinstance(error, OctavoError):
            log.error("an engine failed", exc_info=error)
        self._news += [(ticket, error) for ticket in tickets]

    def _forget(self, ticket: Ticket) -> None:
        tickets = self._tickets[ticket.engine]
        del tickets[ticket.id]
        if not tickets:
            del self._tickets[ticket.engine]
