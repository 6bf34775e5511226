"""Two replicas under Ray, each a process: the bytes of one, pages to their own, a kill.

Needs `ray[serve]`, and takes about a minute: marked `ray`.
"""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

import pulse_edge
from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION, SAMPLE_PAGE

from support.paths import ROOT

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

EXAMPLE = ROOT / "examples" / "ray_serve.py"
STARTS = 3  # attempts; Ray gives its processes 30 s, which a busy machine may not keep
RETURNS = 15.0  # seconds after which a killed replica's pages must be answered again
PAGES = 20
SHORT = {"max_tokens": 48, "temperature": 0}


def page(number: int) -> bytes:
    """The sample page, smaller, with a number in its corner."""
    image = Image.open(SAMPLE_PAGE).convert("RGB").resize((550, 425))
    ImageDraw.Draw(image).text((5, 5), str(number), fill=(0, 0, 0))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class FleetProcess:
    """`examples/ray_serve.py`, and requests to it."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._home = home
        search = os.pathsep.join(str(ROOT / folder) for folder in (".", "export"))
        environment = {"HOME": str(home), "PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, EXAMPLE, "--cpus", "0.5", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*map(str, command)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)

    def wait(self) -> None:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "replicas at" in line:
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise AssertionError("".join(lines))

    def replicas(self) -> list[int]:
        """Processes of the replicas: those of this fleet have its home."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                named = b"PageReplica" in (folder / "cmdline").read_bytes()
                ours = f"HOME={self._home}\0".encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if named and ours:
                found.append(int(folder.name))
        return found

    def listening(self) -> set[str]:
        """Addresses that processes of this fleet listen on, as /proc/net has them."""
        sockets = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"HOME={self._home}\0".encode() in (folder / "environ").read_bytes():
                    links = [os.readlink(path) for path in (folder / "fd").iterdir()]
                    sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
            except OSError:
                continue
        rows = []
        for name in ("tcp", "tcp6"):
            rows += [
                line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            ]
        return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}

    def body(self, file: bytes, question: str, **more: Any) -> dict[str, Any]:
        url = "data:image/png;base64," + base64.b64encode(file).decode()
        image = {"type": "image_url", "image_url": {"url": url}}
        content = [{"type": "text", "text": question}, image]
        return {"model": "pulse-nano", "messages": [{"role": "user", "content": content}], **more}

    def ask(self, file: bytes, question: str, **more: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=self.body(file, question, **more))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    for attempt in range(STARTS):
        started = FleetProcess(tmp_path_factory.mktemp("home"))
        try:
            started.wait()
            break
        except AssertionError as error:
            started.process.wait()
            if attempt == STARTS - 1 or "Ray did not start" not in str(error):
                raise
    try:
        yield started
    finally:
        started.process.send_signal(signal.SIGTERM)
        try:
            started.process.wait(60)
        finally:
            started.process.kill()


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def test_two_replicas_answer_as_one_model_and_keep_their_pages(fleet: FleetProcess) -> None:
    model = pulse_edge.load(threads=1)
    cached = 0
    for number in range(PAGES):
        file = page(number)
        for question in (RATE_QUESTION, REPORT_QUESTION):
            answer = model.ask(file, question, max_new_tokens=48)
            response = fleet.ask(file, question, **SHORT)
            assert text(response) == answer.text
        # The second question of a page finds it, or it would have been prefilled again.
        details = response.json()["usage"]["prompt_tokens_details"]
        cached += details["cached_tokens"] >= answer.usage.image_tokens
    assert cached >= 0.95 * PAGES
    assert len(fleet.replicas()) == 2


def test_a_page_that_was_sent_ahead_is_found_by_its_id(fleet: FleetProcess) -> None:
    for number in range(100, 106):
        sent = fleet.client.post("/v1/pages", content=page(number))
        assert sent.status_code == 201, sent.text
        name = sent.json()["id"]
        assert fleet.client.get(f"/v1/pages/{name}").status_code == 200
        form = {"page": name, "question": RATE_QUESTION}
        asked = fleet.client.post("/v1/ecg", files={key: (None, v) for key, v in form.items()})
        assert asked.status_code == 200, asked.text
        assert fleet.client.delete(f"/v1/pages/{name}").status_code == 200


