"""`python -m bench.serve MODULE:APP`: uvicorn as the Procfile starts it, on a free port that it prints."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import uvicorn


def main() -> None:
    """Serve until told to stop."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    config = uvicorn.Config(
        sys.argv[1],
        loop="uvloop",
        http="httptools",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    print(listener.getsockname()[1], flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
