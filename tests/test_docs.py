"""What README.md, SKILL.md and --help say is true: every command line in them runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import fal_client
import pytest
from conftest import PATIENCE, ROOT, SCRIPT, Cli
from PIL import Image
from sandbox import Sandbox

import skill_fal

README = (ROOT / "README.md").read_text(encoding="utf-8")
SKILL = (ROOT / "SKILL.md").read_text(encoding="utf-8")
TEST_COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install -q -r tests/requirements.txt"
    " && .venv/bin/python -m pytest -q"
)

# The command lines of the description that this project was made from, as they stand there.
FIRST_DESCRIPTION = r"""
python skill_fal.py subscribe-t2i \
  --model fal-ai/flux/dev \
  --prompt "A cyberpunk cityscape at sunset, neon lights reflecting on wet streets"
python skill_fal.py submit-t2i \
  --model fal-ai/flux/schnell \
  --prompt "A watercolor painting of a forest" \
  --width 1024 --height 768 --num-images 2
python skill_fal.py run-t2i \
  --model fal-ai/flux/schnell \
  --prompt "A minimalist logo design"
python skill_fal.py stream-t2i \
  --model fal-ai/flux/dev \
  --prompt "Abstract geometric art"
python skill_fal.py subscribe-t2i \
  --model fal-ai/flux/dev \
  --prompt "Photorealistic mountain landscape" \
  --negative-prompt "blurry, low quality" \
  --width 1024 --height 1024 \
  --num-images 1 \
  --seed 42 \
  --guidance-scale 7.5 \
  --num-inference-steps 30 \
  --extra-json '{"scheduler": "euler"}' \
  --priority rush \
  --start-timeout 300
python skill_fal.py subscribe-i2v \
  --model fal-ai/runway-gen3/turbo/image-to-video \
  --image-url "https://example.com/cat.png" \
  --prompt "The cat slowly turns its head"
python skill_fal.py submit-i2v \
  --model fal-ai/kling-video/v2/master/image-to-video \
  --image-url ./my-photo.jpg \
  --duration 5.0
python skill_fal.py submit-i2v \
  --model fal-ai/minimax-video/image-to-video \
  --image-url "https://example.com/scene.png" \
  --webhook-url "https://myapp.com/api/fal-callback"
python skill_fal.py status \
  --model fal-ai/flux/dev \
  --request-id abc123-def456
python skill_fal.py result \
  --model fal-ai/flux/dev \
  --request-id abc123-def456
python skill_fal.py cancel \
  --model fal-ai/flux/dev \
  --request-id abc123-def456
python skill_fal.py upload-file --file ./photo.jpg
python skill_fal.py upload-image --file ./photo.png --format png
python skill_fal.py upload-raw --file ./data.bin --content-type application/octet-stream
python skill_fal.py encode-file --file ./photo.jpg
python skill_fal.py encode-image --file ./photo.png --format png
python skill_fal.py realtime \
  --model fal-ai/flux/schnell \
  --arguments-json '{"prompt": "A glowing orb", "num_images": 1}' \
  --rounds 3
python skill_fal.py batch-t2i \
  --model fal-ai/flux/schnell \
  --prompts "A red car" "A blue boat" "A green plane" \
  --width 512 --height 512
python skill_fal.py batch-i2v \
  --model fal-ai/runway-gen3/turbo/image-to-video \
  --image-urls "https://example.com/a.png" "https://example.com/b.png"
python skill_fal.py list-models --categories
python skill_fal.py list-models --category text-to-image
python skill_fal.py list-models --category image-to-video
python skill_fal.py list-models --search "nano-banana"
python skill_fal.py list-models --category text-to-image --include-deprecated
python skill_fal.py list-models --category text-to-video --json
python skill_fal.py list-models
python skill_fal.py subscribe-t2i \
  --model fal-ai/flux/schnell \
  --prompt "A sunset" 2>/dev/null | jq -r '.images[0].url' | pbcopy
