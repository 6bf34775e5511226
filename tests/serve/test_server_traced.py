"""A server at work, seen by strace: it listens on loopback, connects to nobody, writes nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from support.traced import trace, why_no_trace

# A server and its client in one process. The client connects by itself; the server must not.
SCRIPT = """
import http.client, json, sys, threading, time
import pulse_edge
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.listener import open_listener
from pulse_edge.serve.server import build_server

ROUTE = "/v1/chat/completions"
config = ServeConfig(port=0, drain_seconds=0)
listener = open_listener(config)
port = listener.getsockname()[1]
server = build_server(pulse_edge.load(threads=1), config)
thread = threading.Thread(target=server.run, args=([listener],))
thread.start()
while not server.started:
    time.sleep(0.01)

def ask(route, body, kind="application/json"):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("POST", route, body, {"content-type": kind})
    return client.getresponse().read()

page = SAMPLE_PAGE.read_bytes()
part = b'--x\\r\\nContent-Disposition: form-data; name="%b"; filename="a"\\r\\n\\r\\n%b\\r\\n'
form = part % (b"file", page) + b"--x--\\r\\n"
image = {"type": "image_url", "image_url": {"url": "https://192.0.2.1/page.png"}}
text = {"type": "text", "text": "Is it normal?"}
answers = [
    ask("/v1/pages", page, "image/png"),
    ask("/v1/ecg", form, "multipart/form-data; boundary=x"),
    ask(ROUTE, json.dumps({"messages": [{"role": "user", "content": "a"}]})),
    ask(ROUTE, json.dumps({"messages": [{"role": "user", "content": [image, text]}]})),
]
server.should_exit = True
thread.join()
print(port, len(answers), b'"schema"' in answers[1], b"unsupported_image_url" in answers[3])
"""


@pytest.mark.skipif(bool(why_no_trace()), reason=why_no_trace())
def test_it_connects_to_nobody_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUSERBASE": str(folder),
        "HOME": str(folder),
        "TMPDIR": str(tmp_path / "tmp"),
        "PULSE_EDGE_STATE": "off",
    }
    traced = trace([sys.executable, "-c", SCRIPT], tmp_path / "trace", environment, folder)
    assert traced.code == 0, traced.stderr
    port, *outcome = traced.stdout.split()
    assert outcome == ["4", "True", "True"]
    network = traced.network()
    connects = [line for line in network if re.search(r"\b(connect|sendto|sendmsg)\(", line)]
    clients = [line for line in connects if f"htons({port})" in line and '"127.0.0.1"' in line]
    # What else is sent goes over connections that clients have made.
    others = [line for line in connects if line not in clients and "TCP:[127.0.0.1" not in line]
    assert len(clients) == 4
    assert others == []
    sockets = [line for line in network if "socket(" in line and line not in connects]
    assert len(sockets) == 5, "the listener and the clients' own"
    assert traced.writes_outside([]) == []
