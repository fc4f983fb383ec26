"""``python -m tests.soak.bots --seconds 600``: a client behind a path with one fault after another.

The invariant is that of `client_scene`: between two gaps that were told no event is missing, none
comes twice and none out of order; in the end the book is the publisher's, and no thread and no
descriptor is left of all the connections.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

from client_scene import FAULTS, scene  # noqa: E402 - found on the line before

_SPARE_FILES = 4


def main() -> int:
    """Run until the time is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    jitter = random.Random(arguments.seed)
    ends_s = time.monotonic() + arguments.seconds
    done: dict[str, int] = {}
    with scene("soak") as it:
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        while time.monotonic() < ends_s:
            fault = jitter.choice(FAULTS)
            fault(it)
            it.relay.heal()
            it.wait_flow()
            done[fault.__name__] = done.get(fault.__name__, 0) + 1
        left = threading.active_count() - threads, len(os.listdir("/proc/self/fd")) - files
        stats = it.client.stats()
    print(f"faults: {done}\nevents: {len(it.events)} of {len(it.publisher.at_s)}\n{stats}")
    print(f"threads and descriptors more than before: {left}")
    return 1 if left[0] > 0 or left[1] > _SPARE_FILES else 0


if __name__ == "__main__":
    sys.exit(main())
