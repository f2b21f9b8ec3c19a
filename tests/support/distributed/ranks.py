"""Real processes with a gloo group, started once and then asked to run functions."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import distributed

TIMEOUT = 150.0
LOADED = [
    "torch._dynamo",
    *(f"{__package__}.{name}" for name in "blocks flattened gammas guarded layouts".split()),
]
"""Loaded once, by the process that all ranks are forked from: each would take seconds for it."""


class Ranks:
    """``world`` processes of one group; ``run(f, *args)`` is f(*args) in each, as a list."""

    def __init__(self, world: int, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        self.pipes, self.processes = [], []
        for rank in range(world):
            mine, its = context.Pipe()
            process = context.Process(
                target=serve, args=(its, rank, world, str(folder / f"store{world}")), daemon=True
            )
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Raises AssertionError with the traceback of the first process that failed or hangs."""
        for pipe in self.pipes:
            pipe.send((function, args))
        answers: dict[int, Any] = {}
        while len(answers) < len(self.pipes):
            waiting = [p for r, p in enumerate(self.pipes) if r not in answers]
            ready = wait(waiting, timeout=TIMEOUT)
            if not ready:
                self.stop()
                raise AssertionError(f"processes other than {sorted(answers)} hang")
            for pipe in ready:
                rank = self.pipes.index(pipe)
                try:
                    fine, answers[rank] = pipe.recv()
                except EOFError:
                    fine, answers[rank] = False, "the process died"
                if not fine:
                    self.stop()
                    raise AssertionError(f"rank {rank}: {answers[rank]}")
        return [answers[rank] for rank in range(len(self.pipes))]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)


def serve(pipe: Connection, rank: int, world: int, store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world
    )
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((True, function(*args)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
