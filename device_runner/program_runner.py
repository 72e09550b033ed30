"""Runs model files by the native runner programs, on whatever place they are: many files, one input set.

Rows go out once, as float32 (or uint8, where they are), and the program quantizes them with each file's own
scale by the arithmetic of inputs.py; it reports the hash of what every interpreter was given, and that must
be the hash of what the host would have given it. They are cut into chunks: what came back of a chunk is kept
until the whole is together, so that a run that was cut goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprivacy.cache import Cache
from edgeprivacy.confidences import Confidences, Performance
from edgeprivacy.converters import container_of
from edgeprivacy.device_runner.answers import confidences_of
from edgeprivacy.device_runner.base import Queries, Runner
from edgeprivacy.device_runner.bundle import Bundle, program_of
from edgeprivacy.device_runner.inputs import InputFormat, check_rows, encode, input_format
from edgeprivacy.device_runner.place import Place, check_fetched, failure, read_report
from edgeprivacy.device_runner.runtimes import ModelFile, runtime_for, runtime_of
from edgeprivacy.errors import ArtifactError, RunnerError
from edgeprivacy.files import sha256_file, write_json
from edgeprivacy.scratch import scratch_folder

CHUNK_BYTES = 1 << 26
_TOGETHER = 16
_TOGETHER_BYTES = 1 << 26
"""Files that are sent and run in one call: so many, or so many bytes (one file at least)."""
_BATCH = 256
_BATCH_BYTES = 1 << 20
_LATENCY_ROWS = 200
_FLOATS = InputFormat("float32", None, None)
_PROTOCOL = 1
"""Raised when a part that was kept could not be read by this version."""


class ProgramRunner(Runner):
    """Collects by runner programs at a place; see the module.

    Args:
        open_place: Opens the place; called at the first use, again after `close`.
        parts: Folder for what came back of chunks, so that a cut run goes on; a scratch folder if None.
        kernels: Of LiteRT: "XNNPACK" or "built-in".
        threads: Of the interpreter.
        chunk_bytes: Input bytes of a chunk.
    """

    shared = True

    def __init__(
        self,
        open_place: Callable[[], Place],
        parts: Path | None = None,
        kernels: str = "XNNPACK",
        threads: int = 1,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._open_place = open_place
        self._parts = parts
        self.kernels, self.threads, self.chunk_bytes = kernels, threads, chunk_bytes
        self._place: Place | None = None
        self._closed_in_a_call = False
        self._lock = threading.RLock()

    @property
    def place(self) -> Place:
        """The place, opened when it is first needed."""
        if self._place is None:
            if self._closed_in_a_call:
                raise RunnerError(f"the run on {self.label} was stopped")
            self._place = self._open_place()
        return self._place

    @property
    def moved(self) -> dict[str, int]:
        """Bytes sent to the place and fetched from it since it was opened."""
        return dict(self._place.moved) if self._place is not None else {"sent": 0, "fetched": 0}

    def identity(self, artifact: Path | None = None) -> dict[str, Any]:
        """See `Runner.identity`: the runtime's version and library, kernels, threads, and the place."""
        container = "tflite" if artifact is None else container_of(artifact)
        bundle = self.place.bundle(program_of(container, artifact or Path("a file")))
        runtime = runtime_for(container)
        return {
            "device": self.name,
            "runtime": runtime.name,
            "version": runtime.version()["version"],
            "library_sha256": bundle.library_sha256,
            "runner": sha256_file(bundle.program)[:16],
            **self.place.identity(),
            "kernels": runtime.kernels(artifact, self.kernels),
            "threads": self.threads,
        }

    def ready(self, containers: Sequence[str]) -> None:
        """See `Runner.ready`: a file of one softmax goes the whole way, and its answer must be right."""
        for container in dict.fromkeys(containers):
            check = self.place.bundle(program_of(container, Path(f"a .{container} file"))).check
            x = np.arange(4, dtype=np.float32)[None]
            queries = Queries(x, np.array(["row"]), np.array([3], dtype=np.int64))
            answered = self.collect([check], queries)[0].probabilities[0]
            expected = np.exp(x[0]) / np.exp(x[0]).sum()
            if not np.allclose(answered, expected, atol=1e-5):
                raise RunnerError(
                    f"the interpreter on {self.label} gives wrong answers",
                    got=f"a softmax came out as {answered.tolist()}",
                )

    def collect(
        self, artifacts: Sequence[Path], queries: Queries, *, logits: bool = False
    ) -> list[Confidences]:
        """See `Runner.collect`. Facts as of the host runner, and what passed at the place."""
        files = self._open(artifacts, queries)
        if not files:
            return []
        with self._closing_on_error(), ExitStack() as stack:
            scratch = stack.enter_context(scratch_folder("device"))
            parts = Cache(self._parts or scratch)
            rows = _Rows(queries, self.chunk_bytes, scratch)
            before = self.place.state()
            keys = {
                (i, chunk): _part_key(parts, file, rows, chunk)
                for i, file in enumerate(files)
                for chunk in range(len(rows.chunks))
            }
            for group in _groups(files):
                for chunk in range(len(rows.chunks)):
                    missing = [i for i in group if not _entry(parts, keys[i, chunk]).is_dir()]
                    if missing:
                        self._run([files[i] for i in missing], rows, chunk, scratch, parts, keys, missing)
                self.place.drop([f"m-{files[i].sha256[:16]}" for i in group])
            passed = {"before": before, "after": self.place.state()} if before else {}
            collected = []
            for i, file in enumerate(files):
                entries = [_entry(parts, keys[i, chunk]) for chunk in range(len(rows.chunks))]
                collected.append(_assembled(file, entries, rows, queries, logits, passed))
            if self._parts is not None:
                for key in keys.values():
                    shutil.rmtree(_entry(parts, key), ignore_errors=True)
            return collected

    def measure(self, artifacts: Sequence[Path], queries: Queries) -> list[Performance | None]:
        """See `Runner.measure`: each file alone in a process of its own, row by row."""
        files = self._open(artifacts, queries)
        with self._closing_on_error(), scratch_folder("device") as scratch:
            few = min(len(queries.x), _BATCH)
            head = Queries(queries.x[:few], queries.row_ids[:few], queries.labels[:few])
            rows = _Rows(head, self.chunk_bytes, scratch)
            return [self._latency(file, rows, scratch) for file in files]

    def close(self) -> None:
        """Remove what this run keeps at the place, and make a call that another thread is in fail. The next
        call opens it again."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._closed_in_a_call = True
        place, self._place = self._place, None
        if place is not None:
            place.close()

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        with self._lock:
            self._closed_in_a_call = False
            try:
                yield
            except BaseException:
                self.close()
                raise

    def _open(self, artifacts: Sequence[Path], queries: Queries) -> list[_File]:
        """What has to be known of every file, before anything is sent."""
        check_rows(queries.x, queries.labels, queries.row_ids)
        files = []
        for path in map(Path, artifacts):
            program = program_of(container_of(path), path)
            model = runtime_of(path).open(path)
            format_ = input_format(path, model.input, queries.x)
            if format_.dtype not in ("float32", "int8", "uint8", "int16", "int32"):
                raise ArtifactError(
                    f"{path} takes {format_.dtype} inputs",
                    allowed="float32 or integer inputs on a native runner",
                    hint="--device host runs it",
                )
            files.append(
                _File(
                    path, sha256_file(path), model, format_, self.place.bundle(program), self.identity(path)
                )
            )
        return files

    def _run(
        self,
        files: list[_File],
        rows: _Rows,
        chunk: int,
        scratch: Path,
        parts: Cache,
        keys: dict[tuple[int, int], str],
        numbers: list[int],
    ) -> None:
        """Run files on a chunk of rows and keep what came back."""
        report = self._call(files, rows, chunk, scratch, ["--batch", str(rows.batch)])
        for number, (position, file) in enumerate(zip(numbers, files, strict=True)):
            told, output = report["models"][number], scratch / f"o-{number}"

            def keep(folder: Path, told: dict[str, Any] = told, output: Path = output) -> None:
                shutil.move(output, folder / "output")
                write_json(folder / "report.json", told)

            self._verify(file, told, rows, chunk)
            check_fetched(
                output, told["output"]["sha256"], told["output"]["bytes"], f"the output of {file.path}"
            )
            parts.entry("parts", keys[position, chunk], keep)

    def _latency(self, file: _File, rows: _Rows, scratch: Path) -> Performance:
        report = self._call([file], rows, 0, scratch, ["--batch", "1", "--latency-rows", str(_LATENCY_ROWS)])
        told = report["models"][0]
        self._verify(file, told, rows, 0)
        latency = told["latency"]
        self.place.drop([f"m-{file.sha256[:16]}"])
        return Performance(
            rows=latency["rows"],
            warm_up=latency["warm_up"],
            first_us=latency["first_us"],
            median_us=latency["median_us"],
            p95_us=latency["p95_us"],
            peak_memory_bytes=report["peak_memory_bytes"],
            memory_before_bytes=report["memory_before_models_bytes"],
        )

    def _call(
        self, files: Sequence[_File], rows: _Rows, chunk: int, scratch: Path, options: list[str]
    ) -> dict[str, Any]:
        """One call of the runner program: its report, checked; its outputs lie in scratch."""
        place, bundle = self.place, files[0].bundle
        start = place.install(bundle)
        name = f"rows-{rows.sha256(chunk)[:16]}"
        if not place.has(name):
            place.put({name: rows.file(chunk)}, keep=True)
        models = {f"m-{file.sha256[:16]}": file.path for file in files}
        place.put(models)
        outputs = [f"o-{number}" for number in range(len(files))]
        command = [
            *start,
            *("--input", name, "--input-type", rows.dtype.name, "--row", ",".join(map(str, rows.row_shape))),
            *("--rows", str(rows.count(chunk)), "--threads", str(self.threads)),
            *("--kernels", files[0].identity["kernels"] if bundle.runtime == "litert" else "XNNPACK"),
            *options,
            *("--input-sha256", rows.sha256(chunk), "--report", "report.json"),
        ]
        for file, output in zip(files, outputs, strict=True):
            command += ["--model", f"m-{file.sha256[:16]}", "--model-sha256", file.sha256, "--output", output]
        ended = place.run(command, outputs)
        if ended.status:
            raise failure(ended, place.name, [file.path for file in files])
        place.fetch(["report.json", *outputs], scratch)
        place.drop(["report.json", *outputs])
        report = read_report(scratch / "report.json")
        _same("library", report.get("library_sha256"), bundle.library_sha256, place.name)
        _same("input", report.get("input", {}).get("sha256"), rows.sha256(chunk), place.name)
        _same("number of files", len(report.get("models", ())), len(files), place.name)
        return report

    def _verify(self, file: _File, told: dict[str, Any], rows: _Rows, chunk: int) -> None:
        """Whether the program ran this file on these rows, as it says itself."""
        name = self.place.name
        _same(f"file {file.path.name}", told.get("sha256"), file.sha256, name)
        _same("interpreter's input", told.get("encoded_sha256"), rows.encoded(chunk, file.format), name)
        _same("number of rows", told.get("rows"), rows.count(chunk), name)


@dataclass(frozen=True)
class _File:
    """A file of a call, how it takes rows, and what runs it."""

    path: Path
    sha256: str
    model: ModelFile
    format: InputFormat
    bundle: Bundle
    identity: dict[str, Any]


class _Rows:
    """The rows of a call in chunks, as the program reads them, and their hashes in every input format."""

    def __init__(self, queries: Queries, chunk_bytes: int, scratch: Path) -> None:
        self.queries, self._scratch = queries, scratch
        x = queries.x
        self.dtype = np.dtype(np.uint8 if x.dtype == np.uint8 else np.float32)
        self.row_shape = x.shape[1:]
        numbers = max(1, math.prod(self.row_shape))
        # The batch of the host runner, whose single rows and batches are bit-equal as here.
        self.batch = min(_BATCH, 1 << (max(1, _BATCH_BYTES // (4 * numbers)).bit_length() - 1))
        count = _BATCH * max(1, chunk_bytes // (_BATCH * numbers * self.dtype.itemsize))
        self.chunks = [(start, min(start + count, len(x))) for start in range(0, len(x), count)]

    def count(self, chunk: int) -> int:
        """Rows of a chunk."""
        start, stop = self.chunks[chunk]
        return stop - start

    def _raw(self, chunk: int) -> NDArray[Any]:
        start, stop = self.chunks[chunk]
        part = self.queries.x[start:stop]
        if self.dtype == np.uint8:
            return np.ascontiguousarray(part)
        return encode(part, _FLOATS, self.queries.row_ids[start:stop])

    def _known(self, what: Hashable, make: Callable[[], str]) -> str:
        """A hash that is computed once for the rows, however many calls they are run in."""
        found = self.queries.sha256
        if what not in found:
            found[what] = make()
        return found[what]

    def sha256(self, chunk: int) -> str:
        """Of the bytes of a chunk's file."""
        key = ("chunk", self.chunks[chunk], self.dtype.name)
        return self._known(key, lambda: hashlib.sha256(self._raw(chunk).data).hexdigest())

    def file(self, chunk: int) -> Path:
        """A file with a chunk's rows; one at a time is kept."""
        path = self._scratch / f"rows-{self.sha256(chunk)[:16]}"
        if not path.exists():
            for other in self._scratch.glob("rows-*"):
                other.unlink()
            path.write_bytes(self._raw(chunk).data)
        return path

    def encoded(self, chunk: int, format_: InputFormat) -> str:
        """Hash of a chunk as the host would give it to a file of this format."""
        start, stop = self.chunks[chunk]
        if self.dtype == np.float32 and format_ == _FLOATS:
            return self.sha256(chunk)

        def make() -> str:
            encoded = encode(self.queries.x[start:stop], format_, self.queries.row_ids[start:stop])
            return hashlib.sha256(encoded.data).hexdigest()

        return self._known(("chunk", (start, stop), format_), make)

    def whole(self, format_: InputFormat) -> str:
        """Hash of all rows in a format: what the host runner reports of the same rows."""
        if len(self.chunks) == 1:
            return self._known(format_, lambda: self.encoded(0, format_))

        def make() -> str:
            digest = hashlib.sha256()
            for start, stop in self.chunks:
                digest.update(encode(self.queries.x[start:stop], format_).data)
            return digest.hexdigest()

        return self._known(format_, make)


