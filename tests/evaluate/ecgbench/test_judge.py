"""The judge: one URL, prompts of the user, judgements that a kill does not lose."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.judge import judge_markdown, judge_run
from pulse_edge.evaluate.ecgbench.judge_client import JudgeClient
from pulse_edge.evaluate.ecgbench.judge_prompts import read_prompts
from pulse_edge.evaluate.ecgbench.judgements import read_judgement

from support.ecgbench_texts import write_bench, write_lines

REPORT = "ptb-test-report"


class Judge:
    """A server on this machine that scores what it is told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.replies: list[str | int] = []
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge.asked.append(body)
                judge.keys.append(self.headers["Authorization"])
                reply = judge.replies.pop(0) if judge.replies else scored(Diagnosis=5)
                self.send_response(reply if isinstance(reply, int) else 200)
                if reply == 302:
                    self.send_header("Location", judge.url + "/elsewhere")
                self.end_headers()
                message = {"choices": [{"message": {"content": reply}}]}
                self.wfile.write(json.dumps(message).encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.fixture
def judge() -> Iterator[Judge]:
    judge = Judge()
    thread = threading.Thread(target=judge.server.serve_forever, args=(0.01,))
    thread.start()
    yield judge
    judge.server.shutdown()
    judge.server.server_close()
    thread.join()


def scored(**scores: float) -> str:
    return json.dumps(
        {name: {"Score": score, "Explanation": "."} for name, score in scores.items()}
    )


def made(folder: Path, count: int = 3, prompt: str = "Judge.") -> dict[str, Any]:
    """Arguments of `judge_run` for reports."""
    rows = [
        {"id": f"ptb-{number}-0", "prompt": "Report.", "gold": f"gold {number}", "text": "said"}
        for number in range(count)
    ]
    rows[0]["gold"] = "Sure, please provide the ECG report that you would like translated."
    lines = [{"question_id": row["id"], "text": row["text"]} for row in rows]
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps({"report": prompt, "arena": "Both turns."}), encoding="utf-8")
    return {
        "run": write_lines(folder / "run", REPORT, lines),
        "bench": write_bench(folder / "bench", {REPORT: rows}),
        "prompts": prompts,
    }


def test_reports_are_judged_and_averaged_over_all_aspects(judge: Judge, tmp_path: Path) -> None:
    judge.replies = [
        scored(Diagnosis=0, Rhythm=0),
        f"```json\n{scored(Diagnosis=10, Rhythm=5, Overall=9)}\n```",
        scored(Diagnosis=4, Rhythm=6),
    ]
    report = judge_run(**made(tmp_path), base_url=judge.url, model="m", api_key="k")
    judged = report["configs"][REPORT]
    assert judged["score"] == pytest.approx((0 + 0.8 + 0.5) / 3)
    assert judged["score_without_broken_golds"] == pytest.approx((0.8 + 0.5) / 2)
    assert judged["aspects"]["Diagnosis"] == pytest.approx(14 / 30)
    assert judged["aspects"]["Overall"] == 0.9
    assert (judged["n"], judged["judged"], judged["unreadable"]) == (3, 3, 0)
    assert judge.keys == ["Bearer k"] * 3
    assert "| ptb-test-report | Overall | 0.900 | 3 of 3 |" in judge_markdown(report)


def test_each_report_is_compared_with_its_own_gold(judge: Judge, tmp_path: Path) -> None:
    judge_run(**made(tmp_path), base_url=judge.url, model="m")
    contents = [body["messages"][0]["content"] for body in judge.asked]
    assert "\n gold 1\n" in contents[1]
    assert "\n gold 2\n" in contents[2]
    assert judge.asked[0]["temperature"] == 0
    assert judge.asked[0]["response_format"] == {"type": "json_object"}
    assert judge.asked[0]["model"] == "m"


