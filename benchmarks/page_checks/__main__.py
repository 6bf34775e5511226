"""The page checks on drawn pages with known distortions.

    python -m benchmarks.page_checks [--pages 1000] [--seed 0] [--failures 20]

Half of the pages come from the product's program, half from Pillow. Each page is checked clean,
turned, squashed, as JPEG, and with one of the distortions of `distortions.py`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from benchmarks.page_checks.distortions import DISTORTIONS, compressed, squashed, turned_page
from benchmarks.page_checks.sheets import SHAPES, Sheet, own_sheet, pillow_sheet
from pulse_edge.page.check import PageCheck
from pulse_edge.page.preflight import check_page

RESOLUTIONS = (200, 100, 150, 120)  # dpi
SKEW_ERROR = 0.5  # degrees
PITCH_ERROR = 0.01
SQUASHED = 1.05
Checks = dict[str, PageCheck]


@dataclass
class CheckScores:
    """Counts over pages: by name (right, all), and what failed."""

    right: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def count(self, name: str, right: bool, detail: str) -> None:
        """Count a page."""
        self.total[name] += 1
        self.right[name] += right
        if not right:
            self.failures.append(f"{name}: {detail}")

    def check(self, image: Image.Image) -> Checks:
        """Check a page, timed."""
        start = time.process_time()
        checks = check_page(image)
        self.seconds.append(time.process_time() - start)
        return {check.check: check for check in checks}


def sheet_of(number: int, seed: int) -> Sheet:
    """Page `number` of a set."""
    dpi = RESOLUTIONS[number % len(RESOLUTIONS)]
    program = own_sheet if number // len(SHAPES) % 2 else pillow_sheet
    return program(number, seed, dpi)


def score_page(scores: CheckScores, number: int, seed: int) -> None:
    """Check a page and its distortions.

    Args:
        scores: are added to.
        number: of the page.
        seed: of the set.
    """
    sheet = sheet_of(number, seed)
    rng = np.random.default_rng([seed, number, 3])
    name = f"page {number}, {sheet.kind}, {25.4 * sheet.px_per_mm:.0f} dpi"
    clean = scores.check(sheet.image)
    warned = [each for each, check in clean.items() if check.status == "warn"]
    scores.count("no false warning", not warned, f"{name}: {warned}")
    _score_pitch(scores, "clean", (1.0, 1.0), sheet, clean, name)
    quality = int(rng.integers(30, 90))
    jpeg = scores.check(compressed(sheet.image, quality))
    _score_pitch(scores, "JPEG", (1.0, 1.0), sheet, jpeg, f"{name}, quality {quality}")
    degrees = float(rng.uniform(-9, 9))
    skew = scores.check(turned_page(sheet.image, degrees))["skew"].value
    known = skew is not None
    scores.count("skew is known", known, f"{name}, {degrees:.2f}")
    if skew is not None:
        right = abs(skew - degrees) <= SKEW_ERROR
        scores.count("skew, if known", right, f"{name}, {degrees:.2f} read as {skew:.2f}")
    _score_squashed(scores, sheet, float(rng.uniform(0.78, 1.28)), name)
    each = list(DISTORTIONS)[number % len(DISTORTIONS)]
    check, distort = DISTORTIONS[each]
    found = scores.check(distort(sheet, rng))[check]
    scores.count(f"{each} is found", found.status == "warn", f"{name}: {found.value}")


def _score_squashed(scores: CheckScores, sheet: Sheet, ratio: float, name: str) -> None:
    image = squashed(sheet.image, ratio)
    ratio = image.width / sheet.image.width
    checks = scores.check(image)
    _score_pitch(scores, "squashed", (ratio, 1.0), sheet, checks, f"{name}, {ratio:.3f}")
    if max(ratio, 1 / ratio) > SQUASHED:
        found = checks["anisotropy"].status == "warn"
        value = checks["anisotropy"].value
        scores.count("anisotropy over 5 % is found", found, f"{name}, {ratio:.3f}: {value}")


def _score_pitch(
    scores: CheckScores,
    kind: str,
    ratios: tuple[float, float],
    sheet: Sheet,
    checks: Checks,
    name: str,
) -> None:
    values = checks["pitch_x"].value, checks["pitch_y"].value
    scores.count(f"pitch is known, {kind}", None not in values, name)
    errors = [
        abs(value / (ratio * sheet.px_per_mm) - 1)
        for value, ratio in zip(values, ratios, strict=True)
        if value is not None
    ]
    if errors:
        detail = f"{name}: {max(errors):.3f}"
        scores.count(f"pitch, if known, {kind}", max(errors) <= PITCH_ERROR, detail)


def main() -> None:
    """Print the shares of right results, and what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=int, default=20, help="How many to list.")
    arguments = parser.parse_args()
    scores = CheckScores()
    for number in range(arguments.pages):
        score_page(scores, number, arguments.seed)
    for name, total in sorted(scores.total.items()):
        print(f"{name:<34} {scores.right[name]:>5} of {total:>5}  {scores.right[name] / total:.3f}")
    median, slowest = np.percentile(scores.seconds, (50, 99)) * 1e3
    print(
        f"{median:.0f} ms a check of the processor's time, {slowest:.0f} ms at the 99th percentile"
    )
    for failure in scores.failures[: arguments.failures]:
        print(failure)


if __name__ == "__main__":
    main()