"""


def command_lines(text: str) -> list[str]:
    """The lines of a shell script that run the skill, continued ones joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if "skill_fal.py" in line or line.startswith("skill-fal ")]


def documented(markdown: str) -> list[str]:
    """Every command line in the shell blocks of a document, without its set-up."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", markdown, re.DOTALL))
    lines = command_lines(blocks.replace("{baseDir}/", ""))
    return [line.rpartition("requirements.txt && ")[2] for line in lines]


LINES = {
    "first description": command_lines(FIRST_DESCRIPTION),
    "README": documented(README),
    "SKILL": documented(SKILL),
    "--help": [f"python skill_fal.py {c.name} {c.example}" for c in skill_fal.COMMANDS.values()],
}


def titled() -> dict[str, str]:
    """Every command line, by its document and its command, numbered where one comes again."""
    lines: dict[str, str] = {}
    for document, found in LINES.items():
        for line in found:
            words = re.split(r"skill_fal\.py|^skill-fal", line, maxsplit=1)[1].split()
            title = f"{document}: {words[0] if words else 'skill_fal.py'}"
            again = sum(re.sub(r" \d+$", "", known) == title for known in lines)
            lines[f"{title} {again + 1}" if again else title] = line
    return lines


@pytest.fixture
def workshop(tmp_path: Path, photo: Path) -> Path:
    """A folder that holds the project, and what its examples name."""
    for name in ("skill_fal.py", "requirements.txt", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("my-photo.jpg", "other.jpg", "photo.png", "a.png", "b.png"):
        with Image.open(photo) as picture:
            picture.save(tmp_path / name)
    (tmp_path / "pictures").mkdir()
    photo_copy = tmp_path / "pictures/fal-ai-flux-dev.jpg"
    photo_copy.write_bytes(photo.read_bytes())
    (tmp_path / "data.bin").write_bytes(b"\0\1\2")
    (tmp_path / "prompts.txt").write_text('A red car\n{"prompt": "A blue boat", "seed": 7}\n')
    shims = {
        "python": f'exec "{sys.executable}" "$@"',
        "python3": f'exec "{sys.executable}" "$@"',
        "jq": f'exec "{sys.executable}" -c "{JQ}" "$@"',
        "pbcopy": "cat",
        "uv": UV,
        "parallel": f'exec "{sys.executable}" -c "{PARALLEL}" "$@"',
        "skill-fal": f'exec "{sys.executable}" -c "import sys; {INSTALLED}" "$@"',
    }
    for folder in (tmp_path / "bin", tmp_path / ".venv/bin"):
        folder.mkdir(parents=True)
        for name, script in shims.items():
            shim = folder / name
            shim.write_text(f"#!/bin/sh\n{script}\n")
            shim.chmod(0o755)
    return tmp_path


# What the file would install is here already; it must be there, and Python does the rest.
UV = """\
[ "$1 $2 $3" = "run --no-project --with-requirements" ] && [ -f "$4" ] || exit 1
shift 4
exec "$@"
"""
# The installed command, as pyproject.toml has it made.
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULE, _, FUNCTION = PROJECT["scripts"]["skill-fal"].partition(":")
INSTALLED = f"from {MODULE} import {FUNCTION}; sys.exit({FUNCTION}())"

# What GNU parallel does of these: a command for each argument, {.} being it without its ending.
PARALLEL = """
import subprocess, sys
command, _, *parts = sys.argv[1:]
for part in parts:
    filled = command.replace('{.}', part.rpartition('.')[0]).replace('{}', part)
    subprocess.run(['bash', '-c', filled], check=True)
"""

JQ = """
import sys, jq
program, raw = sys.argv[-1], '-r' in sys.argv
for found in jq.compile(program).input_text(sys.stdin.read()):
    print(found if raw else jq.compile('.').input_value(found).text())
