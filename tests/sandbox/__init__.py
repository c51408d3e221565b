"""A stand-in for fal.ai's servers: faithful, on loopback, free of charge.

The real fal-client, unmodified, reaches it under fal's own host names through a proxy that
never dials out. In tests:

    with Sandbox() as fal:
        subprocess.run(command, env={**os.environ, **fal.env})
        assert fal.jobs

From a shell, `python tests/sandbox -- COMMAND …`, see `python tests/sandbox --help`.

Words in a prompt decide a job's fate: [fail] makes the model stumble (500), [nsfw] has the
content checker stop it (422), and [slow] lets it run for 20 seconds. Keys whose id is `wrong`
or `locked` are refused as unknown, or for an exhausted balance; one whose id is `limited`
may not ask what things cost; other keys are welcome.

What nobody has seen fal do, or of which sources disagree, is marked [?] where it is done.
"""

from sandbox.jobs import Job, Latency
from sandbox.scripting import Always, Cut, Hold, Lose, Pass, Recorded, Reply, Stall, nginx
from sandbox.server import Sandbox

__all__ = [
    "Always",
    "Cut",
    "Hold",
    "Job",
    "Latency",
    "Lose",
    "Pass",
    "Recorded",
    "Reply",
    "Sandbox",
    "Stall",
    "nginx",
]
