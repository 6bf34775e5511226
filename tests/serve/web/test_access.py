"""Whoever uses the page: with a keyboard, a screen reader, in the dark, on a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pulse_edge

from support.screen import Screen

pytestmark = pytest.mark.browser
SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"
FOCUS = "document.activeElement"


def begin(screen: Screen) -> None:
    """Nothing was chosen."""


def answered(screen: Screen) -> None:
    screen.choose(SAMPLE)
    screen.ask("What is the heart rate?")
    screen.js("document.querySelectorAll('details').forEach((node) => (node.open = true)) || 1")


def panelled(screen: Screen) -> None:
    screen.choose(SAMPLE)
    screen.node("panel").click()
    screen.until_idle()


def failed(screen: Screen) -> None:
    screen.drop(b"no image")
    screen.until("at('page-error') !== ''")


STATES = [begin, answered, panelled, failed]


@pytest.mark.parametrize("state", STATES)
def test_it_can_be_read_in_every_light(screen: Screen, state: Callable[[Screen], None]) -> None:
    state(screen)
    grounds = set()
    for scheme in ("light", "dark"):
        screen.prefer(color_scheme=scheme)
        assert screen.faint() == []
        grounds.add(screen.js("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_the_contrast_check_notices(screen: Screen) -> None:
    screen.js("document.documentElement.style.setProperty('--muted', '#999') || 1")
    assert len(screen.faint()) >= 2


@pytest.mark.parametrize("state", STATES)
def test_a_screen_reader_has_a_name_for_everything(
    screen: Screen, state: Callable[[Screen], None]
) -> None:
    state(screen)
    assert screen.nameless() == []
    assert screen.js("document.querySelectorAll('main, header').length") == 2
    levels = screen.js("[...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)")
    assert levels[:3] == ["H1", "H2", "H2"]
    assert screen.js("[...document.images].every((image) => image.alt)")
    assert screen.js("document.getElementById('told').getAttribute('role')") == "status"


def test_the_check_of_names_notices(screen: Screen) -> None:
    screen.js("document.querySelector('label[for=question]').remove() || 1")
    screen.js("document.getElementById('question').removeAttribute('placeholder') || 1")
    assert screen.nameless() == ["textbox"]


def test_everything_works_from_the_keyboard(screen: Screen) -> None:
    assert walk(screen) == ["file", "talk", "question", "ask", "panel", ""]  # "": the limits
    screen.node("file").send_keys(str(SAMPLE))
    screen.until_read()
    tab_to(screen, "question")
    press(screen, "What is the rhythm?\n")
    screen.until_idle()
    assert screen.answer == screen.server.model.ask(SAMPLE, "What is the rhythm?").text
    assert screen.js(f"{FOCUS}.id") == "question"
    tab_to(screen, "panel")
    press(screen, " ")
    screen.until_idle()
    assert len(screen.rows("Answers")) == 8
    assert screen.js(f"{FOCUS}.id") == "panel"
    tab_to(screen, "follow")
    press(screen, " ")
    assert screen.js("document.getElementById('follow').checked")
    tab_to(screen, "full")
    press(screen, "\n")
    assert "frame" in walk(screen)
    tab_to(screen, "anew")
    press(screen, "\n")
    assert screen.js(f"{FOCUS}.id") == "question"
    tab_to(screen, "remove")
    press(screen, "\n")
    assert screen.js(f"{FOCUS}.id") == "file"


def press(screen: Screen, keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(screen.driver).send_keys(keys).perform()


def tab_to(screen: Screen, name: str) -> None:
    for _ in range(40):
        if screen.js(f"{FOCUS}.id") == name:
            return
        press(screen, "\ue004")
    raise AssertionError(f"{name} cannot be reached")


def walk(screen: Screen) -> list[str]:
    """Ids of what Tab reaches in turn, until it leaves the page. Each shows its focus."""
    screen.js("document.activeElement.blur() || 1")
    screen.js("document.getSelection().collapse(document.body, 0) || 1")
    ids: list[str] = []
    for _ in range(40):
        press(screen, "\ue004")
        if screen.js(f"{FOCUS} === document.body"):
            return ids
        ids.append(screen.js(f"{FOCUS}.id"))
        ring = screen.js(
            f"[{FOCUS}, {FOCUS}.nextElementSibling].some((node) => node &&"
            " getComputedStyle(node).outlineStyle === 'solid' &&"
            " parseFloat(getComputedStyle(node).outlineWidth) >= 3)"
        )
        assert ring, ids
    raise AssertionError(f"Tab is trapped: {ids}")


@pytest.mark.parametrize(
    ("width", "height"), [(320, 640), (390, 844), (820, 1180), (1180, 820), (844, 390)]
)
def test_it_fits_every_width(screen: Screen, width: int, height: int) -> None:
    screen.resize(width, height)
    for state in STATES:
        screen.open()
        state(screen)
        for place in (0, 10_000):
            screen.js(f"scrollTo(0, {place}) || 1")
            screen.js(f"document.getElementById('talk').scrollTo(0, {place}) || 1")
            assert screen.js("document.documentElement.scrollWidth") <= width
            assert notice_is_visible(screen)
        small = screen.js(
            "[...document.querySelectorAll('button, .button')].filter((b) => b.checkVisibility())"
            ".map((b) => b.getBoundingClientRect().height).filter((h) => h < 24)"
        )
        assert small == []  # WCAG 2.5.8


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (844, 390)])
def test_an_answer_is_in_view_on_a_phone(screen: Screen, width: int, height: int) -> None:
    screen.resize(width, height)
    screen.choose(SAMPLE)
    for question in ("What is the rhythm?", "What is the heart rate?"):
        screen.ask(question)
        seen = screen.js(
            "(({ left, right, top, bottom }) => top >= 0 && document.querySelector("
            "'article:last-of-type .answer') === document.elementFromPoint(left + 5, bottom - 5))"
            "(document.querySelector('article:last-of-type .answer').getBoundingClientRect())"
        )
        assert seen


def notice_is_visible(screen: Screen) -> bool:
    visible: bool = screen.js(
        "(({ left, right, top, bottom }) => top >= 0 && bottom <= innerHeight &&"
        " document.elementFromPoint((left + right) / 2, (top + bottom) / 2).id === 'notice')"
        "(document.getElementById('notice').getBoundingClientRect())"
    )
    return visible


def test_one_screen_is_enough_on_a_laptop(screen: Screen) -> None:
    panelled(screen)
    assert screen.js("document.documentElement.scrollHeight") == 800
    assert (
        screen.js(
            "(({ bottom }) => bottom)(document.getElementById('ask-form').getBoundingClientRect())"
        )
        <= 800
    )


def test_nothing_moves_for_those_who_do_not_want_it(screen: Screen) -> None:
    screen.prefer(reduced_motion="reduce")
    moving = "document.getAnimations().length"
    screen.choose(SAMPLE)
    assert screen.js(moving) == 0
    assert screen.js("getComputedStyle(document.querySelector('progress')).animationName") == "none"