def test_a_stream_has_the_bytes_of_the_answer(fleet: FleetProcess) -> None:
    body = fleet.body(page(0), REPORT_QUESTION, stream=True, **SHORT)
    with fleet.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    pieces = [httpx.Response(200, text=line[6:]).json()["choices"] for line in lines[:-1]]
    said = "".join(choice["delta"].get("content") or "" for part in pieces for choice in part)
    assert said == text(fleet.ask(page(0), REPORT_QUESTION, **SHORT))


def test_ray_listens_on_loopback_but_for_its_replicas(fleet: FleetProcess) -> None:
    """Each replica has one port for Ray's own calls, on every address; docs/server.md says so."""
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert fleet.listening() - loopback <= {"0" * 32}
    assert fleet.listening() & loopback


def test_no_text_of_a_request_is_in_rays_logs(fleet: FleetProcess) -> None:
    """Also when a request is refused."""
    planted = "a planted secret of Jane Doe"
    fleet.ask(page(0), planted, **SHORT)
    fleet.ask(page(0), planted, n=7, temperature="hot")
    fleet.ask(b"no image", planted)
    session = Path("/tmp/ray/session_latest").resolve()
    files = [path for path in session.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert planted.encode() not in path.read_bytes(), path


class Traffic:
    """Clients that ask one question after the other until `stop`."""

    def __init__(self, fleet: FleetProcess, clients: int) -> None:
        self.responses: list[httpx.Response | Exception] = []
        self._fleet = fleet
        self._stopped = threading.Event()
        files = [page(200 + number) for number in range(clients)]
        self._threads = [threading.Thread(target=self._run, args=(file,)) for file in files]
        for thread in self._threads:
            thread.start()

    def _run(self, file: bytes) -> None:
        while not self._stopped.is_set():
            try:
                response = self._fleet.ask(file, REPORT_QUESTION, max_tokens=400)
                self.responses.append(response)
            except httpx.HTTPError as error:
                self.responses.append(error)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def kill(processes: list[int]) -> float:
    """Kill them; returns the time."""
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return time.monotonic()


def test_a_killed_replica_fails_its_requests_and_returns(fleet: FleetProcess) -> None:
    before = fleet.replicas()
    traffic = Traffic(fleet, clients=6)
    while len(traffic.responses) < 6:  # all clients are under way
        time.sleep(0.01)
    killed = kill(before)
    traffic.stop()
    statuses = [r if isinstance(r, Exception) else r.status_code for r in traffic.responses]
    assert set(statuses) == {200, 503}, statuses
    lost = [r for r in traffic.responses if isinstance(r, httpx.Response) and r.status_code == 503]
    assert {response.headers["x-should-retry"] for response in lost} == {"true"}
    while fleet.ask(page(0), RATE_QUESTION, **SHORT).status_code != 200:
        assert time.monotonic() - killed < RETURNS
        time.sleep(0.2)
    print(f"{len(lost)} requests lost, back after {time.monotonic() - killed:.1f} s")
    assert time.monotonic() - killed < RETURNS
    assert not set(fleet.replicas()) & set(before)


def test_a_stream_of_a_killed_replica_ends_with_an_error(fleet: FleetProcess) -> None:
    body = fleet.body(page(300), REPORT_QUESTION, stream=True, max_tokens=1000, stop=["~"])
    lines: list[str] = []
    with fleet.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        for line in stream.iter_lines():
            if not lines:
                killed = kill(fleet.replicas())
            lines += [line] if line else []
    assert time.monotonic() - killed < RETURNS
    assert "replica_lost" in lines[-1] or lines[-1] == "data: [DONE]"  # it was done already
