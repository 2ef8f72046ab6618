"""Closed-loop load from a few threads, bounded in time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import numpy as np
import psutil


@dataclass(frozen=True)
class Load:
    """What a run measured.

    Attributes:
        rate: calls a second.
        latencies: seconds, sorted.
        server_cpu: CPU seconds of the server's process a call; 0 when none was watched.
        shed: calls that the server refused since too many waited; they are in nothing else.
    """

    rate: float
    latencies: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    server_cpu: float
    shed: int = 0

    def quantile(self, q: float) -> float:
        """A latency quantile in milliseconds."""
        return float(np.quantile(self.latencies, q) * 1000)


def drive(call: Callable[[], object], *, callers: int, seconds: float, server_pid: int = 0) -> Load:
    """Call without pause from `callers` threads for `seconds`."""
    for _ in range(20):
        call()
    found: list[list[float]] = [[] for _ in range(callers)]
    shed: list[grpc.RpcError] = []
    process = psutil.Process(server_pid) if server_pid else None
    cpu_before = _cpu(process)
    started = time.perf_counter()
    until = started + seconds

    def run(own: list[float]) -> None:
        while (begun := time.perf_counter()) < until:
            try:
                call()
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                shed.append(error)
            else:
                own.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=run, args=(own,)) for own in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    latencies = np.sort(np.concatenate([np.array(own) for own in found]))
    n = len(latencies)
    return Load(n / elapsed, latencies, (_cpu(process) - cpu_before) / max(n, 1), len(shed))


def _cpu(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)
