"""A pickle read as inert data: nothing is imported, nothing is called. Framework-free.

`pickle.loads` runs whatever a file asks for. Here every opcode is looked at by `pickletools`, and what would
be a call becomes a note of it.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any


class Unreadable(ValueError):
    """The bytes are no pickle of the kind that torch writes."""


@dataclass(frozen=True, eq=False)
class Global:
    """The name of a function or a class that a pickle speaks of."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Called:
    """A call that unpickling would make."""

    function: Any
    args: Any


@dataclass(eq=False)
class Made:
    """An object that unpickling would make; `state` is what it would be filled with."""

    kind: Any
    args: Any
    state: Any = None


@dataclass(frozen=True, eq=False)
class Stored:
    """A reference to data outside the pickle."""

    id: Any


@dataclass(eq=False)
class Pairs:
    """A dict in its order; keys need not be hashable."""

    items: list[tuple[Any, Any]]

    def get(self, key: str) -> Any:
        """The value of a text key, or None."""
        return next((value for name, value in self.items if isinstance(name, str) and name == key), None)


_MARK = object()
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXTS = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING",
    "SHORT_BINSTRING",
)  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(data: bytes) -> list[Any]:
    """The values that a pickle leaves on its stack (torch's bytecode has several), as tuples, lists, `Pairs`,
    `Called`, `Made`, `Stored`, `Global` and plain values. Time and memory are linear in its size.

    Raises:
        Unreadable: No pickle, cut off, or with opcodes that torch does not write.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.step(opcode.name, argument)
    except Unreadable:
        raise
    except Exception as error:
        # genops stumbles over damaged bytes in many ways, and none of them says more to a user.
        raise Unreadable(f"damaged pickle: {str(error)[:100]}") from error
    return machine.stack


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says, without its side effects."""
        stack = self.stack
        if name in _NUMBERS_AND_TEXTS:
            stack.append(argument)
        elif name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self._from_mark()))
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = tuple(stack[-count:])
            if len(items) < count:
                raise Unreadable("a pickle's stack runs empty")
            del stack[-count:]
            stack.append(items)
        elif name in ("EMPTY_TUPLE", "EMPTY_LIST"):
            stack.append(() if name == "EMPTY_TUPLE" else [])
        elif name == "EMPTY_DICT":
            stack.append(Pairs([]))
        elif name == "GLOBAL":
            module, _, kind = str(argument).partition(" ")
            stack.append(Global(module, kind))
        elif name == "BINPERSID":
            stack.append(Stored(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            stack.append((Called if name == "REDUCE" else Made)(stack.pop(), args))
        else:
            self._fill(name)

    def _fill(self, name: str) -> None:
        stack = self.stack
        if name in ("APPEND", "APPENDS"):
            items = self._from_mark() if name == "APPENDS" else [stack.pop()]
            if not isinstance(stack[-1], list):
                raise Unreadable("a pickle appends to what is no list")
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._from_mark() if name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
            if not isinstance(stack[-1], Pairs) or len(items) % 2:
                raise Unreadable("a pickle fills what is no dict")
            stack[-1].items.extend(zip(items[::2], items[1::2], strict=True))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Made):
                raise Unreadable("a pickle fills what is no object")
            stack[-1].state = state
        elif name not in ("PROTO", "STOP"):
            raise Unreadable(f"a pickle with the opcode {name}")

    def _from_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise Unreadable("a pickle without its mark")
