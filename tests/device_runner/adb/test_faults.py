"""What can go wrong between here and a device: one clear line, exit code 4, no partial answer, nothing left.

Every test runs the installed command against an emulated device with a real adbd, breaks something, and looks
at what the user sees, what is left on the device, and what is left here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testdevice.device import TestDevice, wait_until
from testdevice.link import Link
from testdevice.server import AdbServer

from edgeprivacy.cache import default_cache_folder
from edgeprivacy.confidences import Confidences
from edgeprivacy.device_runner import Queries
from edgeprivacy.device_runner.adb.client import TIMEOUT_VARIABLE, Adb
from edgeprivacy.device_runner.adb.place import AdbPlace
from edgeprivacy.device_runner.adb_runner import AdbRunner
from edgeprivacy.errors import RunnerError

pytestmark = pytest.mark.device

ROOT = "/data/local/tmp/edgeprivacy"
LONG, SHORT = 120_000, 400
"""Rows of a run that takes some ten seconds on the device, and of one that does not."""


@dataclass
class Command:
    """`edgeprivacy collect` of one file on a device, with folders of its own."""

    folder: Path
    environment: dict[str, str]
    file: Path

    def start(self, device: str, rows: int, **environment: str) -> subprocess.Popen[str]:
        """Start it in the background; Ctrl-C reaches it."""
        rng = np.random.default_rng(rows)
        data = self.folder / f"{rows}.npz"
        if not data.exists():
            np.savez(data, x=rng.normal(size=(rows, 20)).astype(np.float32), y=rng.integers(0, 4, rows))
        arguments = ["collect", self.file, "--data", data, "--device", device, "--out", self.out, "--json"]
        program = Path(sys.executable).with_name("edgeprivacy")
        return subprocess.Popen(
            [str(program), *map(str, arguments)],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(
        self, device: str, rows: int = SHORT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(device, rows, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    @property
    def out(self) -> Path:
        """What it writes."""
        return self.folder / "out.npz"

    @property
    def scratch(self) -> list[str]:
        """What is left in its folder for temporary files, but for the log of an adb server."""
        names = (path.name for path in Path(self.environment["TMPDIR"]).iterdir())
        return sorted(name for name in names if not name.startswith("adb."))


@pytest.fixture
def collect(adb_server: AdbServer, leaky: Any, tmp_path: Path) -> Command:
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        **adb_server.environment,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
    # What was built and fetched is shared; what a cut run has finished is the test's own.
    (tmp_path / "cache" / "edgeprivacy").mkdir(parents=True)
    for name in ("native", "wheels"):
        kept = default_cache_folder() / name
        kept.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "edgeprivacy" / name).symlink_to(kept)
    return Command(tmp_path, environment, leaky.files["int8"])


def failed(done: subprocess.CompletedProcess[str], collect: Command, *told: str) -> None:
    """It ended with 4, in one line that says all of this, and left nothing here."""
    assert done.returncode == 4, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for words in told:
        assert words in lines[0]
    assert done.stdout == "" and not collect.out.exists()
    assert collect.scratch == []


def clean(device: TestDevice) -> bool:
    """Nothing of a run is left on the device: no folder, no half-sent file, no process."""
    return not _left(device) and not any("edgeprivacy" in line for line in device.processes())


def _left(device: TestDevice) -> list[str]:
    """Files that are no whole part of the cache."""
    return [name for name in device.files(ROOT) if not name.startswith("cache") or "part-" in name]


def becomes_clean(device: TestDevice, seconds: float = 10) -> None:
    wait_until(lambda: clean(device), seconds, f"a clean device; there is {_left(device)}")


def running(device: TestDevice) -> Callable[[], bool]:
    """Whether the runner program computes, not only the shell that starts it."""
    return lambda: any(
        "--report" in line and "litert" in line and "echo" not in line for line in device.processes()
    )


@pytest.fixture
def started(collect: Command, device: TestDevice) -> Iterator[subprocess.Popen[str]]:
    """A long run on the shared device, in the middle."""
    assert collect(f"adb:{device.address}").returncode == 0
    collect.out.unlink()
    process = collect.start(f"adb:{device.address}", LONG, **{TIMEOUT_VARIABLE: "3"})
    wait_until(running(device), 40, "a run")
    yield process
    process.kill()
    process.wait()


def end_of(process: subprocess.Popen[str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess([], process.returncode, out, err)


def test_unauthorized(collect: Command, new_device: Any, adb_server: AdbServer) -> None:
    device = new_device(secure=True)
    adb_server.connect(device, state="unauthorized")
    try:
        failed(
            collect(f"adb:{device.address}"), collect, "state unauthorized", "accept this computer's RSA key"
        )
        assert device.files() == []
        device.authorize(adb_server.public_key)
        adb_server.connect(device)
        assert collect(f"adb:{device.address}").returncode == 0
    finally:
        adb_server.disconnect(device)


def test_offline(collect: Command, new_device: Any, adb_server: AdbServer) -> None:
    device = new_device()
    adb_server.connect(device)
    try:
        device.kill()
        wait_until(lambda: adb_server.states().get(device.address) != "device", 10, "the loss")
        state = adb_server.states().get(device.address, "not attached")
        failed(collect(f"adb:{device.address}"), collect, f"state {state}", "adb")
    finally:
        adb_server.disconnect(device)


def test_two_devices_and_no_serial(
    collect: Command, device: TestDevice, new_device: Any, adb_server: AdbServer
) -> None:
    other = new_device(serial="OTHER")
    adb_server.connect(other)
    try:
        failed(collect("adb"), collect, "several devices are attached", device.address, "--device adb:SERIAL")
    finally:
        adb_server.disconnect(other)


def test_another_processor(collect: Command, new_device: Any, adb_server: AdbServer) -> None:
    device = new_device(abi="armeabi-v7a")
    adb_server.connect(device)
    try:
        failed(collect(f"adb:{device.address}"), collect, "no runner for the processor", "armeabi-v7a")
        assert device.files() == []
    finally:
        adb_server.disconnect(device)


def test_storage_full(collect: Command, new_device: Any, adb_server: AdbServer) -> None:
    device = new_device()
    adb_server.connect(device)
    try:
        device.fill(8 << 20)  # less than the runtime needs
        failed(collect(f"adb:{device.address}"), collect, "no room left", "devices --clean")
        becomes_clean(device)
        device.fill(0)  # not even a folder's file
        failed(collect(f"adb:{device.address}"), collect, "no room left")
        becomes_clean(device)
        device.make_room()
        assert collect(f"adb:{device.address}").returncode == 0
    finally:
        adb_server.disconnect(device)


def test_a_device_that_hangs_from_the_start(collect: Command, new_device: Any, adb_server: AdbServer) -> None:
    device = new_device()
    adb_server.connect(device)
    try:
        device.hang()
        done = collect(f"adb:{device.address}", **{TIMEOUT_VARIABLE: "2"})
        failed(done, collect, "gave no sign of life", "silence of 2 s")
        device.resume()
        becomes_clean(device)
    finally:
        adb_server.disconnect(device)


def test_a_device_that_hangs_in_a_run(
    started: subprocess.Popen[str], collect: Command, device: TestDevice
) -> None:
    device.hang()
    try:
        failed(end_of(started), collect, "gave no sign of life", "silence of 3 s")
    finally:
        device.resume()
    becomes_clean(device, 30)


def test_the_server_is_killed_in_a_run(
    started: subprocess.Popen[str], collect: Command, device: TestDevice, adb_server: AdbServer
) -> None:
    adb_server.kill()
    try:
        done = end_of(started)
    finally:
        adb_server.adb("kill-server", check=False)  # the one that a client has started in its place
        adb_server.start()
    adb_server.connect(device)
    failed(done, collect, "was lost during a run")
    becomes_clean(device)


def test_a_reboot_in_a_run(collect: Command, new_device: Any, adb_server: AdbServer) -> None:
    device = new_device()
    adb_server.connect(device)
    try:
        process = collect.start(f"adb:{device.address}", LONG, **{TIMEOUT_VARIABLE: "3"})
        wait_until(running(device), 60, "a run")
        device.reboot(keep_data=True)
        failed(end_of(process), collect, "lost during a run")
        # The folder outlived its guard; the next run takes it away.
        assert any(name.startswith("job-") for name in device.files(ROOT))
        adb_server.connect(device)
        assert collect(f"adb:{device.address}").returncode == 0
        becomes_clean(device)
    finally:
        adb_server.disconnect(device)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_stopped_in_a_run_leaves_nothing_on_the_device(
    started: subprocess.Popen[str], collect: Command, device: TestDevice, stop: signal.Signals
) -> None:
    started.send_signal(stop)
    done = end_of(started)
    assert done.returncode == (130 if stop == signal.SIGINT else -stop)
    if stop == signal.SIGINT:
        assert done.stderr.strip() == "interrupted; finished work is kept and the same command resumes"
        assert collect.scratch == []
    assert not collect.out.exists()
    becomes_clean(device)


@pytest.mark.parametrize("attempt", range(12))
def test_a_run_that_ends_as_its_program_starts_leaves_nothing(
    device: TestDevice, adb_server: AdbServer, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    """The guard removes the folder while the command is writing its first files into it."""
    for name, value in adb_server.environment.items():
        monkeypatch.setenv(name, value)
    place = AdbPlace(Adb(serial=device.address))
    place.folder  # noqa: B018 - made on the first look
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(place.run, ["sleep", "33"], ["nothing"])
        time.sleep(0.02 * (1 + attempt))
        place.close()
        becomes_clean(device)
        assert not any("sleep 33" in line for line in device.processes())
        with suppress(RunnerError):
            assert ended.result(30).status != 0


def test_the_link_is_cut_in_a_push_and_the_next_run_goes_on(
    collect: Command, new_device: Any, adb_server: AdbServer
) -> None:
    device = new_device()
    with Link(device) as link:
        adb_server.connect(link)
        try:
            link.cut_after(to_device=5 << 20)  # in the middle of the runtime
            done = collect(f"adb:{link.address}", **{TIMEOUT_VARIABLE: "5"})
            failed(done, collect, "was lost during")
            becomes_clean(device)
            link.restore()
            adb_server.connect(link)
            assert collect(f"adb:{link.address}").returncode == 0
            becomes_clean(device)
        finally:
            adb_server.disconnect(link)


def test_the_link_is_cut_in_a_pull_and_no_partial_answer_is_kept(
    collect: Command, new_device: Any, adb_server: AdbServer
) -> None:
    device = new_device()
    rows = 40_000
    with Link(device) as link:
        adb_server.connect(link)
        try:
            assert collect(f"adb:{link.address}").returncode == 0
            collect.out.unlink()
            process = collect.start(f"adb:{link.address}", rows, **{TIMEOUT_VARIABLE: "5"})
            wait_until(running(device), 60, "a run")
            link.cut_after(from_device=80_000)  # of 160,000 bytes that come back
            failed(end_of(process, 120), collect, "was lost during")
            becomes_clean(device)
            link.restore()
            adb_server.connect(link)
            assert collect(f"adb:{link.address}", rows).returncode == 0
            assert len(Confidences.load(collect.out).labels) == rows
        finally:
            adb_server.disconnect(link)


def test_a_cut_run_goes_on_at_the_chunk(
    device: TestDevice, adb_server: AdbServer, leaky: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in adb_server.environment.items():
        monkeypatch.setenv(name, value)
    x = np.random.default_rng(0).normal(size=(2560, 20)).astype(np.float32)
    rows = Queries(x, np.arange(len(x)).astype(np.str_), np.zeros(len(x), np.int64))
    files = [leaky.files["float32"], leaky.files["int8"]]

    def runner() -> AdbRunner:
        return AdbRunner(device.address, parts=tmp_path / "parts", chunk_bytes=512 * 20 * 4)

    calls: list[int] = []
    first = runner()
    run = first.place.run

    def cut_in_the_third(command: Any, outputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RunnerError("cut")
        return run(command, outputs)

    monkeypatch.setattr(first.place, "run", cut_in_the_third)
    with pytest.raises(RunnerError, match="cut"):
        first.collect(files, rows)
    becomes_clean(device)
    second = runner()
    again = second.place.run
    later: list[int] = []
    monkeypatch.setattr(second.place, "run", lambda *words: later.append(1) or again(*words))
    collected = second.collect(files, rows)
    second.close()
    assert len(calls) == 3 and len(later) == 3  # five chunks, two were finished
    assert {confidences.facts["chunks"] for confidences in collected} == {5}
    whole = AdbRunner(device.address, parts=tmp_path / "other")
    for ours, theirs in zip(collected, whole.collect(files, rows), strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    whole.close()
    assert not any((tmp_path / "parts" / "parts").glob("*/*"))  # together now, and no longer needed


def test_a_damaged_runtime_on_the_device_is_sent_anew(collect: Command, device: TestDevice) -> None:
    assert collect(f"adb:{device.address}").returncode == 0
    before = Confidences.load(collect.out).probabilities
    (library,) = device.path(f"{ROOT}/cache").glob("litert-*/libLiteRt.so")
    size = library.stat().st_size
    with library.open("r+b") as stream:  # of the same size: only its hash tells
        stream.seek(size // 2)
        stream.write(b"damaged!")
    done = collect(f"adb:{device.address}")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(Confidences.load(collect.out).probabilities, before)
    becomes_clean(device)


@pytest.mark.parametrize("what", ["m-", "rows-"])
def test_a_file_that_is_replaced_on_the_device_is_told(
    device: TestDevice,
    adb_server: AdbServer,
    leaky: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """Between the push, which was right, and the run: by one of the same size."""
    for name, value in adb_server.environment.items():
        monkeypatch.setenv(name, value)
    x = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    rows = Queries(x, np.arange(len(x)).astype(np.str_), np.zeros(len(x), np.int64))
    runner = AdbRunner(device.address, parts=tmp_path / "parts")
    run = runner.place.run

    def replace_and_run(command: Any, outputs: Any) -> Any:
        (job,) = device.path(ROOT).glob("job-*")
        (target,) = job.glob(f"{what}*")
        content = bytearray(target.read_bytes())
        content[-8:] = bytes(8) if content[-8:] != bytes(8) else bytes([1] * 8)
        target.write_bytes(content)
        return run(command, outputs)

    monkeypatch.setattr(runner.place, "run", replace_and_run)
    with pytest.raises(RunnerError, match="is not the one that was sent"):
        runner.collect([leaky.files["float32"]], rows)
    becomes_clean(device)


def test_two_clients_at_once_do_not_disturb_each_other(collect: Command, device: TestDevice) -> None:
    first = collect.start(f"adb:{device.address}", 20_000)
    other = Command(collect.folder / "other", collect.environment, collect.file)
    other.folder.mkdir()
    second = other.start(f"adb:{device.address}", 15_000)
    for process, command, rows in ((first, collect, 20_000), (second, other, 15_000)):
        done = end_of(process, 120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"] == rows == len(Confidences.load(command.out).labels)
    becomes_clean(device)


def test_inputs_are_sent_once_for_many_files(
    device: TestDevice, adb_server: AdbServer, leaky: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in adb_server.environment.items():
        monkeypatch.setenv(name, value)
    x = np.random.default_rng(0).normal(size=(5000, 20)).astype(np.float32)
    rows = Queries(x, np.arange(len(x)).astype(np.str_), np.zeros(len(x), np.int64))
    runner = AdbRunner(device.address, parts=tmp_path / "parts")
    runner.ready(["tflite"])
    before = runner.moved["sent"]
    files = [leaky.files[format] for format in ("float32", "float16", "dynamic", "int8")]
    runner.collect(files, rows)
    assert runner.moved["sent"] - before == x.nbytes + sum(file.stat().st_size for file in files)
    runner.close()
    becomes_clean(device)
