"""Places for requests, and ends of requests."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pulse_edge.errors import QueueFullError
from pulse_edge.serve.admission import Admission, Ticket, start_thread
from pulse_edge.serve.refusals import Refusal


def test_places() -> None:
    admission = Admission(2)
    first = admission.admit()
    second = admission.admit("cart-7")
    assert admission.under_way == 2
    assert set(admission.ids) == {first.id, second.id}
    with pytest.raises(QueueFullError) as error:
        admission.admit()
    assert error.value.retry_after_s > 0
    admission.release(first)
    admission.release(first)
    assert admission.under_way == 1
    admission.admit()


def test_when_to_come_back_is_what_requests_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pulse_edge.serve.admission.time.monotonic", lambda: now[0])
    admission = Admission(1)
    for seconds in (1, 50, 7):
        ticket = admission.admit()
        now[0] += seconds
        admission.release(ticket)
    admission.admit()
    with pytest.raises(QueueFullError) as error:
        admission.admit()
    assert error.value.retry_after_s == 7


def test_ids() -> None:
    admission = Admission(4)
    ticket = admission.admit("cart-7")
    assert admission.find(ticket.id) is ticket
    assert admission.find("cart-7") is ticket
    assert admission.find("other") is None
    with pytest.raises(Refusal) as error:
        admission.admit("cart-7")
    assert error.value.code == "id_in_use"
    admission.release(ticket)
    assert admission.find("cart-7") is None
    assert len({Ticket(None).id for _ in range(100)}) == 100


def test_a_cancelled_ticket_stops_what_comes_later() -> None:
    ended: list[str] = []
    ticket = Ticket(None)
    ticket.on_cancel(lambda: ended.append("first"))
    ticket.on_cancel(lambda: ended.append("second"))
    ticket.cancel()
    assert ended == ["second"], "what is over is not stopped"
    ticket.on_cancel(lambda: ended.append("third"))
    assert ended == ["second", "third"]


def test_an_admission_that_is_closed() -> None:
    admission = Admission(2)
    ticket = admission.admit()
    admission.close()
    assert ticket.cancelled
    with pytest.raises(Refusal) as error:
        admission.admit()
    assert (error.value.status, error.value.headers["x-should-retry"]) == (503, "true")


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(QueueFullError):
        start_thread(print, "request")