def _groups(files: Sequence[_File]) -> Iterator[list[int]]:
    """Positions of files that are sent and run together: by one program with the same kernels."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for i, file in enumerate(files):
        kinds.setdefault((file.bundle.runtime, file.identity["kernels"]), []).append(i)
    for members in kinds.values():
        group: list[int] = []
        size = 0
        for i in members:
            length = files[i].path.stat().st_size
            if group and (len(group) == _TOGETHER or size + length > _TOGETHER_BYTES):
                yield group
                group, size = [], 0
            group.append(i)
            size += length
        yield group


def _part_key(parts: Cache, file: _File, rows: _Rows, chunk: int) -> str:
    return parts.key(
        "parts",
        {
            "protocol": _PROTOCOL,
            "file": file.sha256,
            "rows": rows.sha256(chunk),
            "type": rows.dtype.name,
            "row": list(rows.row_shape),
            "batch": rows.batch,
            "runner": file.identity,
        },
    )


def _entry(parts: Cache, key: str) -> Path:
    return parts.folder / "parts" / key[:2] / key


def _assembled(
    file: _File,
    entries: Sequence[Path],
    rows: _Rows,
    queries: Queries,
    logits: bool,
    passed: dict[str, Any],
) -> Confidences:
    """The confidences of a file from what came back of every chunk."""
    reports = [json.loads((entry / "report.json").read_text()) for entry in entries]
    outputs = []
    for entry, report in zip(entries, reports, strict=True):
        told = report["output"]
        try:
            block = np.fromfile(entry / "output", np.dtype(str(told["dtype"])).newbyteorder("<"))
            outputs.append(block.reshape(report["rows"], -1))
        except (TypeError, ValueError) as error:
            raise RunnerError(f"the output of {file.path} cannot be read", got=error) from None
    seconds = sum(float(report["seconds"]) for report in reports)
    facts = {
        **file.identity,
        "inputs_sha256": rows.whole(file.format),
        "model_sha256": file.sha256,
        "batch": min(report["batch"] for report in reports),
        "batch_resizable": reports[0]["batch_resizable"],
        "delegates": reports[0]["delegates"],
        "fully_accelerated": reports[0]["fully_accelerated"],
        "rows": len(queries.x),
        "chunks": len(entries),
        "seconds": seconds,
        **({"state": passed} if passed else {}),
    }
    return confidences_of(file.model, np.concatenate(outputs), queries, logits, facts)


def _same(what: str, got: object, wanted: object, place: str) -> None:
    if got != wanted:
        raise RunnerError(
            f"the {what} on {place} is not the one that was sent",
            got=f"{str(got)[:16]}, not {str(wanted)[:16]}",
            hint="something changed it on the way or on the device; run the same command again",
        )
