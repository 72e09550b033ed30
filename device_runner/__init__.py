"""Runs model files where they ship and brings their confidences back."""

from edgeprivacy.device_runner.base import Queries, Runner

__all__ = ["Queries", "Runner", "open_runner"]


def open_runner(device: str = "host") -> Runner:
    """The runner for a device name.

    Raises:
        UsageError: Unknown device.
    """
    from edgeprivacy.device_runner.host import HostRunner
    from edgeprivacy.errors import UsageError

    if device != "host":
        raise UsageError(f"unknown device '{device}'", allowed="host")
    return HostRunner()
