"""Mixed traffic through a server. `support.served_mixed` does it for long."""

from __future__ import annotations

from pathlib import Path

import pulse_edge

from support.served import served
from support.served_mixed import ServedMixed, run_round


def test_mixed_traffic_loses_no_request(bundle: Path, model: pulse_edge.Model) -> None:
    """Answers are right, refusals are said, clients that leave take nothing with them."""
    alone = pulse_edge.load(bundle, threads=1)
    with served(model, queue=2) as server:
        mixed = ServedMixed(server.url, alone)
        run_round(mixed, 0, threads=4, operations=18)
        assert mixed.done.total() == 72
        assert len({name.partition(":")[0] for name in mixed.done}) >= 9
        assert server.settled()
    for image, question, text in mixed.answers:
        assert model.ask(image, question, max_new_tokens=6).text == text
