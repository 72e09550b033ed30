"""Every command and every piece of code of the README is run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Last on the path: nothing else may come from tests/ by accident.
sys.path.append(str(Path(__file__).parent))

from testdevice.device import TestDevice
from testdevice.fixtures import _shared_device, adb_server, built_device, device  # noqa: F401
from testdevice.server import AdbServer

README = Path(__file__).parents[1] / "README.md"
MAKE_TARGETS = ("make demo", "make test")  # run by continuous integration and by hand; they set up machines


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(MAKE_TARGETS)]


def for_a_device(command: str) -> bool:
    return "adb" in command or command.split()[1] == "devices"


def own_model() -> str:
    return next(block for block in blocks("python") if "def build(" in block)


def own_data() -> str:
    return next(block for block in blocks("python") if "def load(" in block)


@pytest.fixture(scope="module")
def folder(leaky: Any, keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: every file that the README names."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copy(leaky.files["float32"], path / "model.tflite")
    shutil.copy(leaky.members, path / "m.npz")
    shutil.copy(leaky.nonmembers, path / "n.npz")
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(3, 8))
    for name, rows in (("t", 300), ("h", 500)):
        y = rng.integers(0, 3, rows)
        x = (centres[y] + rng.normal(size=(rows, 8))).astype(np.float32)
        np.savez(path / f"{name}.npz", x=x, y=y)
        if name == "t":
            np.save(path / "table.npy", np.column_stack([x, y]))
    (path / "net.py").write_text(own_model())
    (path / "rows.py").write_text(own_data())
    namespace: dict[str, Any] = {}
    exec(own_model(), namespace)  # the README's own code, which a user would run
    namespace["build"](keras, (8,), 3).save_weights(path / "w.weights.h5")
    return path


def run(arguments: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **more,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_two_set_up_commands_are_make_targets() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in MAKE_TARGETS:
        assert target in README.read_text()
        assert re.search(rf"^{target.split()[1]}:", makefile, flags=re.MULTILINE)
    demo = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", makefile, flags=re.MULTILINE)
    assert demo and demo[1].startswith("edgeprivacy compress --backend tflite --defense wemem")


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in commands() if not for_a_device(line)])
def test_command(command: str, folder: Path) -> None:
    done = run(command.split() if '"' not in command else ["bash", "-c", command], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.device
@pytest.mark.parametrize("command", [line for line in commands() if for_a_device(line)])
def test_command_on_a_device(
    command: str,
    folder: Path,
    device: TestDevice,  # noqa: F811
    adb_server: AdbServer,  # noqa: F811
) -> None:
    words = command.replace("SERIAL", device.address).split()
    done = run(words, folder, **adb_server.environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and device.address in done.stdout


@pytest.mark.slow
def test_python_api(folder: Path) -> None:
    code = next(block for block in blocks("python") if "import edgeprivacy" in block)
    script = folder / "api.py"
    guarded = "\n".join(f"    {line}" for line in code.splitlines())
    script.write_text(f"if __name__ == '__main__':\n{guarded}\n    print(audit.verdict)\n")
    done = run([sys.executable, str(script)], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("none")


@pytest.mark.slow
def test_own_torch_model(folder: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra executorch")
    (folder / "torch_net.py").write_text(next(block for block in blocks("python") if "from torch" in block))
    rows = ["--train", "t.npz", "--holdout", "h.npz", "--shadows", "0", "--epochs", "3"]
    model = ["--backend", "executorch", "--model", "torch_net.py:build", "--finetune-epochs", "1"]
    done = run(["edgeprivacy", "compress", *rows, *model, "--out", "torch"], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "torch" / "artifacts" / "prune60-int8.none.pte").is_file()


@pytest.mark.slow
def test_own_data(folder: Path) -> None:
    done = run(["edgeprivacy", "compress", "--data", "rows.py:load", "--dry-run"], folder)
    assert done.returncode == 0, done.stderr
    assert "300 rows" in done.stdout


def test_the_picture_is_there() -> None:
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README.read_text()):
        assert (README.parent / target).is_file(), target
