"""Everything that a server can be asked, at random and from several clients, also what is wrong.

    PYTHONPATH=tests python -m support.served_mixed --minutes 30 [BUNDLE]

The server is a process of its own, whose memory is measured. A whole greedy answer is the one that
a fresh model gives, and a part is its beginning. Every request has an end that it may have.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

import pulse_edge
from benchmarks.serve.spawned import spawned_server

from support.mixed import GROWTH, HUNG, growth, tiny_bundle
from support.requests import Q1, Q2, encoded, page
from support.served import about, body, chunks, text_of

ROUTE = "/v1/chat/completions"
TOKENS = 6
LONG = 60
SHORTEST, LONGEST = 0.0005, 0.3  # seconds, of cancels, hang-ups and deadlines
PANEL = b"""
schema = "pulse-edge/panel/1"
name = "soak"
title = "Soak"

[[questions]]
id = "normal"
ask = "Is this ECG normal?"
form = "plain"
options = ["no", "yes"]
replies = ["no", "yes"]
scored = true

[[questions]]
id = "rate"
ask = "What is the rate?"
max_new_tokens = 6
"""


class ServedMixed:
    """Random requests to one server, whose answers are known from a fresh model.

    Args:
        url: of the server.
        model: of the server's bundle, which gives the answers.

    Attributes:
        done: requests that ended, by name and outcome.
    """

    def __init__(self, url: str, model: pulse_edge.Model) -> None:
        self.url = url
        self.done: Counter[str] = Counter()
        forms = ("PNG", "JPEG", "WEBP")
        self._pages = [None, *(encoded(page(n), form) for n, form in enumerate(forms))]
        self._texts = {
            (i, question): model.ask(image, question, max_new_tokens=LONG).text
            for i, image in enumerate(self._pages)
            for question in (Q1, Q2)
        }
        self._short = {
            (i, question): model.ask(image, question, max_new_tokens=TOKENS).text
            for i, image in enumerate(self._pages)
            for question in (Q1, Q2)
        }

    @property
    def answers(self) -> list[tuple[Any, str, str]]:
        """Pages, questions and the texts of their answers."""
        pairs = self._short.items()
        return [(self._pages[i], question, text) for (i, question), text in pairs]

    def run(self, seed: int, operations: int) -> None:
        """Run operations, one after the other. For several threads at a time."""
        rng = random.Random(seed)
        kinds = (
            self.ask,
            self.ask,
            self.stream,
            self.stream,
            self.hang_up,
            self.half_a_body,
            self.cancel,
            self.deadline,
            self.panel,
            self.look,
            self.malformed,
            self.malformed,
            self.figures,
        )
        with httpx.Client(base_url=self.url, timeout=HUNG, trust_env=False) as client:
            for _ in range(operations):
                kind = rng.choice(kinds)
                outcome = kind(client, rng)
                self.done[f"{kind.__name__}: {outcome}"] += 1

    def ask(self, client: httpx.Client, rng: random.Random) -> str:
        i, question = self._choice(rng)
        response = client.post(ROUTE, json=self._body(i, question))
        if _refused(response, 429):
            return "full"
        assert response.status_code == 200, response.text
        text = response.json()["choices"][0]["message"]["content"]
        assert text == self._short[i, question]
        return "whole"

    def stream(self, client: httpx.Client, rng: random.Random) -> str:
        i, question = self._choice(rng)
        more = {"logprobs": True, "top_logprobs": 3} if rng.random() < 0.3 else {}
        record = self._body(i, question, stream=True, **more)
        with client.stream("POST", ROUTE, json=record) as response:
            if response.status_code != 200:
                response.read()
                assert _refused(response, 429), response.text
                return "full"
            records = chunks([line for line in response.iter_lines() if line])
        if "error" in records[-1]:  # another request took the place while the page was decoded
            assert records[-1]["error"]["code"] == "queue_full"
            return "full"
        assert text_of(records).strip() == self._short[i, question]
        return "whole"

    def hang_up(self, client: httpx.Client, rng: random.Random) -> str:
        """Leave at some moment, with a stream or without one."""
        i, question = self._choice(rng)
        streamed = rng.random() < 0.6
        record = self._body(i, question, stream=streamed, max_tokens=LONG)
        with self._connected() as connection:
            connection.sendall(_posted(json.dumps(record).encode()))
            connection.settimeout(_log_uniform(rng))
            try:
                received = connection.recv(1 << 16)
            except TimeoutError:
                return "left before an answer"
        return "left after bytes" if received else "closed"

    def half_a_body(self, client: httpx.Client, rng: random.Random) -> str:
        data = _posted(json.dumps(self._body(1, Q1)).encode())
        with self._connected() as connection:
            connection.sendall(data[: rng.randrange(1, len(data))])
            if rng.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(HUNG)
                while connection.recv(1 << 16):
                    continue
        return "left"

    def cancel(self, client: httpx.Client, rng: random.Random) -> str:
        i, question = self._choice(rng)
        name = f"soak-{rng.getrandbits(60):x}"
        after = _log_uniform(rng)

        def end() -> None:
            with httpx.Client(base_url=self.url, timeout=HUNG, trust_env=False) as other:
                assert other.delete(f"/v1/requests/{name}").status_code in (200, 404)

        timer = threading.Timer(after, end)
        timer.start()
        try:
            record = self._body(i, question, max_tokens=LONG)
            response = client.post(ROUTE, json=record, headers={"x-request-id": name})
        finally:
            timer.join()
        if response.status_code == 200:
            answer = response.json()
            self._begins(answer["choices"][0]["message"]["content"], i, question)
            return str(answer["pulse_edge"]["finish_reason"])
        assert _refused(response, 409, 429), response.text
        return str(response.json()["error"]["code"])

    def deadline(self, client: httpx.Client, rng: random.Random) -> str:
        i, question = self._choice(rng)
        more = {"deadline_s": _log_uniform(rng), "best_effort": rng.random() < 0.7}
        priority = rng.choice(("interactive", "background"))
        response = client.post(ROUTE, json=self._body(i, question, priority=priority, **more))
        if _refused(response, 422, 429):
            return str(response.json()["error"]["code"])
        assert response.status_code == 200, response.text
        answer = response.json()
        text = answer["choices"][0]["message"]["content"]
        if answer["pulse_edge"]["finish_reason"] == "deadline":
            self._begins(text, i, question)
            return "cut off"
        assert text == self._short[i, question]
        return "whole"

    def panel(self, client: httpx.Client, rng: random.Random) -> str:
        i = rng.randrange(1, len(self._pages))
        files: dict[str, Any] = {"file": ("page", self._pages[i]), "panel": ("panel", PANEL)}
        if rng.random() < 0.5:
            files["deadline_s"] = (None, str(_log_uniform(rng)))
        response = client.post("/v1/ecg", files=files)
        if _refused(response, 422, 429):
            return str(response.json()["error"]["code"])
        assert response.status_code == 200, response.text
        result = response.json()
        answers = {each["id"]: each for each in result["panel"]["questions"]}
        skipped = result["timing"]["skipped"]
        names = {"normal", "rate"}
        assert names - answers.keys() <= set(skipped)
        assert result["timing"]["skip_reasons"].keys() == set(skipped)
        rate = answers.get("rate")
        if rate is not None and rate["finish_reason"] != "deadline":
            assert rate["text"] == self._short[i, Q1]
        return "cut off" if skipped else "whole"

    def look(self, client: httpx.Client, rng: random.Random) -> str:
        i = rng.randrange(1, len(self._pages))
        wants = str(rng.random() < 0.3).lower()
        files: dict[str, Any] = {"file": ("page", self._pages[i]), "picture": (None, wants)}
        response = client.post("/v1/pages", files=files)
        if _refused(response, 429):
            return "full"
        assert response.status_code == 201, response.text
        name = response.json()["id"]
        assert client.get(f"/v1/pages/{name}").status_code in (200, 404)
        if rng.random() < 0.3:
            assert client.delete(f"/v1/pages/{name}").status_code in (200, 404)
            return "deleted"
        question: dict[str, Any] = {
            "page": (None, name),
            "question": (None, Q2),
            "max_tokens": (None, str(TOKENS)),
        }
        response = client.post("/v1/ecg", files=question)
        if _refused(response, 404, 429):
            return "asked in vain"
        assert response.status_code == 200, response.text
        assert response.json()["text"] == self._short[i, Q2]
        return "asked"

    def malformed(self, client: httpx.Client, rng: random.Random) -> str:
        """A body with a hole, other bytes, a doubled piece or an end that is missing."""
        whole = json.dumps(self._body(rng.randrange(len(self._pages)), Q1)).encode()
        data = bytearray(whole)
        at = rng.randrange(len(data))
        length = rng.randrange(1, 40)
        way = rng.randrange(4)
        if way == 0:
            del data[at : at + length]
        elif way == 1:
            data[at : at + length] = rng.randbytes(length)
        elif way == 2:
            data[at:at] = data[at : at + length]
        else:
            del data[at:]
        path = rng.choice((ROUTE, ROUTE, ROUTE, "/v1/ecg", "/v1/pages"))
        kind = rng.choice(("application/json", "multipart/form-data; boundary=x", "text/plain"))
        response = client.post(path, content=bytes(data), headers={"content-type": kind})
        # Damage within the image or the question may leave a request that can be answered.
        assert response.status_code < 500, response.text
        return "answered" if response.status_code < 400 else f"{response.status_code}"

    def figures(self, client: httpx.Client, rng: random.Random) -> str:
        path = rng.choice(("/health", "/ready", "/metrics", "/v1/models", "/"))
        assert client.get(path).status_code == 200
        return "told"

    def settled(self) -> bool:
        """Whether no request is under way any more; waits for those that end."""
        end = time.monotonic() + HUNG
        with httpx.Client(base_url=self.url, timeout=HUNG, trust_env=False) as client:
            while time.monotonic() < end:
                record = client.get("/health").json()
                if not record["under_way"] and not record["queued"] and not record["running_s"]:
                    return bool(record["healthy"])
                time.sleep(0.005)
        return False

    def resident_bytes(self) -> int:
        """Memory of the server's process, as it says itself."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        name = "process_resident_memory_bytes "
        return int(float(next(line for line in lines if line.startswith(name)).split()[1]))

    def _choice(self, rng: random.Random) -> tuple[int, str]:
        return rng.randrange(len(self._pages)), rng.choice((Q1, Q2))

    def _body(self, i: int, question: str, **fields: Any) -> dict[str, Any]:
        image = self._pages[i]
        content = question if image is None else about(image, question)
        return body(content, **{"max_tokens": TOKENS} | fields)

    def _begins(self, text: str, i: int, question: str) -> None:
        assert self._texts[i, question].startswith(text.rstrip("\ufffd"))

    def _connected(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=HUNG)


