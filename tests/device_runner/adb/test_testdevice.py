"""The test device itself: that it is what it says it is, breaks as it says, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testdevice import place
from testdevice.device import TestDevice
from testdevice.host import runs, wait_until
from testdevice.link import Link
from testdevice.place import Unavailable
from testdevice.server import AdbServer

TMP = "/data/local/tmp"
Boot = Callable[..., TestDevice]


@pytest.fixture
def own_server(built_device: Path, tmp_path: Path) -> Iterator[AdbServer]:
    """A server that a test may kill, or that must not know a device yet."""
    (tmp_path / "adb").mkdir()
    with AdbServer(home=tmp_path / "adb") as server:
        yield server


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """8 MiB that cannot be compressed, and are the same every time."""
    file = tmp_path / "payload"
    blocks = (hashlib.sha512(str(i).encode()).digest() for i in range(1 << 17))
    file.write_bytes(b"".join(blocks))
    return file


def processes_of(ids: list[int]) -> list[int]:
    """Those that still run; one that has ended and was not yet asked for by its parent does not."""
    return [pid for pid in ids if runs(pid)]


def device_mounts() -> list[str]:
    """Mounts of the built device that can be seen from here."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(place.cache_folder()) in line or "binfmt_misc" in line]


def cache_content() -> list[str]:
    """All that lies in the built device."""
    return sorted(str(path) for path in place.built_folder().rglob("*"))


# What it is.


def test_it_is_an_android_shaped_arm64_device(adb_server: AdbServer, device: TestDevice) -> None:
    said = adb_server.shell(device, "id -u; id -u -n; uname -m; echo $0").split()
    assert said[:3] == ["2000", "shell", "aarch64"] and said[3].endswith("sh")
    wanted = {
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.product.cpu.abilist": "arm64-v8a",
        "ro.product.model": "Emulated arm64 device",
        "ro.build.version.sdk": "34",
        "ro.build.version.release": "14",
        "ro.serialno": device.serial,
        "ro.none": "",
    }
    command = "; ".join(f"getprop {name}" for name in wanted)
    assert adb_server.shell(device, command).splitlines() == list(wanted.values())
    assert adb_server.shell(device, "getprop ro.build.fingerprint").count("/") >= 4
    assert "[ro.product.cpu.abi]: [arm64-v8a]" in adb_server.shell(device, "getprop")
    # Programs of this machine's own architecture are not all that runs: the shell itself is arm64.
    header = device_file(device, "/system/bin/sh").read_bytes()[:20]
    assert header[:5] == b"\x7fELF\x02" and header[18] == 0xB7


def device_file(device: TestDevice, path: str) -> Path:
    """A file of the booted system."""
    return Path(f"/proc/{device.adbd}/root{path}")


def test_the_tools_of_a_device_are_there_and_only_its_own_places_can_be_written(
    adb_server: AdbServer, device: TestDevice
) -> None:
    tools = "cat chmod df grep kill ls mkdir mv ps rm rmdir sha256sum sleep sort stat tail timeout uname"
    found = adb_server.shell(device, f"for tool in {tools}; do which $tool; done").split()
    assert found == [f"/system/bin/{tool}" for tool in tools.split()]
    missing = adb_server.adb("shell", "dumpsys battery", serial=device.address, check=False)
    assert missing.returncode == 127
    for folder, status in ((TMP, 0), ("/data", 1), ("/system", 1), ("/", 1)):
        command = f"touch {folder}/x && rm {folder}/x"
        assert adb_server.adb("shell", command, serial=device.address, check=False).returncode == status, (
            folder
        )
    line = adb_server.shell(device, f"df -k {TMP} | tail -n 1").split()
    assert int(line[1]) == 512 << 10 and line[-1] == "/data"


