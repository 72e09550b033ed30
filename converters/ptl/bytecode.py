"""The lite interpreter's bytecode, walked without running it: which operator takes which constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeprivacy.converters.ptl.pickled import Made, Pairs, Unreadable

FLOW = ("JF", "JMP", "LOOP", "CALL", "INTERFACE_CALL", "FORK", "WAIT")
_NO_ANSWER = ("DROP", "DROPR", "STORE", "STOREN")


@dataclass(frozen=True, eq=False)
class Step:
    """One operator in order of execution ("aten::linear", "aten::softmax.int") and what it is given:
    constants as the pickle has them, and the `Step` that an activation comes from."""

    operator: str
    args: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Input:
    """An argument of the method."""

    name: str


@dataclass(frozen=True)
class Method:
    """forward(), as far as it can be told without running it.

    Attributes:
        inputs: Names of its arguments, without self.
        outputs: How many values it answers.
        steps: Its operators.
        answer: The step that the answer comes from, or None where that cannot be told.
        trouble: Why the walk ended early, or None.
    """

    inputs: tuple[str, ...]
    outputs: int
    steps: tuple[Step, ...]
    answer: Step | None
    trouble: str | None


def read_method(values: list[Any], module: Any) -> Method:
    """The forward method of a bytecode.pkl.

    Args:
        values: What `read_pickle` made of it: a version, then one (name, code, schema) a method.
        module: The module object of data.pkl, or None.

    Raises:
        Unreadable: The bytecode has another form.
    """
    # The whole is one tuple in some versions, several values in others.
    parts = values[0] if len(values) == 1 and isinstance(values[0], tuple) else tuple(values)
    methods = [p for p in parts if isinstance(p, tuple) and len(p) >= 2 and isinstance(p[0], str)]
    named = [method for method in methods if method[0].endswith(".forward") or method[0] == "forward"]
    if not parts or not isinstance(parts[0], int) or not named:
        raise Unreadable("bytecode without a method forward")
    code = _fields(named[0][1])
    schema = _fields(named[0][2]) if len(named[0]) > 2 else {}
    names = [_fields(argument).get("name") for argument in _listed(schema.get("arguments"))]
    outputs = len(_listed(schema.get("returns"))) if schema else 1
    inputs = tuple(name for name in names[1:] if isinstance(name, str))
    steps, answer, trouble = _walk(code, module, inputs)
    return Method(inputs, outputs, tuple(steps), answer, trouble)


def _walk(
    code: dict[str, Any], module: Any, inputs: tuple[str, ...]
) -> tuple[list[Step], Step | None, str | None]:
    operators = [_operator(entry) for entry in _listed(code.get("operators"))]
    constants = _listed(code.get("constants"))
    stack: list[Any] = [module, *map(Input, inputs)]
    registers: dict[int, Any] = {}
    steps: list[Step] = []
    for instruction in _listed(code.get("instructions")):
        if not isinstance(instruction, tuple) or len(instruction) != 3:
            raise Unreadable("an instruction of another form")
        name, x, n = instruction
        if not isinstance(x, int) or not isinstance(n, int):
            raise Unreadable("an instruction of another form")
        try:
            if name in FLOW:
                return steps, None, f"control flow ({name}): what comes after it is not followed"
            if name in ("OP", "OPN"):
                operator, count = operators[x]
                count = n if name == "OPN" else count
                if count is None or count > len(stack) or count < 0:
                    return steps, None, "an operator whose number of arguments is not in the file"
                args = tuple(stack[len(stack) - count :])
                del stack[len(stack) - count :]
                steps.append(Step(operator, args))
                stack.append(steps[-1])
            elif name == "LOADC":
                stack.append(constants[x])
            elif name in ("LOAD", "MOVE"):
                stack.append(registers[x])
            elif name in _NO_ANSWER:
                _put_away(name, x, n, stack, registers)
            elif name == "GET_ATTR":
                stack.append(_attribute(stack.pop(), x))
            elif name in ("LIST_CONSTRUCT", "TUPLE_CONSTRUCT"):
                if n > len(stack) or n < 0:
                    raise Unreadable("bytecode whose stack runs empty")
                items = stack[len(stack) - n :]
                del stack[len(stack) - n :]
                stack.append(items)
            elif name == "RET":
                last = stack[-1] if stack else None
                return steps, last if isinstance(last, Step) else None, None
            else:
                return steps, None, f"the instruction {str(name)[:40]}: what comes after it is not followed"
        except (IndexError, KeyError):
            return steps, None, "bytecode that cannot be followed"
    return steps, None, "bytecode without an end"


def _put_away(name: str, x: int, n: int, stack: list[Any], registers: dict[int, Any]) -> None:
    if name == "DROP":
        stack.pop()
    elif name == "DROPR":
        registers.pop(x, None)
    elif name == "STORE":
        registers[x] = stack.pop()
    else:  # STOREN: the n values on top, into the registers from x on
        if not 0 <= n <= len(stack):
            raise IndexError
        for place in range(n - 1, -1, -1):
            registers[x + place] = stack.pop()


def _attribute(value: Any, slot: int) -> Any:
    """A module's attribute: slots stand in the order in which the object was filled."""
    if isinstance(value, Made) and isinstance(value.state, Pairs):
        return value.state.items[slot][1]
    raise KeyError(slot)


def _operator(entry: Any) -> tuple[str, int | None]:
    if not isinstance(entry, tuple) or len(entry) < 2 or not all(isinstance(e, str) for e in entry[:2]):
        raise Unreadable("an operator of another form")
    name = f"{entry[0]}.{entry[1]}" if entry[1] else entry[0]
    count = entry[2] if len(entry) > 2 and isinstance(entry[2], int) else None
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:200])
    return printable, count


def _fields(value: Any) -> dict[str, Any]:
    """The (name, value) pairs that torch writes in place of a dict."""
    pairs = value if isinstance(value, tuple) else ()
    return {p[0]: p[1] for p in pairs if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str)}


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else ()
