"""The adb client against recorded answers of adb: a program that prints them and ends with their status."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprivacy.device_runner.adb.client import (
    TIMEOUT_VARIABLE,
    Adb,
    find_adb,
    next_step,
    read_status,
    time_limit,
    with_status,
)
from edgeprivacy.device_runner.adb.devices import choose
from edgeprivacy.errors import RunnerError, UsageError

LISTED = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
127.0.0.1:5681         device product:epr_arm64 model:EPR_Test_Device device:epr transport_id:1
0A1B2C3D               unauthorized usb:1-2 transport_id:3
emulator-5554          offline transport_id:4
FA77L0301234           no permissions (user is in the plugdev group); usb:3-1 transport_id:5

"""
ONE = "List of devices attached\nR58M12ABCDE            device product:a52 model:SM_A525F transport_id:2\n"


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Adb]:
    """An adb whose `devices` prints a text, and whose other calls print another and end with a status."""

    def make(
        devices: str = LISTED, *, said: str = "", errors: str = "", status: int = 0, wait: float = 0
    ) -> Adb:
        for name, text in (("devices", devices), ("said", said), ("errors", errors)):
            (tmp_path / name).write_text(text)
        program = tmp_path / "adb"
        program.write_text(
            '#!/bin/sh\ncd "$(dirname "$0")"\n'
            'case "$*" in *devices*) cat devices; exit 0;; esac\n'
            f"sleep {wait}\ncat said; cat errors >&2\nexit {status}\n"
        )
        program.chmod(0o755)
        return Adb(program, "R58M12ABCDE")

    return make


def test_states_and_words_are_read(recorded: Callable[..., Adb]) -> None:
    found = recorded().attached()
    assert [(entry.serial, entry.state) for entry in found] == [
        ("127.0.0.1:5681", "device"),
        ("0A1B2C3D", "unauthorized"),
        ("emulator-5554", "offline"),
        ("FA77L0301234", "no permissions"),
    ]
    assert found[0].about["model"] == "EPR_Test_Device"


@pytest.mark.parametrize(
    "state", ["unauthorized", "offline", "no permissions", "authorizing", "not attached"]
)
def test_every_state_but_ready_has_a_next_step(state: str) -> None:
    assert next_step(state) and next_step("device") is None


def test_the_only_device_needs_no_serial_and_one_of_several_does(recorded: Callable[..., Adb]) -> None:
    assert choose(recorded(ONE), [""]) == ["R58M12ABCDE"]
    with pytest.raises(RunnerError, match=r"several devices .* say which: --device adb:SERIAL") as error:
        choose(recorded(), [""])
    assert error.value.exit_code == 4 and "0A1B2C3D (unauthorized)" in str(error.value)
    assert choose(recorded(), ["all"]) == ["127.0.0.1:5681"]
    assert choose(recorded(), ["127.0.0.1:5681", "all"]) == ["127.0.0.1:5681"]


@pytest.mark.parametrize(
    ("serial", "told"),
    [
        ("0A1B2C3D", "accept this computer's RSA key"),
        ("emulator-5554", "adb disconnect, then adb connect"),
        ("FA77L0301234", "udev rule"),
        ("gone", "state not attached"),
    ],
)
def test_a_device_that_is_not_ready_is_named_with_what_to_do(
    recorded: Callable[..., Adb], serial: str, told: str
) -> None:
    with pytest.raises(RunnerError) as error:
        choose(recorded(), [serial])
    assert told in str(error.value) and error.value.exit_code == 4


def test_no_device(recorded: Callable[..., Adb]) -> None:
    for asked in ("", "all"):
        with pytest.raises(RunnerError, match="no device is attached"):
            choose(recorded("List of devices attached\n\n"), [asked])


def test_adbs_own_zero_is_not_believed(recorded: Callable[..., Adb]) -> None:
    # adb 29: its server is killed in the middle of a command, and it ends with 0 and prints nothing.
    with pytest.raises(RunnerError, match="link to R58M12ABCDE was lost"):
        recorded(ONE, status=0).shell("true")
    # adb 36: a push that found no room says "1 file pushed" and tells only by its error.
    pushed = "data.bin: 1 file pushed, 0 skipped. 97.9 MB/s (52428800 bytes in 0.511s)\n"
    failed = (
        "adb: error: failed to copy 'data.bin' to '/data/x': remote write failed: No space left on device\n"
    )
    with pytest.raises(RunnerError, match="no room left"):
        recorded(ONE, said=pushed, errors=failed, status=1).push([Path("data.bin")], "/data/x")


def test_a_status_travels_in_the_output(recorded: Callable[..., Adb]) -> None:
    line = with_status("echo hello; exit 7", "abcd")
    said = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert read_status(said, "abcd") == (7, "hello\n")
    assert read_status("hello\r\n\r\nabcd:0\r\n", "abcd") == (0, "hello\n")
    assert read_status("hello\nabcd", "abcd") is None
    # Another command's word is not ours.
    assert read_status("ffff:0\n", "abcd") is None


def test_silence_ends_a_call(recorded: Callable[..., Adb], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, "0.3")
    began = time.monotonic()
    with pytest.raises(RunnerError, match=r"R58M12ABCDE gave no sign of life; given: silence of 0.3 s"):
        recorded(ONE, wait=20).shell("true")
    assert time.monotonic() - began < 10
    monkeypatch.setenv(TIMEOUT_VARIABLE, "soon")
    with pytest.raises(UsageError, match="no time limit"):
        time_limit()


def test_where_adb_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "adb").write_text("#!/bin/sh\n")
        (folder / "adb").chmod(0o755)
        return folder / "adb"

    given, sdk = program(tmp_path / "given"), program(tmp_path / "sdk" / "platform-tools")
    on_path = program(tmp_path / "bin")
    monkeypatch.setenv("ADB", str(given))
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert find_adb() == given
    monkeypatch.setenv("ADB", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="cannot be run"):
        find_adb()
    monkeypatch.delenv("ADB")
    assert find_adb() == on_path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_adb() == sdk
