"""Fixtures of the test device, for the conftest.py of a folder whose tests need one:

from testdevice.fixtures import adb_server, device, new_device  # noqa: F401
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from testdevice.device import TestDevice
from testdevice.place import Unavailable, device_root, required
from testdevice.server import AdbServer


def _give_up(reason: Unavailable) -> NoReturn:
    if required():
        pytest.fail(f"the test device is required here: {reason}", pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def built_device() -> Path:
    """The built device's file system, or the test is skipped with the reason."""
    try:
        return device_root()
    except Unavailable as reason:
        _give_up(reason)


@pytest.fixture(scope="session")
def adb_server(built_device: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """A server that no other test run and no user shares."""
    try:
        server = AdbServer(home=tmp_path_factory.mktemp("adb"))
    except Unavailable as reason:
        _give_up(reason)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def _shared_device(built_device: Path) -> Iterator[TestDevice]:
    # `prepare` has booted it: if it does not boot now, that is a failure and no reason to skip.
    with TestDevice(root=built_device) as device:
        yield device


@pytest.fixture
def device(_shared_device: TestDevice, adb_server: AdbServer) -> TestDevice:
    """A device that all tests share which leave it as they found it; booted and attached. What earlier tests
    left below /data/local/tmp, such as a cache, is still there."""
    if adb_server.states().get(_shared_device.address) != "device":
        adb_server.connect(_shared_device)
    return _shared_device


@pytest.fixture
def new_device(built_device: Path) -> Iterator[Callable[..., TestDevice]]:
    """`new_device(**options)`: a device of the test's own, booted, not attached; see TestDevice."""
    with ExitStack() as stack:

        def boot(**options: Any) -> TestDevice:
            return stack.enter_context(TestDevice(root=built_device, **options))

        yield boot
