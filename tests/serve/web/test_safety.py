"""What the page does not do: ask others, keep anything, run what is not its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pulse_edge

from support.browser import Driver, requests_of
from support.screen import Screen
from support.served import served

pytestmark = pytest.mark.browser
KEY = "planted-key-0123456789"
SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"
RATE = "What is the heart rate?"


def violations(driver: Driver) -> list[str]:
    messages = [entry["message"] for entry in driver.get_log("browser")]
    return [message for message in messages if "Content Security Policy" in message]


def stored(screen: Screen) -> Any:
    return screen.driver.execute_async_script(
        """
        const [done] = arguments;
        const count = async () => [
          document.cookie, localStorage.length, sessionStorage.length, history.length,
          (await indexedDB.databases()).length, (await caches.keys()).length,
          (await navigator.serviceWorker.getRegistrations()).length,
        ];
        count().then(done, (error) => done(String(error)));
        """
    )


def test_only_its_own_server_is_asked(screen: Screen) -> None:
    requests_of(screen.driver)
    screen.open()
    screen.choose(SAMPLE)
    screen.ask(RATE)
    screen.node("panel").click()
    screen.until_idle()
    asked = [request["request"]["url"] for request in requests_of(screen.driver)]
    routes = {url.removeprefix(screen.server.url).split("?")[0] for url in asked}
    assert {"/", "/v1/models", "/v1/pages", "/v1/chat/completions", "/v1/ecg"} <= routes
    own = (f"{screen.server.url}/", f"blob:{screen.server.url}/", "about:blank", "data:,")
    assert [url for url in asked if not url.startswith(own)] == []
    assert [url for url in asked if "?" in url or "heart" in url] == []


def test_its_policy_is_kept_and_holds(screen: Screen) -> None:
    violations(screen.driver)
    screen.open()
    screen.choose(SAMPLE)
    screen.ask(RATE)
    screen.node("panel").click()
    screen.until_idle()
    assert violations(screen.driver) == []
    screen.driver.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.bad = 1';"
        "document.body.append(script);"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png';"
        "fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    screen.until("true")
    found = violations(screen.driver)
    for directive in ("script-src", "img-src", "connect-src"):
        assert any(f"{directive} '" in message for message in found), found
    assert screen.js("window.bad === undefined")


def test_nothing_is_left_behind(screen: Screen) -> None:
    before = stored(screen)
    assert before[:3] == ["", 0, 0]
    screen.choose(SAMPLE)
    screen.ask(RATE)
    assert stored(screen) == before
    assert before[4:] == [0, 0, 0]
    assert screen.js("location.href") == f"{screen.server.url}/"
    screen.open()
    assert screen.shown("drop")
    assert "heart rate is" not in screen.js("document.body.innerText")


def test_a_key_is_asked_for_and_kept_in_memory(
    driver: Driver, nano: pulse_edge.Model, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    keys.chmod(0o600)
    with served(nano, api_key_file=str(keys)) as server:
        driver.get("about:blank")
        screen = Screen(driver, server)
        screen.resize(1280, 800)
        screen.load()
        screen.until("!document.getElementById('key-form').hidden")
        assert screen.js("document.activeElement.id") == "key"
        assert screen.node("key").get_attribute("type") == "password"
        for scheme in ("light", "dark"):
            screen.prefer(color_scheme=scheme)
            assert screen.faint() == []
        assert screen.nameless() == []
        screen.node("key").send_keys("a-wrong-key-0123456789\n")
        screen.until("at('key-error') !== ''")
        assert screen.js("at('key-error')") == "The server does not know this key."
        screen.node("key").send_keys(f"{KEY}\n")
        screen.until("at('model').startsWith('Model: ')")
        assert not screen.shown("key-form")
        screen.choose(SAMPLE)
        assert screen.ask(RATE) == nano.ask(SAMPLE, RATE).text
        assert KEY not in screen.js("document.documentElement.outerHTML")
        assert screen.node("key").get_attribute("value") == ""
        assert KEY not in screen.js("location.href")
        assert stored(screen)[:3] == ["", 0, 0]
        screen.load()
        screen.until("!document.getElementById('key-form').hidden")  # it was forgotten
        driver.get("about:blank")


def test_an_answer_is_text_and_never_markup(screen: Screen) -> None:
    screen.choose(SAMPLE)
    question = "<img src=x onerror=alert(1)><b>bold</b>"
    screen.ask(question)
    assert screen.js("document.querySelector('article h3').textContent") == question
    assert not screen.driver.find_elements("css selector", "article img, article b")


def test_a_page_that_another_site_frames_is_not_shown(screen: Screen) -> None:
    headers = screen.server.client.get("/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
