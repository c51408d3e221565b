"""The sandbox as a command: lets any command talk to a fal.ai that costs nothing."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Run as `python tests/sandbox`, Python looks for modules inside the package instead of
# beside it.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sandbox import Sandbox  # noqa: E402

DESCRIPTION = """\
Start a stand-in for fal.ai's servers on this machine, and run a command against it.

The command reaches it under fal's own host names, by way of HTTPS_PROXY and SSL_CERT_FILE.
Nothing leaves the machine, nothing is charged, and no real key is used: FAL_KEY is replaced.
Its models, prices and pictures are made up, and are not remembered when it ends.
"""

EPILOG = """\
examples:
  python tests/sandbox -- python skill_fal.py list-models --search kling
  python tests/sandbox --run-seconds 10 -- python skill_fal.py subscribe-t2i \\
      --model fal-ai/flux/dev --prompt "A lighthouse at dusk"
  python tests/sandbox -- curl https://api.fal.ai/v1/models?limit=3
  python tests/sandbox                 serve, and print the variables for another shell

words in a prompt that decide a job's fate:
  [fail]   the model stumbles: HTTP 500
  [nsfw]   the content checker objects: HTTP 422
  [slow]   the model runs for 20 seconds

The exit status is the command's; a command that cannot be found gives 127.
"""

# What would lead the command to other servers, or hand them a real key.
OVERRIDDEN = (
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "WSS_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "FAL_FORCE_AUTH_BY_USER",
    "FAL_KEY_ID",
    "FAL_KEY_SECRET",
    "FAL_QUEUE_RUN_HOST",
    "FAL_RUN_HOST",
)
COMMAND_NOT_FOUND = 127


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    with Sandbox(options.queue_seconds, options.run_seconds) as fal:
        variables = fal.env | own_folders(fal.env)
        if not options.command:
            return serve(variables)
        return run(options.command, variables)


def own_folders(variables: dict[str, str]) -> dict[str, str]:
    """Keep what the sandbox tells of models out of what programs keep about the real ones."""
    folder = Path(variables["SSL_CERT_FILE"]).parent
    return {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
    }


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/sandbox",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--queue-seconds",
        type=float,
        default=1.0,
        metavar="N",
        help="how long each job waits in the queue (default: %(default)s)",
    )
    parser.add_argument(
        "--run-seconds",
        type=float,
        default=2.0,
        metavar="N",
        help="how long each job runs (default: %(default)s)",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND ARGS",
        help="what to run; python means this interpreter",
    )
    options = parser.parse_args(argv)
    if options.command[:1] == ["--"]:
        del options.command[0]
    return options


def run(command: list[str], variables: dict[str, str]) -> int:
    """The command's exit status, as a shell would report it."""
    if command[0] in ("python", "python3"):
        command = [sys.executable, *command[1:]]
    try:
        process = subprocess.Popen(command, env=child_environment(variables))
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return COMMAND_NOT_FOUND
    with signals_left_to(process):
        status = process.wait()
    return 128 - status if status < 0 else status


def child_environment(variables: dict[str, str]) -> dict[str, str]:
    """The user's own environment, except for what leads to fal."""
    kept = {name: value for name, value in os.environ.items() if name.upper() not in OVERRIDDEN}
    # curl and requests look at these before SSL_CERT_FILE, or instead of it.
    authority = variables["SSL_CERT_FILE"]
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        kept[name] = authority
    return kept | variables


@contextmanager
def signals_left_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Outlive the command. Ctrl-C reaches it from the terminal; a SIGTERM is passed on."""

    def pass_on(number: int, frame: object) -> None:
        process.send_signal(number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(variables: dict[str, str]) -> int:
    for name, value in variables.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    sys.stdout.flush()
    # Either signal ends it in order, so that its files are removed; in the background of a
    # script, Ctrl-C's would be ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.stderr.write("Set these in another shell; Ctrl-C here ends the sandbox.\n")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
