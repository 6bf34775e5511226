"""A benchmark's record as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pulse_edge.measure.contention import busy_reasons
from pulse_edge.measure.figures import Point, Record

SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1, " s"), (1e-3, " ms"), (1e-6, " us")),
    "bytes": ((1e9, " GB"), (1e6, " MB"), (1e3, " kB")),
    "tokens/s": ((1, "/s"),),
}


def number(value: float, unit: str) -> str:
    """A value with its unit, to three digits or more. `unit`: a key of `SCALES`."""
    scale, name = next((s for s in SCALES[unit] if abs(value) >= s[0]), SCALES[unit][-1])
    value /= scale
    return f"{value:,.0f}{name}" if abs(value) >= 100 else f"{value:.3g}{name}"


STAGE_HEADER = ("", "p50", "95 % interval", "p90", "p99", "n", "")


def record_text(record: Record) -> str:
    """What ran, the figures of a request, the sweeps, and how quiet the machine was."""
    figures = record["figures"]
    sweeps = {Point(**p).name: p for p in record["sweeps"]}
    stages: list[Sequence[str]] = [STAGE_HEADER]
    stages += [_stage_row(name, f) for name, f in figures.items() if name not in sweeps]
    parts = ["\n".join(headline(record)), table(stages, left=(0, 6))]
    if "tpot" in figures:
        parts.append(f"1 / median TPOT: {number(1 / figures['tpot']['p50'], 'tokens/s')}")
    if sweeps:
        rows = (_sweep_row(name, figures[name], point) for name, point in sweeps.items())
        parts.append(table([SWEEP_HEADER, *rows]))
        parts.append("\n".join(footnotes(record)))
    parts.append("\n".join(conditions(record)))
    return "\n\n".join(parts)


def _stage_row(name: str, f: Record) -> tuple[str, ...]:
    unit = f["unit"]
    p99 = "-" if f["p99"] is None else number(f["p99"], unit)
    return (
        name,
        number(f["p50"], unit),
        interval_text(f),
        number(f["p90"], unit),
        p99,
        str(len(f["samples"])),
        f["what"],
    )


def interval_text(f: Record) -> str:
    """The interval of a figure's median; "-" if it was measured once."""
    if len(f["samples"]) < 2:
        return "-"
    return f"{number(f['low'], f['unit'])} to {number(f['high'], f['unit'])}"


def doubts(record: Record) -> Iterator[str]:
    """Why figures may not be what the machine can do: a measurement that was interrupted or not
    warm, and other work."""
    if record["interrupted"]:
        yield f"INTERRUPTED at its {record['interrupted']}: the figures are of what was complete."
    reasons = busy_reasons(record["contention"])
    if reasons:
        yield f"BUSY machine: {'; '.join(reasons)}."
    unstable = [name for name, w in record["warmup"].items() if _not_stable(w)]
    if unstable:
        yield f"Not yet stable when the warm-up ended: {', '.join(unstable)}."


def conditions(record: Record) -> Iterator[str]:
    """How the machine and the measurement were: warm-up, other work, goodput, energy."""
    yield from doubts(record)
    yield contention_text(record["contention"])
    if record["goodput"]:
        good = record["goodput"]
        slo = " ".join(f"{metric}:{limit:g}" for metric, limit in good["objectives_ms"].items())
        yield (
            f"Request goodput (req/s): {good['requests_per_s']:.3g}; {good['good']} of "
            f"{good['requests']} cold requests within {slo} ms."
        )
    for meter in record["energy"]:
        yield (
            f"Energy, {meter['meter']}: {meter['joules_per_answer']:.3g} J per answer, "
            f"{meter['joules_per_token']:.3g} J per token after the first, "
            f"{meter['watts']:.3g} W ({meter['source']}; the whole part, idle power included)."
        )


