"""Compile Triton kernels for a named architecture, each in a process of its own; no GPU, no torch.

    ASTSource + GPUTarget("cuda", 90, 32)  ->  triton.compile  ->  cubin, shared memory

A process that dies or takes too long costs one kernel, not the build. Line numbers are left out of
cubins: they are two thirds of one. The only file that needs Triton.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

from agent.kernels.triton.build import Compiled
from agent.kernels.triton.fit import MULTIPLE, Compilation
from gemmcast.config import WARP_THREADS
from gemmcast.errors import InputError

LIMIT_S: Final = 300.0
"""A compilation that takes longer is given up. 256x256 tiles with 4 warps take 80 s."""
_USAGE: Final = re.compile(r"REG:(\d+) STACK:(\d+)\b.*?\bLOCAL:(\d+)", re.DOTALL)


class TritonCompiler:
    """The installed Triton.

    Raises:
        InputError: there is none.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("triton") is None:
            rule = "Triton kernels are compiled with Triton, which is not installed"
            raise InputError("triton", None, rule, "pip install triton, where kernels are built")
        import triton

        self.version: str = triton.__version__

    def compile_all(
        self, compilations: Sequence[Compilation], jobs: int
    ) -> Iterator[tuple[Compilation, Compiled | str]]:
        """See `Compiler`."""
        waiting = list(reversed(compilations))
        running: dict[Connection, _Running] = {}
        with TemporaryDirectory(prefix="gemmcast-triton-", ignore_cleanup_errors=True) as scratch:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        receive, one = _start(waiting.pop(), scratch)
                        running[receive] = one
                    yield from _ended(running)
            finally:
                # Ctrl-C, too.
                for one in running.values():
                    _kill(one.process)


@dataclass(frozen=True, slots=True)
class _Running:
    compilation: Compilation
    process: BaseProcess
    deadline_s: float


def _start(compilation: Compilation, scratch: str) -> tuple[Connection, _Running]:
    """A process that compiles it, and where its answer will be."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "triton.compiler"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(compilation, scratch, send), daemon=True)
    process.start()
    # The child's end: its death is seen only when no other process holds it.
    send.close()
    return receive, _Running(compilation, process, monotonic() + LIMIT_S)


def _ended(running: dict[Connection, _Running]) -> Iterator[tuple[Compilation, Compiled | str]]:
    """Wait for one at least, unless a second passes; take what has ended out of `running`."""
    done = set(wait(list(running), timeout=1.0))
    for receive in list(running):
        one = running[receive]
        if receive in done:
            answer = _answer(receive, one.process)
        elif monotonic() > one.deadline_s:
            _kill(one.process)
            answer = f"it took longer than {LIMIT_S:.0f} s"
        else:
            continue
        del running[receive]
        receive.close()
        one.process.join()
        yield one.compilation, answer


def _kill(process: BaseProcess) -> None:
    """With the ptxas that it may have started: it leads a session of its own (`_work`)."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _answer(receive: Connection, process: BaseProcess) -> Compiled | str:
    try:
        answer: Compiled | str = receive.recv()
    except EOFError:
        process.join()
        return f"its process ended with exit code {process.exitcode}"
    return answer


def _work(compilation: Compilation, scratch: str, send: Connection) -> None:
    """Compile one kernel and send the answer; runs in a process of its own."""
    # Ctrl-C is for the build, which ends this process; what ptxas says then is no answer.
    os.setsid()
    try:
        answer: Compiled | str = compile_one(compilation, Path(scratch))
    except Exception as error:  # noqa: BLE001
        # Triton raises what it likes, and whatever it is, it is the answer for this kernel.
        answer = _first_line(error)
    # Nobody listens any more when the build was interrupted.
    with suppress(BrokenPipeError):
        send.send(answer)


def compile_one(compilation: Compilation, folder: Path) -> Compiled:
    """Compile in this process.

    Args:
        folder: for what is left over.

    Raises:
        Exception: whatever Triton or ptxas find wrong.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        os.environ["TRITON_CACHE_DIR"] = scratch
        os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
        from triton import compile as compile_triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        source = ASTSource(
            _function(compilation),
            signature=_signature(compilation),
            constexprs=dict(compilation.constants),
            attrs=_attributes(compilation),
        )
        target = GPUTarget("cuda", int(compilation.arch.removeprefix("sm_")), WARP_THREADS)
        options = {"num_warps": compilation.warps, "num_stages": compilation.stages}
        compiled = compile_triton(source, target=target, options=options)
        return _compiled(compiled, Path(scratch))


def _function(compilation: Compilation) -> Any:
    """The `@triton.jit` function."""
    path = compilation.source
    spec = importlib.util.spec_from_file_location(f"triton_source_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, compilation.entry, None)
    parameters = getattr(function, "arg_names", None)
    if parameters is None:
        raise ValueError(f"{path.name} has no @triton.jit function {compilation.entry}")
    described = [name for name, _ in (*compilation.signature, *compilation.constants)]
    order = [name for name in parameters if name not in dict(compilation.constants)]
    if set(described) != set(parameters) or order != [name for name, _ in compilation.signature]:
        raise ValueError(f"{compilation.entry} has parameters {', '.join(parameters)}")
    return function


def _signature(compilation: Compilation) -> dict[str, str]:
    return dict(compilation.signature) | {name: "constexpr" for name, _ in compilation.constants}


def _attributes(compilation: Compilation) -> dict[tuple[int], list[list[object]]]:
    """What Triton may assume: place of a parameter -> it is a multiple of 16."""
    parameters = list(_function(compilation).arg_names)
    attributes: dict[tuple[int], list[list[object]]] = {}
    for name, kind in compilation.signature:
        if kind.startswith("*") or name in compilation.multiples_of_16:
            attributes[(parameters.index(name),)] = [["tt.divisibility", MULTIPLE]]
    return attributes


def _compiled(compiled: Any, scratch: Path) -> Compiled:
    metadata = compiled.metadata
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise ValueError("it needs scratch memory of Triton's runtime, which launches do not have")
    cubin: bytes = compiled.asm["cubin"]
    regs, spill_bytes = _resources(cubin, scratch)
    return Compiled(
        cubin=cubin,
        entry=metadata.name,
        smem_bytes=metadata.shared,
        regs=regs,
        spill_bytes=spill_bytes,
    )


def _resources(cubin: bytes, scratch: Path) -> tuple[int, int]:
    """Registers and local memory of a thread, as cuobjdump of Triton's wheel reads them."""
    import triton

    path = scratch / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [str(tool), "-res-usage", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    usage = _USAGE.search(done.stdout)
    if usage is None:
        raise ValueError(f"cuobjdump says nothing of registers: {done.stdout.strip()[:200]}")
    regs, stack, local = map(int, usage.groups())
    return regs, stack + local


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no reason"]
    return f"{type(error).__name__}: {telling[0]}"[:300]
