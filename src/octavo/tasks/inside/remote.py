"""Calls between a process that tests and one that is tested, neither of which can reach into the other.

Plain data crosses by value and is rebuilt from the exact built-in type, so that a number with an `__eq__` of its own
arrives as a number. Everything else (functions, classes, instances, generators) stays where it is; the other side holds
a `Remote`, known by number. An operator between a `Remote` and plain data is never decided by the remote side: what is
equal to everything is equal to nothing here. Between two `Remote`s it is, as it must be for classes with values.

The testing side serves calls of the functions that it hands over (callbacks), and nothing else.
"""

import builtins
import importlib
import json
import operator
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

MAX_FRAME_BYTES = 32 * 2**20

_LARGEST_JSON_INT = 2**63
_CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_MUTABLE = (list, dict, set, deque, bytearray)
_TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}
# Values of the standard library, by what their constructors take.
_VALUES: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("decimal", "Decimal"): lambda value: (str(value),),
    ("datetime", "date"): lambda value: (value.year, value.month, value.day),
    ("datetime", "time"): lambda value: (value.hour, value.minute, value.second, value.microsecond),
    ("datetime", "datetime"): lambda value: (
        *(value.year, value.month, value.day),
        *(value.hour, value.minute, value.second, value.microsecond),
    ),
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
}


class Closed(Exception):  # noqa: N818
    """The other side has ended, or says what cannot be read."""


class RemoteFailure(Exception):  # noqa: N818
    """The other side raised what is no exception here, such as SystemExit."""


def write_frame(descriptor: int, message: object) -> None:
    """Write JSON with its length before it. Raises Closed."""
    data = json.dumps(message).encode()
    if len(data) > MAX_FRAME_BYTES:
        raise ValueError(f"{len(data)} bytes are too many to hand over, at most {MAX_FRAME_BYTES}")
    view = memoryview(len(data).to_bytes(8, "big") + data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise Closed("the other process has ended") from error


def read_frame(descriptor: int) -> Any:
    """Read what `write_frame` wrote, and not a byte more. Raises Closed."""
    length = int.from_bytes(_read_exactly(descriptor, 8), "big")
    if length > MAX_FRAME_BYTES:
        raise Closed(f"the other process sent {length} bytes, at most {MAX_FRAME_BYTES} are read")
    try:
        return json.loads(_read_exactly(descriptor, length))
    except (ValueError, RecursionError) as error:
        raise Closed(f"the other process sent what cannot be read ({type(error).__name__})") from error


class Peer:
    """One end of a connection: asks the other side, and serves what `serves` names meanwhile.

    `wait` is called with the descriptor before a message is read; it may raise Closed to give up.
    """

    def __init__(
        self,
        read_from: int,
        write_to: int,
        serves: Mapping[str, Callable[..., Any]],
        wait: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._read_from, self._write_to, self._serves, self._wait = read_from, write_to, serves, wait
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self.exceptions: dict[str, type[Exception]] = {}
        """Classes by which exceptions of the other side's own are raised here."""

    def ask(self, do: str, *arguments: Any) -> Any:
        """Have the other side do something. Raises what it raises, or Closed."""
        write_frame(self._write_to, ["do", do, [self.encode(argument) for argument in arguments]])
        while True:
            kind, *rest = self._receive()
            if kind == "do":
                self._serve(*rest)
            elif kind == "raised":
                self._raise(*rest)
            else:
                value, changed = rest
                for place, now in changed:
                    _refill(_argument(arguments, place), self.decode(now))
                return self.decode(value)

    def serve(self) -> None:
        """Serve until the other side ends."""
        while True:
            try:
                _, do, arguments = self._receive()
                self._serve(do, arguments)
            except Closed:
                return

    def encode(self, value: Any) -> Any:
        """As JSON; a value that does not cross stays in this peer's table."""
        if value is None or value is True or value is False:
            return value
        if isinstance(value, Remote):
            return ["yours", number_of(value)]
        if isinstance(value, int) and not _is_enum(value):
            value = int.__pos__(value)
            # As hexadecimal, since Python reads and writes long decimal integers slowly, or not at all.
            return value if -_LARGEST_JSON_INT < value < _LARGEST_JSON_INT else ["int", hex(value)]
        if isinstance(value, float):
            return float.__pos__(value)
        if isinstance(value, str) and not _is_enum(value):
            return str.__str__(value)
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, bytes | bytearray):
            return ["bytes" if isinstance(value, bytes) else "bytearray", value.hex()]
        if isinstance(value, dict):
            return ["dict", [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]]
        for name, kind in _CONTAINERS.items():
            if isinstance(value, kind):
                return [name, [self.encode(item) for item in kind.__iter__(value)]]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        if isinstance(value, type) and _TYPES.get(value.__name__) is value:
            return ["type", value.__name__]
        name = (type(value).__module__, type(value).__name__)
        if name in _VALUES and getattr(value, "tzinfo", None) is None:
            return ["value", *name, [self.encode(part) for part in _VALUES[name](value)]]
        return ["mine", self._number(value)]

    def decode(self, wire: Any) -> Any:
        """Back from JSON. Raises Closed for what `encode` never writes."""
        if not isinstance(wire, list):
            return wire
        try:
            return self._decode(*wire)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError, ArithmeticError) as error:
            raise Closed(f"the other process sent what cannot be read ({error})") from error

    def _decode(self, kind: str, *rest: Any) -> Any:
        match kind:
            case "mine":
                return Remote(self, int(rest[0]))
            case "yours":
                return self._objects[rest[0]]
            case "int":
                return int(rest[0], 16)
            case "complex":
                return complex(*rest)
            case "bytes":
                return bytes.fromhex(rest[0])
            case "bytearray":
                return bytearray.fromhex(rest[0])
            case "dict":
                return {self.decode(key): self.decode(item) for key, item in rest[0]}
            case "range":
                return range(*rest)
            case "type":
                return _TYPES[rest[0]]
            case "value":
                module, name, parts = rest
                if (module, name) not in _VALUES:
                    raise KeyError(name)
                return getattr(importlib.import_module(module), name)(*map(self.decode, parts))
            case _:
                return _CONTAINERS[kind](self.decode(item) for item in rest[0])

    def _serve(self, do: str, wire: list[Any]) -> None:
        try:
            arguments = [self.decode(argument) for argument in wire]
            value = self.encode(self._serves[do](*arguments))
            reply = ["done", value, self._changed(arguments, wire) if do == "call" else []]
        except BaseException as error:  # SystemExit ends no server
            if isinstance(error, Closed):
                raise
            reply = ["raised", [kind.__name__ for kind in type(error).__mro__], [_plain(part) for part in error.args]]
        try:
            write_frame(self._write_to, reply)
        except (ValueError, RecursionError) as error:  # too large, or what JSON cannot say: before a byte is written
            write_frame(self._write_to, ["raised", ["ValueError"], [str(error)]])

    def _changed(self, arguments: list[Any], wire: list[Any]) -> list[Any]:
        """Containers among the arguments of a call that it has changed in place, with what they hold now."""
        _, positional, _ = arguments
        now = [(place, self.encode(value)) for place, value in enumerate(positional) if isinstance(value, _MUTABLE)]
        return [[place, after] for place, after in now if after != wire[1][1][place]]

    def _receive(self) -> list[Any]:
        self._wait(self._read_from)
        message = read_frame(self._read_from)
        if not isinstance(message, list) or len(message) != 3 or message[0] not in ("do", "done", "raised"):
            raise Closed("the other process sent what cannot be read")
        return message

    def _raise(self, names: list[str], arguments: list[Any]) -> NoReturn:
        for name in names:
            kind = self.exceptions.get(name) or getattr(builtins, str(name), None)
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
                raise kind(*arguments)
        raise RemoteFailure(": ".join(map(str, [names[0], *arguments])))

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # kept for good, so that its id stays its own
        return self._numbers[id(value)]


