"""`workers` processes on one port. They are spawned, never forked: gRPC and BLAS hold threads."""

import os
import signal
import socket
import subprocess
import sys
import threading

from madang_runtime.settings import ServiceSettings

_WORKER = "MADANG_WORKER"


def is_worker() -> bool:
    """Whether this process is one of several on its port."""
    return _WORKER in os.environ


def supervise(settings: ServiceSettings) -> bool:
    """Become the parent of `settings.workers` processes, if there should be more than one.

    Returns:
        False in a process that shall serve; True in the parent, after all workers have ended.

    Raises:
        SystemExit: a worker ended by itself; the others were stopped.
    """
    if is_worker():
        for port in ("metrics_port", "health_port"):
            if getattr(settings, port):
                setattr(settings, port, getattr(settings, port) + int(os.environ[_WORKER]))
        return False
    if settings.workers == 1:
        return False
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # Held bound but not listening, so that port 0 means the same free port to all workers.
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((settings.host, settings.port))
        port_variable = f"{settings.model_config.get('env_prefix', '')}PORT"
        environment = {**os.environ, port_variable: str(reserved.getsockname()[1])}
        command = [sys.executable, *sys.orig_argv[1:]]
        workers = [
            subprocess.Popen(command, env={**environment, _WORKER: str(i)})
            for i in range(settings.workers)
        ]
        while not stopping.wait(0.2) and all(w.poll() is None for w in workers):
            pass
        failed = not stopping.is_set()
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    if failed:
        raise SystemExit("a worker ended by itself")
    return True
