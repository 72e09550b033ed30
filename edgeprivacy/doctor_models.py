"""The smallest model file of each container: one softmax over four floats. For trying out an interpreter."""

from __future__ import annotations

import base64
import zlib
from typing import Any

CLASSES = 4

# Written by the exporters of the extra "executorch" for torch.nn.Softmax(1) and a row of zeros: for XNNPACK,
# and for the lite interpreter (only the parts that it reads). A test reads them back. Writing them when they
# are needed would take ten seconds and the whole exporter.
_PTE = (
    b"eNqtVM1K5EAQrsQ4xjFIjEHmIBLCHjwMS2ZPq3gQcWEOIh48DIyDPzMRhw0xjBlUxHfwUXwCzx49ePCwBx/AZ5hYXalkOlEX"
    b"RCtUd6eT+uqr6qpeA4A/u41f/onnObi+n4BUtHSKFMjFhBqONs4G6PiDSW8AP1C3JH0aJYkwl0xB5f8MVJ0sNZyL+Bo9YxGf"
    b"Fmm1AMto7eBbTfK/wJi/BQ7rA+qj4IB6gwD/1NR3JgclfOHvLkkSg7nZ/O0W95iaMotDKwyjw+7fDVQ/7I3tTVpVc05Vxlln"
    b"VfKYDZjhmE1OiU5vGo9jnkqJoyLtqRyDxhzFicCkBRbMkSedM2lxLLUsh5UK8aswlsrgqpQHHdlPM58M14b5N7imjIvIz8jD"
    b"/C9umhud1gCbqCuo7UbduXLjy8h3V51wGAR1x+2ehrF/EUsbJ/2gN/DD/bPI7+J2u3PdQdtR2d49GvaDuB+e/YyHUeC7BSxX"
    b"gLnvoX2b/Wf4X7/Lu9fvxiW37Y77EQQmYQpzcHw6OD8c9OAr0mp63hKI7t9Rih0JtNva9hqiBx06QwPP307rAyuAehAtXnBu"
    b"8vmLfqzz2cs9ktVQdXy9FOpdkWpoL++bWYxTZ1tQUr8W+q8Ql/ResqkuhbXKdjKWXIcyls13WoZk0t3yFkct4cgxWYRoUEwo"
    b"E2YeT7HfhHqor9vmnaA="
)
_PTL = (
    b"eNqlU81u00AQXjtJ24SWtJCWM7eEgyvEBVVICNGIgyG20gC+WVtnk1j1T2Z3HSiiUnuoc+EZeBpegGfhBZhdpyR1yQUsjbwz"
    b"/r6Zb8azrl2ptkjxPCbxC+dbD0/KdtFEOpIx/Xw4pJJa07Po0gx8X6Y8mPi+pd9WklhxOswiJiwayHBGZZgmln8Di2kyjpj/"
    b"tHFSpGoA6VxdtLNTMCz3Vu2L1tXzA5MQZa2V2qfnkgXpkBX17S3vDX78RxXWQoU1SvknyodA2t42pgsTIXkWKJIAo+1tYOxk"
    b"4PS7PTBtwzbnXg0jx33H7UMFA2TuVTHwzvnQhaptKl8B3jqvjl9DrQBgG8RxYcMmyqug1+8OYFO7MvfqGEinjFNUKGDL20Gf"
    b"SpYcHS0ah7omhYmEBiq4LigBKpQ0kQLu9Wwjz3VdeT5lArY7uc7C2TgUknFfhF8Y7NhmLjWV8nEWM0W9r9UnNGbQ1EfBohHs"
    b"5vqsksGe9/L/pwwPCkFDNqJZJP0ZjTIGD3v5fNLUusNkmklo5ZM9PfEBS0TKYT+fKAz2tqm7kRnHv3KAHLUo8AjhkwXmOkdc"
    b"aY9+fh+/V7NX1lzZoxnjAuU+a9yGx4f1j6ptZfsr8D+DLvaug1UMs1VZf1dunkuD/OXmlNnlbV+yv67Z/XKGcp/LDD/MO13f"
    b"EV/qekn+Za6ZgWvX1E9CCpKwxydqO8lvoG0PvQ=="
)


def softmax_model(container: str) -> bytes:
    """The content of a file of container "tflite", "pte" or "ptl" that takes and answers float32 [1, 4]."""
    if container == "tflite":
        return softmax_tflite(CLASSES)
    return zlib.decompress(base64.b64decode({"pte": _PTE, "ptl": _PTL}[container]))


def softmax_tflite(classes: int) -> bytes:
    """A .tflite file of one SOFTMAX over `classes` floats, built from the interpreter's own schema."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: bytes) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, [1, classes], schema.TensorType.FLOAT32, 0
        return made

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
    code.version = 1
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    operator.builtinOptions = schema.SoftmaxOptionsT()
    operator.builtinOptions.beta = 1.0
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = [tensor(b"input"), tensor(b"output")], [0], [1]
    graph.operators = [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