def _refused(response: httpx.Response, *statuses: int) -> bool:
    if response.status_code not in statuses:
        return False
    assert response.json()["error"]["code"]
    assert response.status_code != 429 or int(response.headers["retry-after"]) >= 1
    return True


def _posted(data: bytes) -> bytes:
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _log_uniform(rng: random.Random) -> float:
    return math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST)))


def run_round(mixed: ServedMixed, seed: int, threads: int, operations: int) -> None:
    """Some operations of every client; afterwards no request is left.

    Raises:
        AssertionError: an answer was wrong, a client hung, or a request is left.
    """
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(mixed.run, seed * threads + n, operations) for n in range(threads)]
        _, hung = wait(runs, 10 * HUNG)
        assert not hung, f"{len(hung)} clients hang"
    for run in runs:
        run.result()
    assert mixed.settled(), "a request is left"


def soak(
    mixed: ServedMixed, minutes: float, threads: int, operations: int
) -> list[tuple[float, int]]:
    """Rounds for some minutes; seconds and resident bytes of the server after each."""
    start = time.monotonic()
    samples: list[tuple[float, int]] = []
    while time.monotonic() - start < 60 * minutes:
        run_round(mixed, len(samples), threads, operations)
        samples.append((time.monotonic() - start, mixed.resident_bytes()))
        if len(samples) % 10 == 1:
            seconds, size = samples[-1]
            print(f"{seconds:7.0f} s  {size / 1e6:8.2f} MB  {mixed.done.total()}", flush=True)
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="default: a tiny one, made here")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--operations", type=int, default=20, help="of a client and round")
    parser.add_argument("--queue", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or tiny_bundle(Path(folder))
        model = pulse_edge.load(bundle, threads=1)
        # Damage may leave a page that can be read, and each such page would be kept.
        with spawned_server(str(bundle), 1, options.queue, kept_mib=1) as url:
            mixed = ServedMixed(url, model)
            samples = soak(mixed, options.minutes, options.threads, options.operations)
    grown = growth(samples, 6 * options.minutes)  # a tenth of the time is warm-up
    record = {
        "seconds": samples[-1][0],
        "requests": mixed.done.total(),
        "growth_bytes": grown,
        "done": dict(sorted(mixed.done.items())),
    }
    print(json.dumps(record, indent=1))
    return int(grown >= GROWTH)


if __name__ == "__main__":
    sys.exit(main())
