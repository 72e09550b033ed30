"""The runner programs called by hand, and .tflite files that no converter would write."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprivacy.device_runner.building import missing_tools
from edgeprivacy.device_runner.bundle import Bundle, bundle_for, this_machine

CONTAINERS = {"litert": "tflite", "executorch": "pte"}
PREFIX = "edgeprivacy-error: "


@dataclass(frozen=True)
class Call:
    """How a program ended. `error` is its own error line, `report` what it wrote; None where they are not."""

    status: int
    error: dict[str, Any] | None
    report: dict[str, Any] | None
    stderr: str
    stdout: str = ""


@dataclass(frozen=True)
class Program:
    """A runner program, and what is said in every call of it.

    Attributes:
        start: A command that the program is started by.
        usual: Options that stand for those that `run` would give.
    """

    bundle: Bundle
    folder: Path
    start: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    usual: dict[str, Any] = field(default_factory=dict)

    @property
    def container(self) -> str:
        return CONTAINERS[self.bundle.runtime]

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def output(self, number: int = 0) -> Path:
        return self.folder / f"output-{number}"

    def rows(self, x: np.ndarray) -> dict[str, Any]:
        """The options for rows [rows, ...]."""
        path = self.folder / "rows"
        path.write_bytes(x.tobytes())
        shape = ",".join(map(str, x.shape[1:]))
        return {"input": path, "input-type": x.dtype.name, "row": shape, "rows": len(x)}

    def options(self, models: Sequence[Path], x: np.ndarray) -> dict[str, Any]:
        """All options of a call, by name."""
        return {
            "library": list(self.bundle.libraries),
            "library-sha256": self.bundle.library_sha256,
            "check": self.bundle.check,
            **self.rows(x),
            "report": self.report,
            "model": list(models),
            "output": [self.output(number) for number in range(len(models))],
        }

    def run(self, models: Sequence[Path], x: np.ndarray, **changes: Any) -> Call:
        """One call. `changes` replace options (a list is said several times, None is left out)."""
        options = (
            self.options(models, x)
            | self.usual
            | {name.replace("_", "-"): value for name, value in changes.items()}
        )
        words = [
            word
            for name, value in options.items()
            for each in (value if isinstance(value, list) else [value])
            if each is not None
            for word in (f"--{name}", str(each))
        ]
        return self.call(words)

    def call(self, words: Sequence[str]) -> Call:
        """One call with these arguments."""
        libraries = os.pathsep.join({str(path.parent) for path in self.bundle.libraries})
        done = subprocess.run(
            [*self.start, str(self.bundle.program), *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            cwd=self.folder,
            env={**os.environ, "LD_LIBRARY_PATH": libraries, **self.environment},
        )
        lines = [line for line in done.stderr.splitlines() if line.startswith(PREFIX)]
        assert len(lines) <= 1, done.stderr
        error = json.loads(lines[0].removeprefix(PREFIX)) if lines else None
        report = json.loads(self.report.read_text()) if self.report.exists() else None
        return Call(done.returncode, error, report, done.stderr, done.stdout)

    def __call__(self, folder: Path) -> Program:
        """The same program, writing elsewhere."""
        return replace(self, folder=folder)


def programs(runtime: str) -> Program:
    """A runtime's program for this machine, or the test is skipped."""
    if missing := missing_tools(this_machine()):
        pytest.skip(f"not found: {', '.join(missing)}")
    pytest.importorskip(
        {"litert": "ai_edge_litert"}.get(runtime, runtime), reason=f"needs the extra {runtime}"
    )
    return Program(bundle_for(runtime, this_machine()), Path())


@pytest.fixture(params=CONTAINERS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    """Each runtime's program."""
    return programs(request.param)(tmp_path)


@pytest.fixture
def litert(tmp_path: Path) -> Program:
    """The program for .tflite files."""
    return programs("litert")(tmp_path)


@pytest.fixture
def executorch(tmp_path: Path) -> Program:
    """The program for .pte files."""
    return programs("executorch")(tmp_path)


@dataclass
class Tensor:
    """A tensor of a .tflite file that is written by hand.

    Attributes:
        type: Of schema.TensorType.
        batch: "any" writes -1 for the first dimension into the shape's signature.
        scale, zero_point: Its grid, if it has one.
        content: A constant's numbers.
    """

    name: bytes
    shape: Sequence[int]
    type: str = "FLOAT32"
    batch: str = "fixed"
    scale: float | None = None
    zero_point: int = 0
    content: np.ndarray | None = None


def tflite(path: Path, tensors: Sequence[Tensor], operator: str, options: str, **settings: Any) -> Path:
    """A file of one operator. The last tensor is its output; of the others, its inputs, the one without
    content is the model's."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    buffers = [schema.BufferT()]
    made = []
    for tensor in tensors:
        entry = schema.TensorT()
        entry.name, entry.shape = tensor.name, list(tensor.shape)
        entry.type, entry.buffer = getattr(schema.TensorType, tensor.type), 0
        if tensor.batch == "any":
            entry.shapeSignature = [-1, *list(tensor.shape)[1:]]
        if tensor.scale is not None:
            entry.quantization = schema.QuantizationParametersT()
            entry.quantization.scale, entry.quantization.zeroPoint = [tensor.scale], [tensor.zero_point]
        if tensor.content is not None:
            entry.buffer = len(buffers)
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(tensor.content.tobytes(), np.uint8)
        made.append(entry)
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = code.builtinCode
    code.version = 1
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, list(range(len(made) - 1)), [len(made) - 1]
    node.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    node.builtinOptions = getattr(schema, f"{options}T")()
    for name, value in settings.items():
        setattr(node.builtinOptions, name, value)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.outputs = made, [node], [len(made) - 1]
    graph.inputs = [i for i, tensor in enumerate(tensors[:-1]) if tensor.content is None]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def softmax(path: Path, entry: Tensor, answer: Tensor) -> Path:
    """A .tflite file of one softmax."""
    return tflite(path, [entry, answer], "SOFTMAX", "SoftmaxOptions", beta=1.0)
