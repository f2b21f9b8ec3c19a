"""Pieces in several processes, none of which outlives this one."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from ...errors import UserError
from .shards import ShardSettings, write_piece
from .sources import Piece


def write_pieces(
    settings: ShardSettings, numbers: Sequence[int], pieces: Sequence[Piece], workers: int
) -> Iterator[int]:
    """Write these pieces, in whatever order; yields the number of each when it is done.

    Args:
        settings: of all.
        numbers: of the pieces to write.
        pieces: all of them.
        workers: processes; with one, it is this one.

    Raises:
        UserError: if a source cannot be read, or a process is ended from outside.
    """
    # one process, one core: the tokenizer's own threads would take all of them in each
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if min(workers, len(numbers)) <= 1:
        for number in numbers:
            yield write_piece(settings, number, pieces[number])
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(numbers)), multiprocessing.get_context("spawn"), _end_with_the_parent
    )
    try:
        futures = [pool.submit(write_piece, settings, n, pieces[n]) for n in numbers]
        for future in as_completed(futures):
            yield future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise UserError(
            "a process was ended from outside, perhaps for want of memory: the same command goes "
            "on where it was; give it fewer --workers"
        ) from None
    finally:  # whatever is still at work when another has failed
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_watch_the_parent, daemon=True).start()


def _watch_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
