"""`PYTHONPATH=tests python -m fuzz`: campaigns, their counts, and the table of docs/fuzzing.md.

    python -m fuzz                              every campaign in full; writes the table
    python -m fuzz images cli --count 500       some of them, shortened; writes no table

A run that was stopped goes on where it was: replies lie in build/fuzz, by campaign and seed. It
exits with 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from fuzz.campaign import KINDS
from fuzz.runner import Run, Tally
from fuzz.table import CAMPAIGNS
from support.paths import DOCS, ROOT

PAGE = DOCS / "fuzzing.md"
MARK = re.compile(r"(<!-- counts -->\n).*?(\n<!-- /counts -->)", re.S)
REPLIES = ROOT / "build" / "fuzz"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--count", type=int, help="cases of each [default: the full number]")
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print counts and findings as JSON")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run did")
    options = parser.parse_args()
    unknown = set(options.campaigns) - set(CAMPAIGNS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(CAMPAIGNS)}")
    return options


def table(tallies: list[Tally]) -> str:
    """The rows of the page."""
    lines = [
        "| what is put in | cases | operations | escapes | "
        "silent acceptances | hangs | too much memory |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for tally in tallies:
        found = " | ".join(str(tally.of_kind(kind)) for kind in KINDS)
        title = CAMPAIGNS[tally.name].title
        lines.append(f"| {title} | {tally.cases:,} | {tally.counts.total():,} | {found} |")
    return "\n".join(lines)


def write_page(tallies: list[Tally], page: Path) -> None:
    """Put the table of a full run into the page."""
    text = page.read_text("utf-8")
    page.write_text(MARK.sub(lambda m: m[1] + table(tallies) + m[2], text), "utf-8")


def show(tally: Tally) -> None:
    """What became of a campaign, for people."""
    print(f"{tally.name}: {tally.cases:,} cases, {len(tally.findings)} findings")
    for outcome, count in sorted(tally.counts.items()):
        print(f"  {count:>8,} {outcome}")
    for finding in tally.findings:
        print(f"  case {finding['number']}: {finding['kind']}: {finding['text']}")


def main() -> int:
    options = arguments()
    tallies = []
    for name in options.campaigns or CAMPAIGNS:
        replies = REPLIES / f"{name}-{options.seed}.jsonl"
        if options.fresh:
            replies.unlink(missing_ok=True)
        count = options.count or CAMPAIGNS[name].cases
        tally = Run(name, CAMPAIGNS[name], count, options.seed, replies).run(options.workers)
        tallies.append(tally)
        if not options.json:
            show(tally)
    if options.json:
        print(json.dumps([tally.record() for tally in tallies], indent=1))
    if not options.campaigns and options.count is None:
        write_page(tallies, PAGE)
    return int(any(tally.findings for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
