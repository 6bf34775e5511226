"""Questions and panels on the page: what comes, while it comes, and when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import pulse_edge
from pulse_edge.serve.stages import Stages

from support.browser import Driver
from support.paced import paced
from support.requests import encoded, page
from support.screen import Screen, on_screen
from support.served import Served, body, eventually, served

pytestmark = pytest.mark.browser
RATE = "What is the heart rate?"
RHYTHM = "What is the rhythm?"
REPORT = "Please write a clinical report based on this ECG image."
SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"


@pytest.fixture
def asked(screen: Screen) -> Iterator[Screen]:
    """The page with the sample."""
    screen.choose(SAMPLE)
    yield screen
    assert screen.server.settled()


@pytest.mark.parametrize("question", [RATE, REPORT, "É?  <b>&amp;</b>\N{ANATOMICAL HEART}"])
def test_the_text_is_the_models(asked: Screen, question: str) -> None:
    expected = asked.server.model.ask(SAMPLE, question.strip())
    if ord(max(question)) > 0xFFFF:  # the driver types no such characters
        script = "document.getElementById('question').value = arguments[0] || 1"
        asked.js(script, question)
        assert asked.ask("") == expected.text
    else:
        assert asked.ask(question) == expected.text
    assert asked.js("document.querySelector('article h3').textContent") == question
    assert f"{expected.usage.new_tokens} token" in asked.last
    assert f"bundle {expected.provenance['bundle'][:8]}" in asked.last
    assert expected.provenance["image"]["sha256"] in asked.last
    assert expected.provenance["prompt"] in asked.last
    assert "first token after" in asked.last
    assert expected.notice == asked.js("at('notice')")
    assert asked.js("at('told')") == f"Answer: {expected.text} {expected.notice}"


def test_questions_do_not_see_each_other_unless_they_follow_up(asked: Screen) -> None:
    model = asked.server.model
    assert not asked.shown("follow-row")
    first = asked.ask(RATE)
    assert asked.ask(RHYTHM) == model.ask(SAMPLE, RHYTHM).text
    asked.node("follow").click()
    chat = model.chat(SAMPLE, [(RATE, first), (RHYTHM, asked.answer)])
    assert asked.ask(REPORT) == chat.ask(REPORT).text
    assert "Follow-up of 2 turns" in asked.last
    asked.node("anew").click()
    assert not asked.driver.find_elements("tag name", "article")
    assert asked.ask(REPORT) == model.ask(SAMPLE, REPORT).text


def test_the_limits_hold(asked: Screen) -> None:
    asked.driver.find_element("tag name", "summary").click()
    asked.node("longest").send_keys("3")
    assert asked.ask(REPORT) == asked.server.model.ask(SAMPLE, REPORT, max_new_tokens=3).text
    assert "Cut off at the longest answer." in asked.last
    asked.node("longest").clear()
    asked.node("deadline").send_keys("1.5")
    with paced(asked.server.model) as pace:
        pace.hold()
        asked.begin(RATE)
        assert eventually(lambda: pace.steps == 1)
        time.sleep(1.6)
        pace.go()
        asked.until_idle()
    assert "Cut off: the time was up." in asked.last
    assert "Not reached: the answer." in asked.last


@pytest.mark.parametrize(
    ("name", "value"), [("deadline", "0"), ("deadline", "-1"), ("longest", "0"), ("longest", "2.5")]
)
@pytest.mark.parametrize("way", ["ask", "panel"])
def test_a_limit_out_of_range_is_not_sent(asked: Screen, name: str, value: str, way: str) -> None:
    asked.js("document.getElementById(arguments[0]).value = arguments[1] || 1", name, value)
    asked.node("question").send_keys(RATE)
    asked.node(way).click()
    assert asked.js("document.activeElement.id") == name
    assert asked.shown(name)
    assert not asked.driver.find_elements("tag name", "article")


def test_an_answer_shows_while_it_comes(asked: Screen) -> None:
    expected = asked.server.model.ask(SAMPLE, REPORT).text
    with paced(asked.server.model) as pace:
        pace.hold()
        asked.begin(REPORT)
        assert eventually(lambda: pace.steps == 1)
        asked.until("document.querySelector('article .stage span').textContent.includes(' s')")
        assert asked.node("ask").get_attribute("aria-disabled") == "true"
        asked.begin(RATE)  # while one is under way
        assert len(asked.driver.find_elements("tag name", "article")) == 1
        pace.go()
        asked.until_idle()
    assert asked.answer == expected
    assert not asked.driver.find_elements("css selector", "article .stage")
    assert asked.node("question").get_attribute("value") == RATE  # nothing typed is lost


def test_the_stages_are_told(driver: Driver) -> None:
    stages = Stages()
    model = pulse_edge.load(threads=1, progress=stages)
    with served(model, stages=stages) as server, on_screen(driver, server) as screen:
        screen.drop(encoded(page(6, (160, 120)), "PNG"))
        screen.until_read()
        with paced(model) as pace, ThreadPoolExecutor(1) as pool:
            pace.hold()
            pool.submit(model.ask, None, RATE, max_new_tokens=3)
            assert eventually(lambda: pace.steps == 1)
            screen.begin(RATE)
            for name, done, total, words in (
                ("vision", 0, 5, "Reading the page"),
                ("prefill", 1536, 2933, "Prefill, 1,536 of 2,933 tokens"),
            ):
                stages(name, done, total)
                screen.until(f"document.querySelector('article').textContent.includes('{words}')")
            assert screen.js("document.querySelector('article progress').value") == 1536
            stages("prefill", 2933 - 1536, 2933)
            screen.until("document.querySelector('article').textContent.includes('Waiting')")
            pace.go()
            screen.until_idle()
        assert screen.answer == model.ask(encoded(page(6, (160, 120)), "PNG"), RATE).text


@pytest.mark.parametrize("way", ["button", "Escape", "remove the page"])
def test_cancelling_frees_the_engine(asked: Screen, way: str) -> None:
    model = asked.server.model
    with paced(model) as pace:
        pace.hold()
        asked.begin(REPORT)
        assert eventually(lambda: pace.steps == 1)
        if way == "button":
            asked.node("cancel").click()
        elif way == "Escape":
            asked.node("question").send_keys("\ue00c")
        else:
            asked.node("remove").click()
        asked.until_idle()
        # The page is idle before the server hears that the connection is gone.
        assert eventually(lambda: all(d.cancellation.requested for d in model.worker.unfinished))
        pace.go()
        assert asked.server.settled()
        assert pace.steps <= 2
    if way == "remove the page":
        assert not asked.driver.find_elements("tag name", "article")
        return
    assert "Cancelled. A follow-up does not see it." in asked.last
    assert asked.ask(RATE) == model.ask(SAMPLE, RATE).text
    asked.node("follow").click()
    asked.ask(RHYTHM)
    assert "Follow-up of 1 turn" in asked.last


def test_a_panel(asked: Screen) -> None:
    asked.node("panel").click()
    asked.until_idle()
    result = asked.server.model.panel(SAMPLE).to_dict()
    rows = asked.rows("Answers, preliminary")
    questions = result["panel"]["questions"]
    assert [row[1] for row in rows] == [q["answer"] or q["text"] for q in questions]
    assert [row[2] for row in rows] == [
        "" if q["margin"] is None else f"{q['margin']:.1f}" for q in questions
    ]
    assert [row[0] for row in rows][:2] == ["Overall", "Rhythm"]
    texts = {q["id"]: q["text"] for q in questions}
    assert asked.rows("Read from the free text") == [
        [
            (s["finding"][0].upper() + s["finding"][1:]).replace("-", " "),
            s["status"],
            " … ".join(texts[s["source"]][i:j] for i, j in s["spans"]),
        ]
        for s in result["statements"]
        if s["status"] != "not stated"
    ]
    silent = sum(s["status"] == "not stated" for s in result["statements"])
    assert f"{silent} other findings are not stated" in asked.last
    assert [row[1] for row in asked.rows("Measurements")] == [
        f"{m['value']:g} {m['unit']}" for m in result["measurements"]
    ]
    assert all(q["prompt"] in asked.last for q in questions)
    assert result["provenance"]["image"]["sha256"] in asked.last


def test_a_panel_after_the_server_has_dropped_the_page(asked: Screen) -> None:
    asked.server.service.pages.clear()
    asked.node("panel").click()
    asked.until_idle()
    assert len(asked.rows("Answers")) == 8


def test_a_panel_can_be_cancelled(asked: Screen) -> None:
    with paced(asked.server.model) as pace:
        pace.hold()
        asked.node("panel").click()
        assert eventually(lambda: pace.steps == 1)
        asked.node("cancel").click()
        asked.until_idle()
        pace.go()
        assert asked.server.settled()
    assert "Cancelled." in asked.last
    assert not asked.rows("Answers")


def test_what_the_server_refuses_is_said_in_its_words(asked: Screen) -> None:
    question = "word " * 3000
    asked.js("document.getElementById('question').value = arguments[0] || 1", question)
    asked.ask("")
    error = asked.driver.find_element("css selector", "article [role=alert]").text
    assert error.startswith("The prompt is ")
    assert error.endswith("shorten the question or the chat.")
    assert asked.node("question").get_attribute("value").strip() == question.strip()
    asked.node("question").clear()
    assert asked.ask(RATE) == asked.server.model.ask(SAMPLE, RATE).text


def test_a_full_queue_says_when_to_come_back(driver: Driver, nano: pulse_edge.Model) -> None:
    with served(nano, queue=0) as server, on_screen(driver, server) as screen:
        screen.choose(SAMPLE)
        with paced(nano) as pace:
            pace.hold()
            other = threading.Thread(
                target=httpx.post,
                args=(f"{server.url}/v1/chat/completions",),
                kwargs={"json": body(RATE), "trust_env": False, "timeout": 60},
            )
            other.start()
            assert eventually(lambda: pace.steps == 1)
            screen.ask(RATE)
            pace.go()
            other.join()
        assert "under way already" in screen.last
        assert "Try again in " in screen.last


def test_a_server_that_is_not_ready(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen.server.service.readiness, "outcome", None)
    screen.load()
    screen.until("at('model') === 'Model: pulse-nano, being tested'")
    monkeypatch.undo()
    screen.until("at('model') === 'Model: pulse-nano'")
    monkeypatch.setattr(screen.server.service.readiness, "outcome", {"passed": False})
    screen.load()
    screen.until("at('model').endsWith(', and its self-test failed')")


def test_a_server_that_is_gone(driver: Driver, nano: pulse_edge.Model) -> None:
    with served(nano) as server, on_screen(driver, server) as screen:
        screen.choose(SAMPLE)
        server.server.should_exit = True
        assert eventually(lambda: not server.server.servers or _refused(server))
        screen.ask(RATE)
        assert "The server does not answer." in screen.last


def _refused(server: Served) -> bool:
    try:
        httpx.get(f"{server.url}/health", trust_env=False)
    except httpx.TransportError:
        return True
    return False
