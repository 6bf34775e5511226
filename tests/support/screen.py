"""The server's page in a browser, as somebody in front of it uses it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.browser import Driver
from support.served import SECONDS, Served, eventually

_TRANSFER = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "Planted Name.bin", { type: arguments[1] }));
const options = { bubbles: true, cancelable: true };
"""
# Contrast of a colour with what lies behind it, by WCAG 2.2.
CONTRAST = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const contrast = (one, other) => {
  const [low, high] = [light(parts(one)), light(parts(other))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (parts(colour).length < 4 || parts(colour)[3] === 1) return colour;
  }
};
const visible = (node) => node.checkVisibility() && !node.closest(".only-heard");
"""


class Screen:
    """A tab that shows the page of a server.

    Args:
        driver: of the browser.
        server: that is served from.
    """

    def __init__(self, driver: Driver, server: Served) -> None:
        self.driver = driver
        self.server = server

    def open(self) -> None:
        """Load the page anew, and wait for the server's model to be named."""
        self.load()
        self.until("at('model').startsWith('Model: ') && !at('model').includes('tested')")

    def load(self) -> None:
        """Load the page anew."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.server.url}/")

    def js(self, expression: str, *arguments: Any) -> Any:
        """The value of an expression. In it `at(ID)` is the text of an element."""
        at = "const at = (id) => document.getElementById(id).textContent;"
        return self.driver.execute_script(f"{at} return {expression}", *arguments)

    def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        assert eventually(lambda: self.js(condition)), (
            condition,
            self.js("document.body.innerText"),
        )

    def node(self, name: str) -> Any:
        """The element of an id."""
        return self.driver.find_element("id", name)

    def shown(self, name: str) -> bool:
        """Whether the element of an id is visible."""
        return bool(self.node(name).is_displayed())

    def choose(self, path: Any) -> None:
        """Choose a file, and wait until the model has read it."""
        self.node("file").send_keys(str(path))
        self.until_read()

    def until_read(self) -> None:
        """Wait until the model has read the page."""
        self.until("at('page-state').includes('has read the page')")

    def drop(self, data: bytes, media: str = "") -> None:
        """Drop a file onto the page."""
        event = 'new DragEvent("drop", { ...options, dataTransfer: transfer })'
        self._transfer(data, media, event)

    def paste(self, data: bytes, media: str = "") -> None:
        """Paste a file."""
        event = 'new ClipboardEvent("paste", { ...options, clipboardData: transfer })'
        self._transfer(data, media, event)

    def _transfer(self, data: bytes, media: str, event: str) -> None:
        script = f"{_TRANSFER} (document.activeElement ?? document.body).dispatchEvent({event})"
        self.driver.execute_script(script, base64.b64encode(data).decode(), media)

    def begin(self, question: str) -> None:
        """Type a question and press Enter."""
        self.node("question").send_keys(f"{question}\n")

    def ask(self, question: str) -> str:
        """The whole answer to a question."""
        self.begin(question)
        self.until_idle()
        return self.answer

    def until_idle(self) -> None:
        """Wait for the end of a question or a panel."""
        self.until("document.getElementById('cancel').hidden")

    @property
    def answer(self) -> str:
        """The last one, as far as it is there."""
        text = self.js("[...document.querySelectorAll('.answer')].at(-1)?.textContent ?? ''")
        assert isinstance(text, str)
        return text

    @property
    def last(self) -> str:
        """All text of the last turn."""
        text = self.js("[...document.querySelectorAll('article')].at(-1).textContent")
        assert isinstance(text, str)
        return text

    def rows(self, caption: str) -> list[list[str]]:
        """The cells of the table with a caption, below its head."""
        rows: list[list[str]] = self.js(
            "[...document.querySelectorAll('table')]"
            ".filter((table) => table.caption.textContent.startsWith(arguments[0]))"
            ".flatMap((table) => [...table.tBodies[0].rows])"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))",
            caption,
        )
        return rows

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, as a device has it."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 1000}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, **features: str) -> None:
        """What the user prefers, as `color_scheme="dark"`."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})

    def faint(self) -> list[str]:
        """Texts that can be seen, with too little contrast (below 4.5; 3 for edges of controls)."""
        found: list[str] = self.driver.execute_script(
            CONTRAST
            + """
            const found = [];
            const check = (what, least, colour, ground) => {
              const ratio = contrast(colour, ground);
              if (ratio < least) found.push(`${what}: ${ratio.toFixed(2)}`);
            };
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
              const node = walker.currentNode.parentElement;
              const text = walker.currentNode.textContent.trim();
              if (!text || !visible(node) || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
              check(text, 4.5, getComputedStyle(node).color, behind(node));
            }
            for (const node of document.querySelectorAll("button, .button, textarea, input")) {
              if (!visible(node) || node.ariaDisabled === "true") continue;
              const style = getComputedStyle(node);
              check(node.id, 3, style.borderTopColor, behind(node.parentElement));
              if (node.placeholder) {
                const hint = getComputedStyle(node, "::placeholder").color;
                check(node.placeholder, 4.5, hint, style.backgroundColor);
              }
            }
            return found;
            """
        )
        return found

    def nameless(self) -> list[str]:
        """Roles of nodes that can have the focus, but that a screen reader has no name for."""
        tree = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
        return [
            node["role"]["value"]
            for node in tree["nodes"]
            if not node.get("ignored") and _is_focusable(node) and not _name_of(node)
        ]


def _is_focusable(node: dict[str, Any]) -> bool:
    role = node["role"]["value"]
    return role != "RootWebArea" and any(
        item["name"] == "focusable" and item["value"]["value"]
        for item in node.get("properties", ())
    )


def _name_of(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value", "")).strip()


@contextmanager
def on_screen(driver: Driver, server: Served) -> Iterator[Screen]:
    """A server's page that is open, at the size of a laptop and in light colours."""
    driver.set_script_timeout(SECONDS)
    screen = Screen(driver, server)
    screen.resize(1280, 800)
    screen.prefer(color_scheme="light")
    screen.open()
    yield screen
    driver.get("about:blank")
