"""A child process that serves one GGUF on a loopback port with one thread, and dies with its parent.

``python -m corpusgen.teachers.embedded_server WEIGHTS MODEL CONTEXT PARENT`` prints one JSON line with its address.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Final, TextIO

_PR_SET_PDEATHSIG: Final = 1


def main(weights: str, model: str, context: str, parent: str) -> None:
    """Serve until standard input ends or the parent is gone."""
    _die_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it lets what is paid for arrive.
    out = _only_our_line()
    server, address = _serve(weights, model, int(context))
    out.write(json.dumps({"address": address}) + "\n")
    out.flush()
    sys.stdin.buffer.read()
    del server
    os._exit(0)  # The server's own threads would otherwise be waited for.


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that died before the line above sends no signal any more.
    if os.getppid() != parent:
        sys.exit("the parent process is gone")


def _only_our_line() -> TextIO:
    # The C++ side may print; the parent reads one line and it must be ours.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return out


def _serve(weights: str, model: str, context: int) -> tuple[object, str]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {model}
    params.port = 0
    params.n_ctx = context
    params.n_parallel = 1
    # One thread each: with fewer free cores than threads their barrier spins, 25 times slower.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 2
    params.cache_prompt = True
    params.cache_ram_mib = 0
    # With flash attention a label's log-probability moves by up to 0.37 with what the cache happens to hold; without
    # it a prompt gives the same bits, fresh, cached or on another server.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = params.ui = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    return server, server.listening_address


if __name__ == "__main__":
    main(*sys.argv[1:])
