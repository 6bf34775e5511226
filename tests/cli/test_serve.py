"""`pulse-edge serve` as a process: configuration, signals, refusals."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="serving needs pulse-edge[server]")
import httpx

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli import main

from support.command import SECONDS, command, ended, environment_with, started

MESSAGE = {"messages": [{"role": "user", "content": "What is the rate?"}], "max_tokens": 3}


@contextmanager
def serving(
    *arguments: object, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A process and a client of it."""
    process = started("serve", "--port", 0, "--threads", 1, *arguments, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.fullmatch(r"listening on (http://\S+)\n", line)
        assert address, (line, process.stderr and process.stderr.read())
        with httpx.Client(base_url=address[1], timeout=SECONDS, trust_env=False) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


def test_it_serves_and_ends_on_sigterm() -> None:
    with serving() as (process, client):
        assert client.get("/health").status_code == 200
        answer = client.post("/v1/chat/completions", json=MESSAGE).json()
        assert answer["choices"][0]["message"]["content"]
        code, err = ended(process, signal.SIGTERM)
    assert code == 143
    lines = err.splitlines()
    assert lines[-1] == "terminated"
    assert "Traceback" not in err
    assert sum('"event": "request"' in line for line in lines) == 2
    assert "rate" not in err


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    with serving(env=environment_with(tmp_path, "")) as (process, client):
        client.get("/health")
        code, err = ended(process, signal.SIGINT)
    assert (code, err.splitlines()[-1]) == (130, "interrupted")


STUCK = """
import time
from pulse_edge import health
from pulse_edge.page.encoder import PageEncoder

health.LEAST_S = health.UNKNOWN_S = 0.2
health.TIMES_USUAL = 0
PageEncoder.encode = lambda *_, **__: time.sleep(600)
"""


def test_a_stuck_engine_is_exit_code_70(tmp_path: Path) -> None:
    """Though a thread hangs and another client waits."""
    url = f"data:image/png;base64,{base64.b64encode(SAMPLE_PAGE.read_bytes()).decode()}"
    content = [
        {"type": "text", "text": "What is the rate?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    record = {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
    env = environment_with(tmp_path, STUCK)
    with serving("--stuck-seconds", 0.5, env=env) as (process, client):
        with suppress(httpx.HTTPError):  # the connection may end before a status
            assert client.post("/v1/chat/completions", json=record).status_code == 500
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 70, err
    lines = err.splitlines()
    assert lines[-1].startswith("error: a call of the engine has taken ")
    assert "restart the process" in lines[-1]
    assert any('"event": "stuck"' in line for line in lines)
    assert "Traceback" not in err
    assert out == ""


def test_a_file_of_settings(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    keys.chmod(0o600)
    config = tmp_path / "server.toml"
    config.write_text(
        f'name = "ecg"\nqueue = 3\napi_key_file = "{keys}"\ncontext = 512\nignore_system = true\n'
    )
    with serving("--config", config, "--name", "cart-model") as (_, client):
        assert client.get("/v1/models").status_code == 401
        client.headers["authorization"] = "Bearer 0123456789abcdef"
        (model,) = client.get("/v1/models").json()["data"]
        assert model["id"] == "cart-model", "the command line goes first"
        system = [{"role": "system", "content": "Be brief."}, *MESSAGE["messages"]]  # type: ignore[misc]
        answer = client.post("/v1/chat/completions", json=MESSAGE | {"messages": system}).json()
        assert len(answer["pulse_edge"]["warnings"]) == 1
        assert answer["pulse_edge"]["provenance"]["engine"]["context"] == 512


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prot = 1", "unknown key 'prot'"),
        ("config = 'x'", "unknown key 'config'"),
        ("port = [1]", "port must be"),
        ("[server]\nport = 1", "unknown key 'server'"),
        ("port = ", "not valid TOML"),
        ("port = 99999", "port is 99999"),
        ("port = 'http'", "'http' is not a valid integer"),
        ("host = '0.0.0.0'", "--api-key-file"),
        ("api_key_file = '/nowhere/keys'", "no such file"),
    ],
)
def test_a_file_of_settings_that_is_wrong(
    tmp_path: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(text)
    refused(capsys, ("--config", str(config)), 2, problem)


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("--host", "0.0.0.0"), 2, "--api-key-file"),
        (("--config", "/nowhere/x.toml"), 2, "no such file"),
        (("--queue", "-1"), 2, "queue is -1"),
        (("--port", "0", "--model", "/nowhere"), 4, "/nowhere"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, arguments, code, problem)


def refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, problem: str
) -> None:
    """The command ends with a code and a line."""
    with pytest.raises(SystemExit) as end:
        main(["serve", *arguments])
    err = capsys.readouterr().err
    assert end.value.code == code
    assert problem in err
    assert len(err.splitlines()) == 1


def test_without_the_extra(tmp_path: Path) -> None:
    script = "import sys\nsys.modules['starlette'] = None\n"
    done = command("serve", env=environment_with(tmp_path, script))
    assert done.returncode == 1
    assert "pip install 'pulse-edge[server]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