def test_what_is_pushed_is_there_and_comes_back(
    adb_server: AdbServer, device: TestDevice, payload: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(payload.read_bytes()).hexdigest()
    there = f"{TMP}/pushed"
    adb_server.shell(device, f"mkdir {there}")
    try:
        adb_server.adb("push", str(payload), f"{there}/payload", serial=device.address)
        assert adb_server.shell(device, f"sha256sum {there}/payload").split()[0] == digest
        assert device.files(there) == ["payload"] and "pushed/payload" in device.files()
        assert hashlib.sha256(device.path(f"{there}/payload").read_bytes()).hexdigest() == digest
        adb_server.adb("pull", f"{there}/payload", str(tmp_path / "back"), serial=device.address)
        assert (tmp_path / "back").read_bytes() == payload.read_bytes()
    finally:
        adb_server.shell(device, f"rm -rf {there}")
    assert device.files(there) == [] and "pushed" not in device.files()


def test_exit_codes_come_through(adb_server: AdbServer, device: TestDevice) -> None:
    for command, status in (("exit 7", 7), ("kill -9 $$", 137), ("/none", 127), ("echo x >&2", 0)):
        done = adb_server.adb("shell", command, serial=device.address, check=False)
        assert done.returncode == status, command
    assert (done.stdout, done.stderr) == ("", "x\n")


def test_its_processes_can_be_seen_from_outside(adb_server: AdbServer, device: TestDevice) -> None:
    assert device.processes() == []
    with subprocess.Popen(
        [adb_server.program, "-s", device.address, "shell", "sleep 60"],
        env={**os.environ, **adb_server.environment},
        stdin=subprocess.DEVNULL,
    ) as client:
        # The shell becomes the program. A signal that met the emulator in the middle of that would be lost.
        wait_until(
            lambda: any("sleep 60" in line and "-c" not in line for line in device.processes()), 10, "sleep"
        )
        time.sleep(0.5)
        client.kill()
    wait_until(lambda: device.processes() == [], 10, "the end of what a killed client ran")


def test_another_processor_and_other_properties_can_be_claimed(
    new_device: Boot, adb_server: AdbServer
) -> None:
    other = new_device(abi="x86", serial="OLD", properties={"ro.build.version.sdk": "19"})
    adb_server.connect(other)
    names = ("ro.product.cpu.abi", "ro.product.cpu.abilist", "ro.serialno", "ro.build.version.sdk")
    said = adb_server.shell(other, "; ".join(f"getprop {name}" for name in names))
    assert said.split() == ["x86", "x86", "OLD", "19"]


def test_two_at_once_are_two(new_device: Boot, adb_server: AdbServer) -> None:
    devices = [new_device(serial=serial) for serial in ("FIRST", "SECOND")]
    for one in devices:
        adb_server.connect(one)
        adb_server.shell(one, f"getprop ro.serialno > {TMP}/$(getprop ro.serialno)")
    assert [one.files() for one in devices] == [["FIRST"], ["SECOND"]]
    boots = {adb_server.shell(one, "cat /proc/sys/kernel/random/boot_id") for one in devices}
    assert len(boots) == 2
    devices[0].kill()
    assert adb_server.shell(devices[1], f"cat {TMP}/SECOND") == "SECOND\n"


# How it breaks.


def test_a_hung_device_is_listed_and_does_not_answer(new_device: Boot, own_server: AdbServer) -> None:
    one = new_device()
    own_server.connect(one)
    one.hang()
    with pytest.raises(subprocess.TimeoutExpired):
        own_server.adb("shell", "true", serial=one.address, seconds=1.5)
    assert own_server.states() == {one.address: "device"} and one.alive
    one.resume()
    assert own_server.shell(one, "echo again") == "again\n"


def test_a_reboot_ends_what_ran_and_changes_the_boot(new_device: Boot, own_server: AdbServer) -> None:
    one = new_device()
    own_server.connect(one)
    read_boot = "cat /proc/sys/kernel/random/boot_id"
    before = own_server.shell(one, read_boot)
    own_server.shell(one, f"echo kept > {TMP}/kept")
    said: list[subprocess.CompletedProcess[str]] = []

    def run() -> None:
        said.append(own_server.adb("shell", "sleep 60; echo done", serial=one.address, check=False))

    running = threading.Thread(target=run)
    running.start()
    wait_until(lambda: any("sleep 60" in line for line in one.processes()), 10, "sleep")
    system = one.process_ids[1:]
    began = time.monotonic()
    one.reboot()
    running.join(20)
    assert not running.is_alive() and time.monotonic() - began < 20
    assert "done" not in said[0].stdout
    assert processes_of(system) == [] and one.alive
    own_server.connect(one)
    assert own_server.shell(one, read_boot) != before
    assert one.files() == ["kept"] and own_server.shell(one, f"cat {TMP}/kept") == "kept\n"
    one.reboot(keep_data=False)
    own_server.connect(one)
    assert one.files() == []
    assert own_server.shell(one, f"touch {TMP}/new && ls {TMP}") == "new\n"


def test_a_device_without_power_is_gone_and_keeps_its_files(new_device: Boot, own_server: AdbServer) -> None:
    one = new_device()
    own_server.connect(one)
    own_server.shell(one, f"touch {TMP}/kept")
    one.kill()
    wait_until(lambda: own_server.states().get(one.address) != "device", 10, "a lost device")
    assert not one.alive and one.files() == ["kept"] and len(one.process_ids) == 1
    one.reboot()
    own_server.connect(one)


def test_a_full_device_refuses_a_push(new_device: Boot, own_server: AdbServer, payload: Path) -> None:
    one = new_device(data_mb=32)
    own_server.connect(one)
    free = f"df -k {TMP} | tail -n 1"
    one.fill(1 << 20)
    assert int(own_server.shell(one, free).split()[3]) == 1 << 10
    done = own_server.adb("push", str(payload), f"{TMP}/payload", serial=one.address, check=False)
    assert done.returncode == 1 and "No space left on device" in done.stdout + done.stderr
    one.fill()
    assert int(own_server.shell(one, free).split()[3]) == 0
    refused = own_server.adb("shell", f"echo x > {TMP}/x", serial=one.address, check=False)
    assert refused.returncode != 0
    one.make_room()
    own_server.adb("push", str(payload), f"{TMP}/payload", serial=one.address)


def test_a_device_that_knows_no_key_is_unauthorized_until_it_does(
    new_device: Boot, own_server: AdbServer
) -> None:
    one = new_device(secure=True)
    own_server.connect(one, state="unauthorized")
    assert own_server.adb("shell", "true", serial=one.address, check=False).returncode == 1
    one.authorize(own_server.public_key)
    own_server.connect(one)
    known = new_device(secure=True, keys=[own_server.public_key])
    own_server.connect(known)
    assert own_server.shell(known, "id -u").strip() == "2000"


def test_a_cable_counts_and_is_cut_where_it_is_told_to(
    new_device: Boot, own_server: AdbServer, payload: Path, tmp_path: Path
) -> None:
    size = payload.stat().st_size
    one = new_device()
    with Link(one) as link:
        own_server.connect(link)
        link.reset()
        own_server.adb("push", str(payload), f"{TMP}/payload", serial=link.address)
        assert size < link.to_device < size * 1.01 and link.from_device < size / 50

        link.reset()
        link.cut_after(to_device=size // 2)
        done = own_server.adb("push", str(payload), f"{TMP}/second", serial=link.address, check=False)
        assert done.returncode != 0 and link.to_device == size // 2 and link.cuts == 1
        wait_until(lambda: own_server.states().get(link.address) != "device", 10, "a lost device")
        with pytest.raises(TimeoutError, match="in state device"):
            own_server.connect(link, seconds=1)
        # What came half is removed or is half: never whole.
        lies = one.path(f"{TMP}/second")
        assert not lies.exists() or lies.stat().st_size < size

        link.restore()
        own_server.connect(link)
        link.reset()
        link.cut_after(from_device=size // 2, stays_down=False)
        back = tmp_path / "back"
        done = own_server.adb("pull", f"{TMP}/payload", str(back), serial=link.address, check=False)
        assert done.returncode != 0 and link.from_device >= size // 2 and link.cuts == 1
        own_server.connect(link)
        own_server.adb("pull", f"{TMP}/payload", str(back), serial=link.address)
        assert back.read_bytes() == payload.read_bytes()


def test_a_server_that_is_killed_is_the_tests_own(new_device: Boot, own_server: AdbServer) -> None:
    assert own_server.port != 5037
    one = new_device()
    own_server.connect(one)
    first = own_server.process_id
    own_server.kill()
    assert first is not None and processes_of([first]) == [] and own_server.process_id is None
    own_server.start()
    assert own_server.states() == {}, "a new server knows no device"
    own_server.connect(one)


def test_a_server_that_a_client_started_is_ended_too(built_device: Path) -> None:
    with AdbServer() as server:
        server.kill()
        server.adb("devices")  # starts another, which nobody waits for
        assert server._listens() and server.process_id is None
        home = Path(server.environment["HOME"])
    assert not server._listens() and not home.exists()


# What it leaves behind.


def test_nothing_is_left_when_it_was_stopped(new_device: Boot, adb_server: AdbServer) -> None:
    before = device_mounts(), cache_content()
    one = new_device()
    adb_server.connect(one)
    adb_server.shell(one, f"sleep 300 >/dev/null 2>&1 & echo x > {TMP}/x")
    wait_until(lambda: any("sleep 300" in line for line in one.processes()), 10, "sleep")
    ids, view = one.process_ids, one.path(TMP)
    assert len(ids) >= 5 and view.is_dir()
    one.stop()
    assert processes_of(ids) == [] and not view.exists()
    assert (device_mounts(), cache_content()) == before
    one.stop()


@pytest.mark.parametrize("how", ["killed", "returned"])
def test_it_dies_with_the_process_that_booted_it(built_device: Path, how: str) -> None:
    program = (
        "import json, sys\n"
        "from testdevice.device import TestDevice\n"
        "device = TestDevice().start()\n"
        "print(json.dumps(device.process_ids), flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(place.HERE.parent)},
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        ids = json.loads(process.stdout.readline())
        assert len(ids) == 4 and processes_of(ids) == ids
        if how == "killed":
            process.kill()
        else:
            process.stdin.close()
    wait_until(lambda: processes_of(ids) == [], 10, "the end of a device whose test is gone")


def test_the_hardware_takes_everything_with_it(new_device: Boot) -> None:
    one = new_device()
    ids = one.process_ids
    os.kill(ids[0], signal.SIGKILL)
    wait_until(lambda: processes_of(ids) == [], 10, "the end of a device without hardware")
    one.stop()


# Where there is none.


def test_a_device_that_is_not_built_tells_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRIVACY_TESTDEVICE", str(tmp_path))
    with pytest.raises(Unavailable, match="tests/testdevice/prepare"):
        place.device_root()
    place.reason_file().write_text("only root can give the test device its users\n")
    with pytest.raises(Unavailable, match=r"^only root can give the test device its users$"):
        place.device_root()


@pytest.mark.parametrize("needed", ["0", "1"])
def test_prepare_writes_the_reason_down_and_fails_only_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: str
) -> None:
    """Run where it believes that this machine has no apt-get."""
    (tmp_path / "bin").mkdir()
    environment = {
        "EDGEPRIVACY_TESTDEVICE": str(tmp_path / "built"),
        "EDGEPRIVACY_TESTDEVICE_REQUIRED": needed,
        "PATH": str(tmp_path / "bin"),
        "PYTHONPATH": str(place.HERE.parent),
    }
    done = subprocess.run(
        [sys.executable, "-m", "testdevice.preparing"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == int(needed), done.stderr
    assert "there is no apt-get here" in done.stderr and "Traceback" not in done.stderr
    monkeypatch.setenv("EDGEPRIVACY_TESTDEVICE", str(tmp_path / "built"))
    with pytest.raises(Unavailable, match="there is no apt-get here"):
        place.device_root()


def test_a_device_that_cannot_boot_says_why(tmp_path: Path, built_device: Path) -> None:
    with pytest.raises(Unavailable, match=r"does not boot: .*data"):
        TestDevice(root=tmp_path / "empty").start()