def test_an_arena_conversation_is_judged_as_a_whole(judge: Judge, tmp_path: Path) -> None:
    arguments = made(tmp_path)
    turns = [{"question": "Q1", "answer": "G1"}, {"question": "Q2", "answer": "G2"}]
    items = [{"id": "a", "image": "a.png", "conversations": turns}]
    (arguments["bench"] / "arena.json").write_text(json.dumps(items), encoding="utf-8")
    said = [{"question": "Q1", "answer": "R1"}, {"question": "Q2", "answer": "R2"}]
    write_lines(arguments["run"], "arena", [{"question_id": "a", "predict_convs": said}])
    judge_run(**arguments, base_url=judge.url, model="m")
    content = judge.asked[-1]["messages"][0]["content"]
    assert content.startswith("Both turns.")
    places = [content.index(part) for part in ("G1", "G2", "R1", "R2")]
    assert places == sorted(places)


def test_a_second_call_asks_only_for_what_is_missing(judge: Judge, tmp_path: Path) -> None:
    arguments = made(tmp_path)
    judge.replies = [scored(Diagnosis=7), "no JSON", 500]
    with pytest.raises(ParameterError, match="answered 500"):
        judge_run(**arguments, base_url=judge.url, model="m")
    judge.asked.clear()
    report = judge_run(**arguments, base_url=judge.url, model="m")
    assert len(judge.asked) == 2
    assert report["configs"][REPORT]["aspects"]["Diagnosis"] == pytest.approx(17 / 30)
    judge_run(**arguments, base_url=judge.url, model="m")
    assert len(judge.asked) == 2
    judge_run(**arguments, base_url=judge.url, model="other")
    assert len(judge.asked) == 5


def test_a_judgement_that_a_kill_cut_off_is_asked_again(judge: Judge, tmp_path: Path) -> None:
    arguments = made(tmp_path)
    judge_run(**arguments, base_url=judge.url, model="m")
    (kept,) = (arguments["run"] / REPORT).glob("*.judgements")
    kept.write_bytes(kept.read_bytes()[:-5])
    judge.asked.clear()
    report = judge_run(**arguments, base_url=judge.url, model="m")
    assert len(judge.asked) == 1
    assert report["configs"][REPORT]["judged"] == 3


def test_a_redirection_is_not_followed(judge: Judge, tmp_path: Path) -> None:
    judge.replies = [302]
    with pytest.raises(ParameterError, match="answered 302"):
        judge_run(**made(tmp_path), base_url=judge.url, model="m")
    assert len(judge.asked) == 1


@pytest.mark.parametrize("url", ["", "example.org/v1", "ftp://x/v1", "file:///etc/passwd"])
def test_only_urls_of_http_are_taken(url: str) -> None:
    with pytest.raises(ParameterError, match="is not http"):
        JudgeClient(url, "m")


def test_a_server_that_is_not_there_is_named(judge: Judge, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(ParameterError, match=r"127\.0\.0\.1:9/v1/chat/\w+: cannot be reached"):
        judge_run(**made(tmp_path), base_url=url, model="m")


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        (scored(A=1, B=2.5), {"A": 1, "B": 2.5}),
        (f"Here:\n```json\n{scored(A=1)}\n```", {"A": 1}),
        ('{"A": {"Score": "7"}}', {"A": 7}),
        ('{"A": {"Score": 11}}', {}),
        ('{"A": 3}', {}),
        ('{"A": {}}', {}),
        ("[1]", {}),
        ("", {}),
        ("{}", {}),
    ],
)
def test_replies_are_read_or_not_counted(reply: str, scores: dict[str, float]) -> None:
    assert read_judgement(reply) == scores


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"raport": "x"}', '{"report": ""}', '{"report": 3}']
)
def test_a_prompts_file_of_another_form_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ParameterError, match='"report"'):
        read_prompts(path)


def test_the_authors_file_is_parsed_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "prompts.py"
    path.write_text(
        'import nothing\nreport_eval_prompt = """R"""\narean_eval_prompt = """A"""\nx = f()\n',
        encoding="utf-8",
    )
    assert read_prompts(path) == {"report": "R", "arena": "A"}


def test_a_run_without_reports_or_arena_is_refused(judge: Judge, tmp_path: Path) -> None:
    arguments = made(tmp_path)
    lines = [{"question_id": "x", "text": "A"}]
    run = write_lines(tmp_path / "other", "mmmu-ecg", lines)
    with pytest.raises(ParameterError, match="has no answers that the prompts"):
        judge_run(**{**arguments, "run": run}, base_url=judge.url, model="m")
    assert not judge.asked
