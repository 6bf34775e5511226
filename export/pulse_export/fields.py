"""Fields of one JSON object of a checkpoint, read by type and range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.errors import CheckpointError

# Largest value of any size in a config. More is a mistake, which would otherwise show only after it
# has taken all memory.
LARGEST = 1 << 20


@dataclass(frozen=True)
class Fields:
    """An object and its place, for messages. Methods raise `CheckpointError`.

    null counts as absent, and what is absent needs a default.
    """

    values: Mapping[str, Any]
    where: str

    def get(self, key: str, default: Any = None) -> Any:
        """A value as it is; the default for null."""
        value = self.values.get(key)
        return default if value is None else value

    def over(self, defaults: Mapping[str, Any]) -> Fields:
        """These fields, and the defaults of those that are not there."""
        return Fields({**defaults, **self.values}, self.where)

    def whole(
        self, key: str, default: int | None = None, least: int = 1, most: int = LARGEST
    ) -> int:
        """A whole number in a range."""
        value = self._present(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise CheckpointError(
                f"{self.where}: {key} is {value!r:.60}, "
                f"must be a whole number from {least} to {most}"
            )
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A number over 0."""
        value = self._present(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e30:
            raise CheckpointError(
                f"{self.where}: {key} is {value!r:.60}, must be a number over 0, at most 1e30"
            )
        return float(value)

    def part(self, key: str) -> Fields:
        """A nested object; an empty one if it is absent."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.where}: {key} is {value!r:.60}, must be an object")
        return Fields(value, f"{self.where} {key}")

    def only(self, key: str, *allowed: Any, advice: str = "") -> None:
        """Refuse a value that this export does not implement. An absent field is fine.

        Args:
            key: the field.
            *allowed: its legal values. None stands for null.
            advice: what to do with another one.
        """
        if key in self.values and not _is_one_of(self.values[key], allowed):
            legal = " or ".join(map(repr, allowed))
            raise CheckpointError(
                f"{self.where}: {key} is {self.values[key]!r:.60}, supported is {legal}"
                + (f"; {advice}" if advice else "")
            )

    def _present(self, key: str, default: Any) -> Any:
        value = self.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.where}: no {key!r}")
        return value


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether a value is allowed. true is not 1, although Python has them equal."""
    return any(
        value == legal and isinstance(value, bool) == isinstance(legal, bool) for legal in allowed
    )
