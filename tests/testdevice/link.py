"""The cable: a TCP link to a device that counts what goes over it, and can be cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

from testdevice.device import TestDevice

_BLOCK = 1 << 18


class Link:
    """Passes connections on to a device, until told otherwise.

    Args:
        device: It may be rebooted meanwhile; its port stays.

    Attributes:
        port, address: To connect to in the device's place.
        to_device, from_device: Bytes that were passed on since `reset`.
        cuts: How often the link was cut since then.
    """

    def __init__(self, device: TestDevice) -> None:
        self._device_port = device.port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._down = False
        self._after_cut_down = True
        self._limits: dict[str, int | None] = {"to_device": None, "from_device": None}
        self._passed = {"to_device": 0, "from_device": 0}
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True, name="link").start()

    @property
    def to_device(self) -> int:
        """Bytes passed on to the device."""
        return self._passed["to_device"]

    @property
    def from_device(self) -> int:
        """Bytes passed on from the device."""
        return self._passed["from_device"]

    def cut_after(
        self, *, to_device: int | None = None, from_device: int | None = None, stays_down: bool = True
    ) -> None:
        """Cut the link when so many bytes more have gone in a direction: exactly so many are passed on.

        Args:
            to_device: Bytes from now.
            from_device: Bytes from now.
            stays_down: Refuse connections after the cut, until `restore`; else the next is let through whole.
        """
        with self._lock:
            limits = {"to_device": to_device, "from_device": from_device}
            self._limits = {
                way: None if more is None else self._passed[way] + more for way, more in limits.items()
            }
            self._after_cut_down = stays_down

    def cut(self, stays_down: bool = True) -> None:
        """Cut it now."""
        with self._lock:
            self._cut(stays_down)

    def restore(self) -> None:
        """Let everything through again; connections that were cut stay so."""
        with self._lock:
            self._down = False
            self._limits = dict.fromkeys(self._limits)

    def reset(self) -> None:
        """`restore`, and count from nothing."""
        self.restore()
        with self._lock:
            self._passed = dict.fromkeys(self._passed, 0)
            self.cuts = 0

    def close(self) -> None:
        """Cut it for ever."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._join(near)

    def _join(self, near: socket.socket) -> None:
        """Connect the device to a connection that came in."""
        with self._lock:
            down = self._down
        try:
            if down:
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self._device_port), timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {near, far}
        for source, target, way in ((near, far, "to_device"), (far, near, "from_device")):
            threading.Thread(target=self._pump, args=(source, target, way), daemon=True, name="link").start()

    def _pump(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(_BLOCK):
                with self._lock:
                    limit = self._limits[way]
                    left = len(data) if limit is None else min(len(data), limit - self._passed[way])
                    self._passed[way] += left
                if left:
                    target.sendall(data[:left])
                if limit is not None and self._passed[way] >= limit:
                    self.cut(self._after_cut_down)
        with self._lock:
            self._shut({source, target})

    def _cut(self, stays_down: bool) -> None:
        self.cuts += 1
        self._down = stays_down
        self._limits = dict.fromkeys(self._limits)
        self._shut(set(self._open))

    def _shut(self, ends: set[socket.socket]) -> None:
        for end in ends & self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open -= ends
