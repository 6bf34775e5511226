"""A page that the model looks at before anybody asks about it."""

from __future__ import annotations

from pulse_edge.delivery import Delivery
from pulse_edge.page.preparation import PendingPage


class Look:
    """A page whose prefill is under way, or done. `Model.look` makes it.

    `Model.ask` takes it as its image. Then the page is neither read nor decoded again, and what is
    still in the cache is not computed again.

    Attributes:
        sha256: of the decoded page.
        page: for requests.
        predicted_s: seconds that were predicted until the page is ready, waits included; None if
            nothing was known.
    """

    def __init__(
        self, page: PendingPage, sha256: str, delivery: Delivery, predicted_s: float | None
    ) -> None:
        self.page = page
        self.sha256 = sha256
        self.predicted_s = predicted_s
        self._delivery = delivery

    @property
    def done(self) -> bool:
        """Whether its prefill has ended, one way or the other."""
        return self._delivery.ended

    def wait(self) -> bool:
        """Wait for the end of its prefill.

        Returns:
            Whether the page was prefilled; False if that was cancelled, or its deadline passed.

        Raises:
            PulseEdgeError: it failed.
        """
        self._delivery.wait()
        error = self._delivery.take_error()
        if error is not None:
            try:
                raise error
            finally:
                del error
        return not self._delivery.cancellation.requested

    def cancel(self) -> None:
        """Stop the prefill. What was done of it stays in the cache. Waits for nothing."""
        self._delivery.cancel()