class Remote:
    """Something of the other side's."""

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_Remote__peer", peer)
        object.__setattr__(self, "_Remote__number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _ask(self, "call", arguments, named)

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __iter__(self) -> Iterator[Any]:
        return _ask(self, "iter")

    def __next__(self) -> Any:
        return _ask(self, "next")

    def __len__(self) -> int:
        return _ask(self, "len")

    def __bool__(self) -> bool:
        return bool(_ask(self, "bool"))

    def __str__(self) -> str:
        return str(_ask(self, "str"))

    def __repr__(self) -> str:
        return str(_ask(self, "repr"))

    def __hash__(self) -> int:
        return _ask(self, "hash")

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _ask(self, "delitem", key)

    def __enter__(self) -> Any:
        return _ask(self, "enter")

    def __exit__(self, *error: object) -> Any:
        return _ask(self, "exit")

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and bool(_ask(instance, "isinstance", self))

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Remote):
            return False
        return number_of(self) == number_of(other) or _ask(self, "eq", other)

    def __ne__(self, other: object) -> Any:
        return not self == other


def number_of(remote: Remote) -> int:
    """By which the other side knows it."""
    return object.__getattribute__(remote, "_Remote__number")


def _ask(remote: Remote, do: str, *arguments: Any) -> Any:
    return object.__getattribute__(remote, "_Remote__peer").ask(do, remote, *arguments)


def _between_remotes(do: str) -> Callable[[Remote, Any], Any]:
    def operate(self: Remote, other: Any) -> Any:
        return _ask(self, do, other) if isinstance(other, Remote) else NotImplemented

    return operate


_BINARY = ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_")
for _name in _BINARY:
    setattr(Remote, f"__{_name.rstrip('_')}__", _between_remotes(_name))

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "call": lambda function, positional, named: function(*positional, **named),
    "isinstance": lambda value, kind: isinstance(value, kind),
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, *error: manager.__exit__(None, None, None),
    **{kind.__name__: kind for kind in (getattr, setattr, iter, next, len, bool, str, repr, hash)},
    **{name: getattr(operator, name) for name in (*_BINARY, "eq", "getitem", "setitem", "delitem")},
}
"""What the tested side does with its objects when asked."""

CALLS_ONLY: Mapping[str, Callable[..., Any]] = {"call": OPERATIONS["call"]}
"""What the testing side does for the tested one."""


def _argument(arguments: tuple[Any, ...], place: Any) -> Any:
    """The positional argument of a call that `place` names."""
    try:
        return arguments[1][place]
    except (IndexError, TypeError) as error:
        raise Closed("the other process sent what cannot be read") from error


def _refill(container: Any, now: Any) -> None:
    """Put what another container of its type holds into one that somebody here still looks at."""
    if type(now) is not type(container) or not isinstance(container, _MUTABLE):
        raise Closed("the other process sent what cannot be read")
    container.clear()
    if isinstance(container, dict | set):
        container.update(now)
    else:
        container.extend(now)


def _plain(value: Any) -> Any:
    """For the arguments of an exception, which are there to be read."""
    return value if value is None or type(value) in (bool, int, float, str) else str(value)[:1000]


def _is_enum(value: Any) -> bool:
    """Members of an enumeration are more than their values: `Colour.RED` stays where it is."""
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(value, enum.Enum)


def _read_exactly(descriptor: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        try:
            part = os.read(descriptor, min(count, 2**20))
        except OSError as error:
            raise Closed("the other process has ended") from error
        if not part:
            raise Closed("the other process has ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