def contention_text(contention: Record) -> str:
    """What else the machine did."""
    shares = {
        "other processes": contention["others"],
        "stolen": contention["steal"],
        "throttled": contention["throttled"],
    }
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share is not None)
    return f"Of the cores' time in {contention['seconds']:.0f} s: {told or 'not told here'}."


def _not_stable(warmup: Record) -> bool:
    return warmup["repetitions"] > 1 and not warmup["stable"]


SWEEP_HEADER = (
    "tokens",
    "p50",
    "95 % interval",
    "p90",
    "GFLOP/s",
    "of GEMM peak",
    "read/token",
    "GB/s",
    "of read peak",
)


def _sweep_row(name: str, f: Record, point: Record) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    return (
        name,
        number(f["p50"], f["unit"]),
        interval_text(f),
        number(f["p90"], f["unit"]),
        f"{point['flop_per_s'] / 1e9:.3g}",
        share(point["gemm_share"]),
        number(point["read"] / point["tokens"], "bytes"),
        f"{point['read_per_s'] / 1e9:.3g}",
        share(point["read_share"]),
    )


def headline(record: Record) -> Iterator[str]:
    """What ran on what."""
    provenance = record["provenance"]
    machine = record["machine"]
    tokens = record["tokens"]
    engine = provenance["engine"]
    precision = provenance["precision"]
    yield (
        f"{provenance['checkpoint']['name']} {precision['name']}, "
        f"bundle {provenance['bundle'][:12]}; "
        f"{engine['engine']} {engine['engine_version']} on {engine['device']}, "
        f"threads {engine['threads'] or 'chosen by the engine'}, context {engine['context']}; "
        f"{record['time']}, commit {record['commit'] or 'not known'}"
    )
    yield (
        f"weights {precision['decoder']}, head {precision['head']}, "
        f"vision {precision['vision']}, activations {precision['activations']}, "
        f"cache {precision['kv_cache']}"
    )
    named = {
        "cores": machine["cores"],
        "usable": machine["usable_cores"],
        "simd": " ".join(machine["simd"]),
        "load average at the start": machine["load_average"],
        "governor": machine["governor"],
        "clock MHz": machine["clock_now"],
        "power mode": machine["power_mode"],
        "gpu": machine["gpu"],
    }
    yield ", ".join(
        [f"{machine['name']}", *(f"{k} {v}" for k, v in named.items() if v not in (None, ""))]
    )
    yield (
        f"prompt {tokens['prompt']} tokens, {tokens['image']} of the image; "
        f"{tokens['new']} new tokens, greedy, end of sequence ignored; "
        f"the second question reused {tokens['reused']}"
    )


def footnotes(record: Record) -> Iterator[str]:
    """What the sweep's columns are measured against."""
    peaks = record["peaks"]
    yield (
        "pp: prefill from an empty cache; tg: single steps at a depth; engine alone, "
        "random embeddings, no sampling."
    )
    yield (
        "read/token: decoder and head weights once a pass, plus the cache before it; "
        "no share where caches hold it."
    )
    if peaks:
        gemm = "; ".join(
            f"{kind} {rate / 1e9:.3g} GFLOP/s ({peaks['gemm_library'][kind]})"
            for kind, rate in peaks["gemm"].items()
        )
        yield (
            f"read peak {peaks['read'] / 1e9:.3g} GB/s: numpy over "
            f"{number(peaks['read_buffer'], 'bytes')}, best pass. "
            f"GEMM peaks, {peaks['gemm_size']} x {peaks['gemm_size']}: {gemm}. "
            f"All with {peaks['threads']} threads. "
            f"Shares of the GEMM peak are of {record['gemm_type']}'s, which is what this precision "
            "multiplies; attention is counted with it, though it runs in fp32."
        )
    else:
        yield "No peaks: they are measured on CPUs only, in a process of their own."
    for reason in record["skipped"]:
        yield f"skipped {reason}"


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns padded to their widest cell, without lines between.

    Args:
        rows: of equal length, the header first.
        left: columns of words, which stand on the left; the others are numbers.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, rows))
