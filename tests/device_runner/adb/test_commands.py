"""The commands with `--device adb`, as a user types them, on the emulated device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testdevice.device import TestDevice
from testdevice.server import AdbServer

from edgeprivacy.cache import default_cache_folder
from edgeprivacy.confidences import Confidences
from edgeprivacy.results import Audit

pytestmark = pytest.mark.device
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, but for the runner programs and wheels."""
    home = tmp_path_factory.mktemp("cache")
    (home / "edgeprivacy").mkdir()
    for name in ("native", "wheels"):
        kept = default_cache_folder() / name
        kept.mkdir(parents=True, exist_ok=True)
        (home / "edgeprivacy" / name).symlink_to(kept)
    return home


@pytest.fixture
def run(adb_server: AdbServer, cache_home: Path, tmp_path: Path) -> Run:
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("edgeprivacy")
        return subprocess.run(
            [str(program), *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                **adb_server.environment,
                "XDG_CACHE_HOME": str(cache_home),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.mark.slow
def test_compress_on_a_device_reuses_what_a_host_run_has_made(
    run: Run, device: TestDevice, tmp_path: Path
) -> None:
    # Packed weights of 4 and 2 bits: LiteRT's kernels for them are the device's own.
    (tmp_path / "r.toml").write_text("[quantize]\nweight_bits = 2\nouter_bits = 4\ngrid_epochs = 1\n")
    recipe = (
        *("compress", "r.toml", "--backend", "tflite", "--defense", "wemem", "--shadows", "2"),
        *("--epochs", "4", "--finetune-epochs", "2", "--formats", "int8", "--attacks", "loss,lira.offline"),
    )
    host = run(*recipe, "--out", "host", "--json")
    assert host.returncode == 0, host.stderr
    there = run(*recipe, "--out", "there", "--device", f"adb:{device.address}", "--json")
    assert there.returncode == 0, there.stderr
    ours = Audit.load(tmp_path / "there" / "audit.json")
    assert ours.environment["releases"] == {"trained": 0, "cached": 6}
    assert ours.recipe_id == Audit.load(tmp_path / "host" / "audit.json").recipe_id
    for artifact in ours.artifacts:
        assert artifact.device == f"adb:{device.address}" and artifact.run["abi"] == "arm64-v8a"
        assert artifact.run["machine"] == "aarch64" and artifact.run["runtime"] == "litert"
        on_host, native = artifact.drift
        assert (on_host.versus, native.versus) == ("host", "native")
        assert on_host.rows == native.rows and on_host.max_abs == native.max_abs < 0.01
        if artifact.format == "float32":
            assert on_host.max_abs < 2e-6
        else:
            assert on_host.max_lsb is not None and on_host.max_lsb <= 1
        performance = artifact.performance
        assert performance is not None and 0 < performance.median_us <= performance.p95_us
        name = f"{artifact.name}@adb-{device.address.replace(':', '-')}.npz"
        saved = Confidences.load(tmp_path / "there" / "confidences" / name)
        assert saved.facts["device"] == "adb"
    differs = any(artifact.drift[0].max_abs > 0 for artifact in ours.artifacts)
    told = ours.artifacts[0].shadow_device
    assert told is not None and told.startswith(f"adb:{device.address}: " if differs else "host: ")
    # Again: nothing is collected a second time.
    again = run(*recipe, "--out", "there", "--device", f"adb:{device.address}", "--json")
    assert again.returncode == 0
    sent = json.loads(again.stdout)["environment"]["moved_bytes"][f"adb:{device.address}"]["sent"]
    first = ours.environment["moved_bytes"][f"adb:{device.address}"]["sent"]
    assert sent < first
    assert [name for name in device.files("/data/local/tmp/edgeprivacy") if name.startswith("job-")] == []


def test_two_devices_and_the_host_stand_in_one_report(
    run: Run, device: TestDevice, new_device: Any, adb_server: AdbServer, leaky: Any, tmp_path: Path
) -> None:
    other = new_device(serial="OTHER")
    adb_server.connect(other)
    try:
        done = run(
            *("audit", leaky.files["int8"], "--members", leaky.members, "--nonmembers", leaky.nonmembers),
            *("--device", "adb:all", "--device", "host", "--attacks", "loss", "--out", "out"),
            *("--fail-if", "auc>0.99 for artifact=int8"),
        )
    finally:
        adb_server.disconnect(other)
    assert done.returncode == 0, done.stderr
    audit = Audit.load(tmp_path / "out" / "audit.json")
    labels = {f"adb:{device.address}", f"adb:{other.address}", "host"}
    assert {artifact.device for artifact in audit.artifacts} == labels
    assert {artifact.name for artifact in audit.artifacts} == {f"int8@{label}" for label in labels}
    assert set(audit.environment["moved_bytes"]) == labels - {"host"}
    assert len({a.run.get("serial_sha256") for a in audit.artifacts}) == 3
    assert [test.passed for test in audit.null_tests].count(False) == 0
    on_devices = [artifact for artifact in audit.artifacts if artifact.device != "host"]
    for artifact in on_devices:
        (drift,) = artifact.drift
        assert drift.versus == "host" and drift.attack == "loss" and drift.max_lsb in (0, 1)
    # Two devices of one kind answer alike.
    one, two = (
        Confidences.load(tmp_path / "out" / "confidences" / f"{a.name.replace(':', '-')}.members.npz")
        for a in on_devices
    )
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "On the device" in html and other.address in html


def test_the_file_on_the_device_is_run_and_no_other(
    run: Run, device: TestDevice, leaky: Any, tmp_path: Path
) -> None:
    done = run(
        *("collect", leaky.files["float32"], "--data", leaky.members, "--out", "m.npz", "--json"),
        *("--device", "adb"),
    )
    if done.returncode == 4 and "several devices" in done.stderr:
        pytest.skip("another test's device is attached")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["device"] == "adb" and facts["model_sha256"] == facts["artifact"]["sha256"]
    assert facts["android"] == "14" and facts["fingerprint"].startswith("edgeprivacy/")


def test_devices_lists_and_cleans(
    run: Run, device: TestDevice, new_device: Any, adb_server: AdbServer, leaky: Any
) -> None:
    locked = new_device(secure=True, serial="LOCKED")
    adb_server.connect(locked, state="unauthorized")
    try:
        listed = {entry["serial"]: entry for entry in json.loads(run("devices", "--json").stdout)}
        ready, waiting = listed[device.address], listed[locked.address]
        assert ready["runs"] == ["tflite", "pte"] and ready["abi"] == "arm64-v8a"
        assert ready["android"] == "14 (API 34)" and ready["next_step"] == ""
        assert waiting["runs"] == [] and "accept this computer's RSA key" in waiting["next_step"]
        table = run("devices")
        assert table.returncode == 0 and device.address in table.stdout and "unauthorized" in table.stdout
    finally:
        adb_server.disconnect(locked)
    assert (
        run(
            "collect",
            leaky.files["int8"],
            "--data",
            leaky.members,
            "--out",
            "m.npz",
            "--device",
            f"adb:{device.address}",
        ).returncode
        == 0
    )
    assert device.files("/data/local/tmp/edgeprivacy/cache") != []
    cleaned = run("devices", "--clean", "--device", f"adb:{device.address}")
    assert cleaned.returncode == 0 and "freed" in cleaned.stdout
    assert device.files("/data/local/tmp") == []


def test_devices_without_any(run: Run, adb_server: AdbServer, device: TestDevice) -> None:
    adb_server.disconnect(device)
    others = [serial for serial in adb_server.states()]
    if others:
        pytest.skip("another test's device is attached")
    done = run("devices")
    assert done.returncode == 4 and "no device is attached" in done.stderr


def test_a_ptl_is_refused_before_anything_is_trained(run: Run, device: TestDevice) -> None:
    done = run(
        "compress", "--backend", "executorch", "--formats", "ptl-float32", "--device", f"adb:{device.address}"
    )
    assert done.returncode == 2 and "--device host runs it" in done.stderr and "releases" not in done.stderr
    unknown = run("compress", "--device", "phone", "--dry-run")
    assert unknown.returncode == 2 and "host, host:logits, native, adb" in unknown.stderr
