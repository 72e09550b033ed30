"""`kill -9` at random moments of a run, then again, until it ends: what is lost, and what is made twice?

    python tests/benchmarks/kill_resume.py [--kills 10] [--seed 0] [RECIPE.toml]

Prints one line for each kill and a verdict; exit code 1 where something was lost. Each round begins with an
empty cache; a run that ends before its kill closes the round, and the kills that are left go into a new one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL = """
formats = ["float32", "int8"]
compare = ["none"]
defense = "wemem"
[training]
epochs = 3
[prune]
iterations = 2
finetune_epochs = 1
[audit]
shadows = 2
bootstrap = 100
attacks = ["confidence.global", "loss", "lira.online"]
"""
GRACE = 8.0
"""Seconds within which every process of a killed run must be gone."""


@dataclass
class Findings:
    """What was seen; `faults` is empty where nothing was lost, half-written or made twice."""

    kills: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    rounds: int = 0


def processes(mark: str) -> list[int]:
    """Ids of all living processes that carry this mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            marked = mark.encode() in (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marked and state != "Z":
            found.append(int(entry.name))
    return found


def gone(mark: str, within: float = GRACE) -> float | None:
    """Seconds until all marked processes had ended, or None if some had not in time."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        if not processes(mark):
            return time.monotonic() - began
        time.sleep(0.05)
    return None


def entries(cache: Path) -> dict[str, tuple[int, int]]:
    """Finished cache entries with the identity and time of their files: another number means made anew."""
    found = {}
    for path in sorted((cache / "edgeprivacy").glob("*/*/*/*")):
        if not path.parent.name.startswith("."):
            status = path.stat()
            found[str(path.relative_to(cache))] = status.st_ino, status.st_mtime_ns
    return found


def without_environment(out: Path) -> dict[str, Any]:
    """audit.json but for its environment block."""
    content = json.loads((out / "audit.json").read_text())
    return {key: value for key, value in content.items() if key != "environment"}


class Trial:
    """Runs of one recipe that are killed and started again.

    Args:
        folder: An empty folder for caches and output.
        recipe: The recipe file.
        reference: Output folder of an uninterrupted run; made here, in a cache of its own, if None.
    """

    def __init__(self, folder: Path, recipe: Path, reference: Path | None = None, seconds: float = 0) -> None:
        self.folder, self.recipe = folder, recipe
        self.found = Findings()
        self._count = 0
        if reference is None:
            reference, began = folder / "reference", time.monotonic()
            process = self._start(reference, folder / "reference-cache", "reference")
            if process.wait():
                raise SystemExit(f"the uninterrupted run failed: {self._errors()}")
            seconds = time.monotonic() - began
        self.reference, self.seconds = reference, seconds

    def _start(self, out: Path, cache: Path, mark: str) -> subprocess.Popen[bytes]:
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        settings = {
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(cache),
            "MPLCONFIGDIR": str(self.folder / "matplotlib"),
            "TMPDIR": str(scratch),
            "KILL_RESUME": mark,
        }
        program = str(Path(sys.executable).with_name("edgeprivacy"))
        # Into a file: a pipe would be held open by workers, and waiting for its end is waiting for theirs.
        with (self.folder / "stderr").open("wb") as stream:
            return subprocess.Popen(
                [program, "compress", str(self.recipe), "--out", str(out), "--quiet"],
                env={**os.environ, **settings},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def _errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace").strip()

    def run(self, kills: int, seed: int) -> Findings:
        """Kill as often as asked, in as many rounds as that takes; then let the last round end."""
        moments = random.Random(seed)
        while len(self.found.kills) < kills:
            self._round(kills, moments)
            self.found.rounds += 1
        return self.found

    def _round(self, kills: int, moments: random.Random) -> None:
        out = self.folder / f"out-{self.found.rounds}"
        cache = self.folder / f"cache-{self.found.rounds}"
        kept: dict[str, tuple[int, int]] = {}
        while True:
            self._count += 1
            mark = f"KILL_RESUME=run-{self._count}-{os.getpid()}"
            before = entries(cache)
            delay = moments.uniform(0, self.seconds) if len(self.found.kills) < kills else None
            process = self._start(out, cache, mark.partition("=")[2])
            try:
                process.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)  # the parent alone: the workers must notice by themselves
                process.wait()
                kept = self._killed(mark, cache, kept, delay or 0.0)
                continue
            self._ended(process.returncode, out, cache, {**kept, **before}, before)
            return

    def _killed(
        self, mark: str, cache: Path, kept: dict[str, tuple[int, int]], delay: float
    ) -> dict[str, tuple[int, int]]:
        took = gone(mark)
        if took is None:
            self.found.faults.append(f"{len(processes(mark))} processes outlived their parent by {GRACE} s")
        now = entries(cache)
        self._same(kept, now)
        self.found.kills.append(
            f"killed after {delay:.1f} s with {len(now)} finished files in the cache; "
            + (f"workers gone in {took:.1f} s" if took is not None else "workers stayed")
        )
        return now

    def _same(self, kept: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]]) -> None:
        again = [path for path, identity in kept.items() if now.get(path) != identity]
        if again:
            self.found.faults.append(f"{len(again)} finished files lost or made twice, such as {again[0]}")

    def _ended(
        self,
        code: int,
        out: Path,
        cache: Path,
        kept: dict[str, tuple[int, int]],
        before: dict[str, tuple[int, int]],
    ) -> None:
        if code or self._errors():
            self.found.faults.append(f"the last run ended with {code}: {self._errors()}")
            return
        self._same(kept, entries(cache))
        if left := [path.name for path in (self.folder / "scratch").glob("edgeprivacy-*")]:
            self.found.faults.append(f"killed runs left {left} in the folder for temporary files")
        if without_environment(out) != without_environment(self.reference):
            self.found.faults.append("the audit differs from that of the uninterrupted run")
        releases = json.loads((out / "audit.json").read_text())["environment"]["releases"]
        expected = json.loads((self.reference / "audit.json").read_text())["environment"]["releases"]
        finished = len({p.split("/")[3] for p in before if p.split("/")[1] in ("original", "compressed")})
        if releases["cached"] != finished or sum(releases.values()) != sum(expected.values()):
            self.found.faults.append(f"{finished} releases were finished, but the last run says {releases}")
        for path in sorted((self.reference / "artifacts").glob("*.tflite")):
            if (out / "artifacts" / path.name).read_bytes() != path.read_bytes():
                self.found.faults.append(f"{path.name} differs from that of the uninterrupted run")


def main() -> int:
    """Print the findings; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as name:
        folder = Path(name)
        recipe = given.recipe or folder / "recipe.toml"
        if given.recipe is None:
            recipe.write_text(SMALL)
        trial = Trial(folder, recipe.resolve())
        print(f"uninterrupted: {trial.seconds:.1f} s")
        found = trial.run(given.kills, given.seed)
    for line in found.kills:
        print(line)
    for fault in found.faults:
        print(f"FAULT: {fault}")
    print(f"{len(found.kills)} kills in {found.rounds} rounds: {len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
