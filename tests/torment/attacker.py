"""``python -m tests.torment.attacker NAME OPTIONS``: one attack, in a process of its own.

Its lines of JSON: ``{"begin": true}`` when preparations are over, and at last what the attack
itself measured, by name.
"""

from __future__ import annotations

import json
import os
import sys

from tests.torment.attacks import by_name
from tests.torment.target import Target

_NICE = 5  # the good clients' clock goes first


def main() -> None:
    """Attack."""
    os.nice(_NICE)
    target = Target(json.loads(sys.argv[2]))
    by_name(sys.argv[1]).run(target)
    print(json.dumps({"found": target.found}), flush=True)


if __name__ == "__main__":
    main()
