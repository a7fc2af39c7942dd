"""Merges that can be killed: a server that has everything imported and forks one process a merge.

Run as a script it is the server; imported, it is the tests' side of it. POSIX only.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PART = re.compile(r"\.mergescope-[0-9a-f]{4}-[0-9a-f]{8}\.part")

State = Mapping[str, bytes]

# So that a merge of small models takes as many writes as one of large ones.
SMALL_PIECES = (
    ("analyzer.blending:_CompiledBlender", "fused_chunk", 1 << 15),
    ("analyzer.merging.carrying_out", "_BATCH_BYTES", 1 << 9),
)


@dataclass(frozen=True)
class Ended:
    """How a merge ended."""

    code: int  # negative: the signal that killed it
    steps: int  # calls that change the disk, if they were counted
    text: str  # what it printed


class Server:
    """The tests' side: starts merges one at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: object, **wishes: Any) -> int:
        """Start `mergescope …`; the process stays, a zombie perhaps, until `wait`. Wishes: see `_child`."""
        self._send({"arguments": [*map(str, arguments)], "log": str(self._log), **wishes})
        return int(self._answer()["pid"])

    def wait(self) -> Ended:
        """Wait for the merge to end."""
        self._send({})
        answer = self._answer()
        return Ended(answer["code"], answer["steps"], self._log.read_text())

    def run(self, *arguments: object, **wishes: Any) -> Ended:
        """Start and wait."""
        self.start(*arguments, **wishes)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _send(self, message: Mapping[str, object]) -> None:
        assert self._process.stdin
        print(json.dumps(message), file=self._process.stdin, flush=True)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        return dict(json.loads(self._process.stdout.readline()))


@contextmanager
def server(log: Path) -> Iterator[Server]:
    """A server that is ready."""
    started = Server(log)
    try:
        started.run("--version")
        yield started
    finally:
        started.close()


def tree(root: Path, *, but: Sequence[str] = ()) -> State:
    """Every file below a folder, by name."""
    return {
        name: path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and (name := path.relative_to(root).as_posix()).split("/")[0] not in but
    }


def times(root: Path) -> Mapping[str, int]:
    """When each file below a folder was changed, in ns."""
    return {p.relative_to(root).as_posix(): p.stat().st_mtime_ns for p in root.rglob("*")}


def sleep_until(moment: float) -> None:
    """Sleep to a moment of `time.perf_counter`."""
    time.sleep(max(0.0, moment - time.perf_counter()))


def writing(pid: int, folder: Path) -> bool:
    """Whether a process, which must not run now, has a file open for writing in a folder, or below it."""
    inside = os.fspath(folder.resolve()) + os.sep
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target, mode = str(link.readlink()), link.lstat().st_mode
        except FileNotFoundError:
            continue
        if target.startswith(inside) and mode & 0o200:
            return True
    return False


def _serve() -> None:
    """Read wishes, fork, wait; one line in, one line out."""
    _warm_up()
    for line in sys.stdin:
        wish = json.loads(line)
        if wish:
            steps, told = os.pipe()
            pid = os.fork()
            if pid == 0:
                _child(wish, told)
            os.close(told)
            _tell({"pid": pid})
        else:
            _, status = os.waitpid(pid, 0)
            count = len(os.read(steps, 1 << 16))
            os.close(steps)
            _tell({"code": os.waitstatus_to_exitcode(status), "steps": count})


def _tell(message: Mapping[str, int]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _warm_up() -> None:
    """Import and compile once, for all children, what a merge needs."""
    from safetensors.numpy import save_file

    from analyzer.cli import mergescope

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save_file({"lm_head.weight": np.ones(8, np.float16)}, path)
        arguments = ["merge", path, path, "-o", path.with_stem("o"), "--alpha=0.5", "--quiet"]
        mergescope.main([*map(str, arguments)], standalone_mode=False)


def _child(wish: Mapping[str, Any], told: int) -> None:
    """Run the command line and end.

    Without `sync` nothing is synced: what a killed process wrote is in the system's hands anyway.
    `named`: the output has a hidden name at once. `plain`: the system can neither rename over nothing nor
    in exchange. `kill`: before the n-th step, from 1, or in the middle of it where that is a write, get
    the signal `number`, or die. `setup`: code to run before.
    """
    code = 70
    try:
        log = os.open(wish["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in (signal.SIGTERM, signal.SIGHUP):  # under nohup the second is ignored
            signal.signal(name, signal.SIG_DFL)
        from analyzer.writing import system_calls, unfinished

        for holder, name, value in SMALL_PIECES:
            setattr(pkgutil.resolve_name(holder), name, value)
        if wish.get("named"):
            unfinished._open_unnamed = lambda _folder: None
        if not wish.get("sync", True):
            os.fsync = lambda _descriptor: None
        if wish.get("plain"):
            system_calls._RENAMING.clear()
        _count_steps(told, wish.get("kill"), wish.get("number", signal.SIGKILL))
        exec(wish.get("setup", ""), {})
        sys.argv = ["mergescope", *wish["arguments"]]
        import analyzer.cli

        analyzer.cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_steps(told: int, kill: int | None, number: int) -> None:
    """Tell of every call that changes the disk; before the n-th, or halfway through it, get a signal."""
    from analyzer.writing import system_calls

    lock, count = threading.Lock(), 0
    write = os.write

    def watched(call: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                if count == kill:
                    if half:
                        half(*arguments)
                    os.kill(os.getpid(), number)
                if kill is None and count < 4096:
                    write(told, b".")
            return call(*arguments, **named)

        return step

    pwrite = os.pwrite

    def half_pwrite(descriptor: int, data: memoryview, position: int) -> None:
        pwrite(descriptor, data[: len(data) // 2], position)

    os.pwrite = watched(os.pwrite, half_pwrite)
    for name in ("open", "write", "fsync", "link", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, watched(getattr(os, name)))
    system_calls._rename = watched(system_calls._rename)


if __name__ == "__main__":
    _serve()
