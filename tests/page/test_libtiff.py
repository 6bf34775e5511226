"""libtiff's own messages: silenced while pages are decoded, and only then."""

from __future__ import annotations

import contextlib
import io
import threading

import pytest
from PIL import Image

from pulse_edge.page.libtiff import quiet_libtiff

from goldens import cases
from support.image_files import encoded

DAMAGED = bytearray(encoded(cases.page(300, 200), "TIFF", compression="tiff_lzw"))
DAMAGED[len(DAMAGED) // 2 : len(DAMAGED) // 2 + 2000] = bytes(2000)


def messages(capfd: pytest.CaptureFixture[str]) -> str:
    """What libtiff prints of a damaged page."""
    capfd.readouterr()
    with contextlib.suppress(Exception):
        Image.open(io.BytesIO(DAMAGED)).load()
    return capfd.readouterr().err


@pytest.fixture
def loud(capfd: pytest.CaptureFixture[str]) -> None:
    if not messages(capfd):
        pytest.skip("this libtiff prints nothing")


@pytest.mark.usefixtures("loud")
def test_it_is_quiet_until_the_last_page_is_decoded(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with quiet_libtiff():
            assert messages(capfd) == ""
            with quiet_libtiff():
                assert messages(capfd) == ""
            assert messages(capfd) == ""
        assert messages(capfd) != ""


@pytest.mark.usefixtures("loud")
def test_an_error_in_the_body_ends_the_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet_libtiff():
        raise KeyError
    assert messages(capfd) != ""


@pytest.mark.usefixtures("loud")
def test_pages_of_several_threads_overlap(capfd: pytest.CaptureFixture[str]) -> None:
    begun, end = threading.Event(), threading.Event()

    def decode() -> None:
        with quiet_libtiff():
            begun.set()
            end.wait(10)

    thread = threading.Thread(target=decode)
    with quiet_libtiff():
        thread.start()
        begun.wait(10)
    assert messages(capfd) == ""  # the other thread still decodes
    end.set()
    thread.join()
    assert messages(capfd) != ""
