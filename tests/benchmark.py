"""Measures what tests must not: how quickly the skill starts, as ratios within one run.

    python tests/benchmark.py [RUNS]

Each command is run in turn with `python -c "import argparse, json"`, the least that any such
tool does, and their processor times are divided pair by pair.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

SCRIPT = str(Path(__file__).resolve().parent.parent / "skill_fal.py")
BARE = ["-c", "import argparse, json"]
# A command line, and the most that its ratio may be; None where nothing was promised.
COMMANDS: list[tuple[list[str], float | None]] = [
    (["list-t2i"], 2.0),
    (["--help"], None),
    (["subscribe-i2v", "--help"], None),
    (["submit-t2i", "--model", "mistyped"], None),
    (["encode-raw", "--file", SCRIPT, "--content-type", "text/x-python"], None),
]


def processor_seconds(arguments: list[str]) -> float:
    """User and system time of one Python process."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # waited for above
    return usage.ru_utime + usage.ru_stime


def ratio(arguments: list[str], runs: int) -> float:
    """The median over pairs of runs."""
    pairs = [
        (processor_seconds([SCRIPT, *arguments]), processor_seconds(BARE)) for _ in range(runs + 1)
    ]
    return statistics.median(ours / bare for ours, bare in pairs[1:])


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    missed = False
    for arguments, limit in COMMANDS:
        measured = ratio(arguments, runs)
        promise = f"at most {limit}" if limit else ""
        missed = missed or bool(limit and measured > limit)
        name = " ".join(Path(word).name for word in arguments)
        sys.stdout.write(f"{measured:6.2f}  {promise:12}  {name}\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