"""


def with_real_request_id(line: str, cli: Cli) -> str:
    """The line with the id of a job that the sandbox knows, of which the list knows, too."""
    words = shlex.split(line)
    if "list-jobs" in words:
        cli("submit-t2i", "--model", "fal-ai/flux/dev", "--prompt", "A red car")
    if "--request-id" not in words:
        return line
    placeholder = words[words.index("--request-id") + 1]
    model = words[words.index("--model") + 1] if "--model" in words else "fal-ai/flux/dev"
    flags = ("--model", model, "--prompt", "A cat")
    image = ("--image-url", "https://example.com/a.png") if "video" in model else ()
    slow = ("--prompt", "[slow]") if " cancel " in line else ()
    verb = "submit-i2v" if image else "submit-t2i"
    done = cli(verb, *flags, *image, *slow)
    if placeholder == "last":
        return line
    return line.replace(placeholder, done.json["request_id"])


@pytest.mark.usefixtures("clock")  # by which no job ends before it is cancelled
@pytest.mark.parametrize("title", titled())
def test_the_command_line_runs(
    title: str, workshop: Path, cli: Cli, environment: dict[str, str]
) -> None:
    """As it stands there, by the path of the script."""
    line = with_real_request_id(titled()[title], cli)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=workshop,
        env={**environment, "PATH": f"{workshop}/bin:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout != "") == (0, True), done.stderr
    assert "null" not in done.stdout.splitlines()  # which jq prints of what is not there


def test_prompts_are_split_over_machines(
    fal: Sandbox, workshop: Path, environment: dict[str, str]
) -> None:
    """By GNU parallel; as one task of a Slurm array, which takes its part up again."""
    split, slurm = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    prompts = [f"Picture {number:02}" for number in range(16)]
    (workshop / "prompts.txt").write_text("\n".join(prompts) + "\n")
    env = {**environment, "PATH": f"{workshop}/bin:{environment['PATH']}"}
    for script in (split, slurm):
        subprocess.run(
            ["bash", "-c", script],
            cwd=workshop,
            env={**env, "SLURM_ARRAY_TASK_ID": "7"},
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
    lines = [
        json.loads(line)
        for part in workshop.glob("part-*.results")
        for line in part.read_text().splitlines()
    ]
    assert sorted(line["prompt"] for line in lines) == prompts
    assert len(fal.jobs) == len(prompts)
    assert len(list(workshop.glob("part-*/*.jpg"))) == len(prompts)


def test_the_documents_show_every_command() -> None:
    for name in skill_fal.COMMANDS:
        assert re.search(f"`{name}[` ]", README)
        assert re.search(f"`{name}[` ]", SKILL)


def test_the_readme_lists_every_flag() -> None:
    table = README.partition("## All flags")[2].partition("## ")[0]
    listed = set(re.findall("`(--[a-z0-9-]+)`", table))
    flags = {flag.name for command in skill_fal.COMMANDS.values() for flag in command.flags}
    assert listed == flags | {"--json", "--quiet"}


def test_the_documents_tell_every_exit_status() -> None:
    told = {int(status) for status in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert told == {int(status) for status in skill_fal.Exit}
    rows = re.findall(r"^\| ([\d, ]+) \|", SKILL, re.MULTILINE)
    agent = {int(status) for row in rows for status in row.split(",")}
    assert agent == told - {0, 141}


def test_ci_runs_the_readmes_test_command() -> None:
    assert f"\n{TEST_COMMAND}\n" in README
    assert f"\n{TEST_COMMAND}\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_python_example(workshop: Path, environment: dict[str, str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=workshop, env=environment, capture_output=True, text=True)
    assert re.fullmatch(r"https://\S+\.jpeg\n", done.stdout)
    assert done.stderr == ""


# --help


@pytest.mark.parametrize("name", skill_fal.COMMANDS)
def test_help_tells_all(name: str, cli: Cli) -> None:
    command = skill_fal.COMMANDS[name]
    done = cli(name, "--help", env={"FAL_KEY": ""})
    assert (done.status, done.stderr) == (0, "")
    assert command.help in done.stdout
    assert f"example:\n  python skill_fal.py {name}" in done.stdout
    for flag in command.flags:
        assert flag.help
        assert f"  {flag.name}" in done.stdout
        assert f"{flag.group}:" in done.stdout


def test_the_overview_lists_the_commands(cli: Cli) -> None:
    done = cli("--help")
    listed = re.findall(r"^  (\S+) +(\S.*)$", done.stdout, re.MULTILINE)
    assert {name: text for name, text in listed if name in skill_fal.COMMANDS} == {
        name: command.help.splitlines()[0] for name, command in skill_fal.COMMANDS.items()
    }
    assert len(skill_fal.COMMANDS) == 24


def test_version_is_printed(cli: Cli) -> None:
    assert cli("--version").stdout == f"skill_fal.py {skill_fal.__version__}\n"


# What is published


def test_the_dependencies_are_the_same_everywhere() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    (block,) = re.findall(r"^# /// script\n(.*?)^# ///$", source, re.MULTILINE | re.DOTALL)
    inline = tomllib.loads(re.sub(r"^# ?", "", block, flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert inline["dependencies"] == project["dependencies"] == listed
    assert inline["requires-python"] == project["requires-python"]
    assert {re.split("[<>=]", name)[0] for name in listed} == {"fal-client", "httpx", "Pillow"}
    assert all(">=" in name for name in listed)


def test_the_frontmatter() -> None:
    (head,) = re.findall(r"\A---\n(.*?)\n---\n", SKILL, re.DOTALL)
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert list(fields) == ["name", "description", "metadata", "user-invocable"]
    assert (fields["name"], fields["user-invocable"]) == ("fal", "true")
    assert json.loads(fields["metadata"]) == {
        "openclaw": {
            "emoji": "🎨",
            "homepage": "https://fal.ai",
            "primaryEnv": "FAL_KEY",
            "requires": {"env": ["FAL_KEY"]},
        }
    }
    description = fields["description"]
    assert description[:160].startswith("Use when")
    assert len(description) <= 1024
    assert not set("<>") & set(description)


def test_the_skill_can_be_read_whole() -> None:
    assert len(SKILL.splitlines()) < 300
    assert len(SKILL) / 3 < 5000  # English has about four characters a token, commands fewer


@pytest.mark.parametrize(
    ("argv", "package"),
    [
        (("status", "--model", "a/b", "--request-id", "x"), "fal-client"),
        (("list-models",), "httpx"),
        (("encode-image", "--file", "photo.jpg"), "Pillow"),
    ],
)
def test_a_missing_package_is_told_in_one_line(
    photo: Path, argv: tuple[str, ...], package: str
) -> None:
    """-S leaves out what is installed; links bring all back but the package."""
    module = {"fal-client": "fal_client", "httpx": "httpx", "Pillow": "PIL"}[package]
    libraries = photo.parent / "libraries"
    libraries.mkdir()
    for installed in Path(fal_client.__file__).parent.parent.iterdir():
        if installed.name != module:
            (libraries / installed.name).symlink_to(installed)
    done = subprocess.run(
        [sys.executable, "-S", str(SCRIPT), *argv],
        env={"FAL_KEY": "dummy-id:dummy-secret", "PYTHONPATH": str(libraries)},
        cwd=photo.parent,
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    message = f"{package} is not installed: pip install {package}"
    assert json.loads(line)["error"]["message"] == message


def test_nothing_is_written_beside_the_script(cli: Cli, tmp_path: Path) -> None:
    skill = tmp_path / "skill"
    skill.mkdir()
    (skill / "skill_fal.py").write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, str(skill / "skill_fal.py"), "list-t2i"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert [path.name for path in skill.iterdir()] == ["skill_fal.py"]
