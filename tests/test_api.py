"""The importable API: names, keywords, event loops, and which fal-client function is called."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, ROOT
from sandbox import Reply, Sandbox

import skill_fal

FLUX = "fal-ai/flux/dev"

NAMES = """
    fetch_models TEXT_TO_IMAGE_MODELS IMAGE_TO_VIDEO_MODELS _build_t2i_arguments
    _build_i2v_arguments submit_job subscribe_job run_job stream_job check_status fetch_result
    cancel_job upload_file upload_image upload_raw encode_file encode_image encode_raw
    realtime_session batch_text_to_image batch_image_to_video _maybe_upload
"""


@pytest.fixture
def fal_env(fal: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sandbox:
    """The sandbox for code that runs in this process."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in fal.env.items():
        monkeypatch.setenv(name, value)
    return fal


def python(code: str, fal: Sandbox, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), **fal.env}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize("name", NAMES.split())
def test_the_name_is_there(name: str) -> None:
    assert getattr(skill_fal, name)


def test_arguments_are_built_from_keywords() -> None:
    assert skill_fal._build_t2i_arguments(
        prompt="A cat",
        negative_prompt="dogs",
        width=512,
        height=256,
        num_images=2,
        seed=0,
        guidance_scale=7.5,
        num_inference_steps=30,
        extra_json={"scheduler": "euler"},
    ) == {
        "prompt": "A cat",
        "negative_prompt": "dogs",
        "image_size": {"width": 512, "height": 256},
        "num_images": 2,
        "seed": 0,
        "guidance_scale": 7.5,
        "num_inference_steps": 30,
        "scheduler": "euler",
    }
    assert skill_fal._build_i2v_arguments(
        image_url="a.png", prompt="It rains", duration=5.0, extra_json={"duration": "5"}
    ) == {"image_url": "a.png", "prompt": "It rains", "duration": "5"}


def test_importing_does_nothing(fal: Sandbox, tmp_path: Path) -> None:
    code = """
import sys, threading
before = set(sys.modules)
import skill_fal
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded & {"fal_client", "httpx", "asyncio", "PIL", "logging"}))
print(threading.active_count())
"""
    done = python(code, fal, tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n1\n", "")
    assert list(tmp_path.iterdir()) == []


def test_several_event_loops_in_one_process(fal: Sandbox, tmp_path: Path) -> None:
    code = f"""
import asyncio, skill_fal

async def two():
    jobs = [skill_fal.subscribe_job("{FLUX}", {{"prompt": str(n)}}) for n in range(2)]
    return await asyncio.gather(*jobs)

async def streamed():
    return [event async for event in skill_fal.stream_job("{FLUX}", {{"prompt": "x"}})]

for _ in range(3):
    print(len(asyncio.run(two())), len(asyncio.run(streamed())) > 1)
"""
    done = python(code, fal, tmp_path)
    assert (done.stdout, done.stderr) == ("2 True\n" * 3, "")
    assert len(fal.jobs) == 6


def test_main_can_be_called_again_and_again(
    fal_env: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["submit-t2i", "--model", FLUX, "--prompt", "A cat", "--quiet"]
    assert [skill_fal.main(argv) for _ in range(3)] == [0, 0, 0]
    assert len(fal_env.jobs) == 3
    assert capsys.readouterr().err == ""


def test_errors_are_failures(fal_env: Sandbox) -> None:
    with pytest.raises(skill_fal.Failure) as caught:
        asyncio.run(skill_fal.subscribe_job(FLUX, {"prompt": "[nsfw]"}))
    assert caught.value.exit == skill_fal.Exit.FAILED
    assert caught.value.request_id in fal_env.jobs


def test_an_operation_keeps_its_time_limit(fal_env: Sandbox) -> None:
    with pytest.raises(skill_fal.Failure) as caught:
        asyncio.run(skill_fal.run_job(FLUX, {"prompt": "[slow]"}, client_timeout=0.5))
    assert caught.value.exit == skill_fal.Exit.TIMEOUT


def test_an_importer_gets_no_progress(fal_env: Sandbox, tmp_path: Path) -> None:
    code = f"""
import asyncio, skill_fal
asyncio.run(skill_fal.subscribe_job("{FLUX}", {{"prompt": "A cat"}}, priority="rush"))
"""
    done = python(code, fal_env, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CALLS = {
    "submit_async": ("submit-t2i", "--model", FLUX, "--prompt", "A cat"),
    "subscribe_async": ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat"),
    "run_async": ("run-t2i", "--model", FLUX, "--prompt", "A cat"),
    "stream_async": ("stream-t2i", "--model", FLUX, "--prompt", "A cat"),
    "status_async": ("status", "--model", FLUX, "--request-id", "x"),
    "result_async": ("result", "--model", FLUX, "--request-id", "x"),
    "cancel_async": ("cancel", "--model", FLUX, "--request-id", "x"),
    "upload_async": ("upload-raw", "--file", "photo.jpg", "--content-type", "a/b"),
    "upload_file_async": ("upload-file", "--file", "photo.jpg"),
    "upload_image_async": ("upload-image", "--file", "photo.jpg"),
    "encode": ("encode-raw", "--file", "photo.jpg", "--content-type", "a/b"),
    "encode_file": ("encode-file", "--file", "photo.jpg"),
    "encode_image": ("encode-image", "--file", "photo.jpg"),
    "realtime_async": ("realtime", "--model", FLUX, "--arguments-json", '{"prompt": "A cat"}'),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_command_calls_the_fal_client_function(
    name: str,
    fal_env: Sandbox,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The function is looked up on the module when it is called, so that it can be traced."""
    import fal_client

    calls: list[str] = []
    original = getattr(fal_client, name)

    def traced(*args: Any, **keywords: Any) -> Any:
        calls.append(name)
        return original(*args, **keywords)

    monkeypatch.setattr(fal_client, name, traced)
    monkeypatch.chdir(photo.parent)
    if "x" in CALLS[name]:
        completed: Any = {"status": "COMPLETED", "logs": None, "metrics": {}}
        fal_env.on("GET", "queue.fal.run", "*/status", fal_env.always(Reply(200, json=completed)))
        fal_env.on("GET", "queue.fal.run", "*/x", Reply(200, json={"done": True}))
        fal_env.on("PUT", "queue.fal.run", "*/cancel", Reply(202, json={}))
    assert skill_fal.main(CALLS[name]) == 0
    assert calls == [name]


def test_subscribe_passes_its_callback_on(
    fal_env: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fal_client

    keywords: dict[str, Any] = {}
    original = fal_client.subscribe_async

    async def traced(*args: Any, **given: Any) -> Any:
        keywords.update(given)
        return await original(*args, **given)

    monkeypatch.setattr(fal_client, "subscribe_async", traced)
    argv = ["subscribe-t2i", "--model", FLUX, "--prompt", "A cat"]
    assert skill_fal.main([*argv, "--quiet"]) == 0
    assert callable(keywords["on_queue_update"])
    assert keywords["with_logs"] is True


def test_uploads_do_not_fall_back(fal_env: Sandbox, photo: Path) -> None:
    """fal-client's second try goes to a route that fal has closed, and hides the first error."""
    fal_env.on("POST", "v3.fal.media", "*", Reply(403, json={"detail": "no example today"}))
    with pytest.raises(skill_fal.Failure, match="no example today"):
        asyncio.run(skill_fal.upload_file(str(photo)))
    assert not [request for request in fal_env.requests if "initiate" in request.path]
