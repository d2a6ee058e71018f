"""`scripts/fuzz`: the receiver and every parser under random input, for as long as is wanted.

    --minutes N   how long (default 10); a round that has begun is finished
    --seed N      where to begin; the same seed draws the same examples (default: told, another each time)
    --only WORD   only the targets whose name has this word in it: receiver, answers, a source
    --examples N  how many a target and round (default 200)

Each target takes its turn with a new seed each round, until the time is over. The first thing that does not hold ends
it with status 1, the smallest example that shows it, and how to run just that again.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from console.redis_server import EmbeddedRedis
from tests.fuzz import answers, parsers, receiver
from tests.fuzz.target import Target


def main(words: Sequence[str]) -> int:
    """Run; return the exit status."""
    asked = _arguments().parse_args(words)
    print(f"seed {asked.seed}, {asked.minutes:g} minutes", flush=True)
    logging.getLogger().addHandler(
        logging.NullHandler()
    )  # what is refused is told a thousand times
    with ExitStack() as stack:
        targets = [*parsers.targets(), *answers.targets()]
        if asked.only in "receiver":
            targets.insert(0, _receiver(stack))
        targets = [each for each in targets if asked.only in each.name]
        if not targets:
            print(f"nothing has {asked.only!r} in its name", file=sys.stderr)
            return 2
        failed = _run(targets, asked)
    for each in targets:
        print(f"{each.ran:>9} {each.name}")
    print("failed" if failed else "nothing was found")
    return int(failed)


def _run(targets: Sequence[Target], asked: argparse.Namespace) -> bool:
    """Take turns until the time is over; return whether something failed."""
    until, number = monotonic() + 60 * asked.minutes, asked.seed
    while True:
        for each in targets:
            try:
                each.run(number, asked.examples)
            except Exception:
                traceback.print_exc()
                again = f"--seed {number} --examples {asked.examples} --only '{each.name}'"
                print(f"\nagain: scripts/fuzz {again} --minutes 0", file=sys.stderr)
                return True
            if monotonic() >= until:
                return False
        number += 1


def _receiver(stack: ExitStack) -> Target:
    home = Path(tempfile.mkdtemp(prefix="relay-"))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    server = stack.enter_context(EmbeddedRedis(home, None, appendfsync="no"))
    return stack.enter_context(receiver.running(server.url, home))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("scripts/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--only", default="", help="only targets with this word in their name")
    parser.add_argument("--examples", type=int, default=200, help="a target and round")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
