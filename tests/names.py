"""A name server whose answers a test changes."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_A = 1


class NameServer:
    """Answers every name with the same IPv4 addresses, over UDP on loopback."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def answer(self, stop: threading.Event) -> None:
        """Answer until it shall stop."""
        self._socket.settimeout(0.1)
        while not stop.is_set():
            try:
                query, caller = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            question = query[12 : query.index(b"\0", 12) + 5]
            (kind,) = struct.unpack(">H", question[-4:-2])
            records = [
                struct.pack(">HHHIH4s", 0xC00C, _A, 1, 0, 4, socket.inet_aton(address))
                for address in (self.addresses if kind == _A else ())
            ]
            head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
            self._socket.sendto(head + question + b"".join(records), caller)

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


@contextmanager
def name_server(*addresses: str) -> Iterator[NameServer]:
    """A running name server."""
    server, stop = NameServer(list(addresses)), threading.Event()
    thread = threading.Thread(target=server.answer, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close()
