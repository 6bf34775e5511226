"""The campaigns there are, with the counts of a full one."""

from __future__ import annotations

from fuzz.bundles import Bundles
from fuzz.campaign import Entry
from fuzz.carts import Carts
from fuzz.checkpoints import Checkpoints
from fuzz.cli import CommandLines
from fuzz.exports import KilledExports
from fuzz.images import Images
from fuzz.operations import OPERATIONS, THREADS, Operations
from fuzz.pdfs import Pdfs
from fuzz.recordings import Recordings
from fuzz.server import ServerBodies

CONCURRENT = 53_502  # operations

CAMPAIGNS = {
    "images": Entry("damaged image files", Images, 20_000),
    "recordings": Entry("damaged DICOM recordings", Recordings, 3_600),
    # 2,000 of each format: WFDB's two files, and two kinds of SCP-ECG and EDF, have a seed each.
    "carts": Entry("damaged files of carts, 10 seeds", Carts, 20_000),
    "pdfs": Entry("damaged PDFs, some of them bombs", Pdfs, 2_000),
    "bundles": Entry("changed manifests and bundles", Bundles, 25_155),
    "checkpoints": Entry("changed checkpoints", Checkpoints, 10_000),
    "cli": Entry("command lines", CommandLines, 3_000, seconds=20.0),
    "exports": Entry("killed exports", KilledExports, 240, seconds=20.0),
    "operations": Entry(
        "concurrent operations, 18 a case", Operations, -(-CONCURRENT // (THREADS * OPERATIONS)),
        seconds=20.0,
    ),
    "server": Entry("malformed requests to a server", ServerBodies, 10_000, seconds=20.0),
}  # fmt: skip
