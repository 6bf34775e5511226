"""The straight line of one request: image and question -> streamed text -> `Answer`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.answer import Answer, Timings, Usage
from pulse_edge.arrays import Numbers
from pulse_edge.bundle.bundle import Bundle, opening
from pulse_edge.bundle.manifest import TOKENIZER
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Lookup
from pulse_edge.decode.result import Generation
from pulse_edge.engines.engine import Engine, Features, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ContextError, EngineError, ParameterError, PulseEdgeError
from pulse_edge.page import source
from pulse_edge.page import views as images
from pulse_edge.page.source import ImageSource
from pulse_edge.page.tokens import image_rows
from pulse_edge.params import SamplingParams
from pulse_edge.progress import Progress
from pulse_edge.text.detokenizer import TextStream
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_edge.text.tokenizer import Tokenizer

EMBEDDED = Path(__file__).parent / "assets" / "pulse-nano"  # the bundle that ships with the package


def load(
    bundle: str | Path | None = None,
    device: str = "auto",
    *,
    threads: int = 0,
    context: int | None = None,
    prefill_chunk: int | None = None,
    check_hashes: bool = True,
    progress: Progress | None = None,
) -> Model:
    """Open a bundle and its engine.

    bundle: a directory that `pulse-edge export` made; None is the small demonstration model inside the package.
    device: `auto` (what the bundle was exported for), `cpu` or `cuda`. threads: 0 leaves it to the engine.
    context: cap on prompt + answer in tokens, for less cache memory. prefill_chunk: prompt tokens at a time, 0 for all,
    None for what suits the device.
    check_hashes: False skips the SHA-256 check of the files, not of their presence and size.
    progress: told what goes on while it takes long, here and in every request.
    Raises `BundleError`, `EngineError`.
    """
    options = EngineOptions(device, threads, context, prefill_chunk)
    with opening(EMBEDDED if bundle is None else bundle, check_hashes, progress) as opened:
        if progress:
            progress("loading", 0, 1)
        return Model(opened, open_engine(opened, options), progress)


@dataclass(frozen=True)
class Request:
    """A prompt ready to run: ids with `IMAGE` in the image's place, and the image as it was handed in."""

    ids: tuple[int, ...]
    prompt: str
    source: ImageSource | None
    encoded: bytes | None  # the image file's bytes, where there is a file
    name: str
    params: SamplingParams


@dataclass
class _KnownImage:
    """The last image: what it was, its features, and which of them its tokens are."""

    encoded_sha256: str | None
    page_sha256: str
    record: dict[str, Any]  # for provenance
    features: Features
    tokens: Numbers  # [tokens], of `Engine.rows`

    @property
    def key(self) -> int:
        """Stands for each of this image's tokens where a prompt is compared with the cache's content."""
        return -1 - int(self.page_sha256[:15], 16)


class Model:
    """A loaded bundle. Safe to use from several threads: requests run one after the other."""

    def __init__(self, bundle: Bundle, engine: Engine, progress: Progress | None = None) -> None:
        self.bundle, self._engine, self._progress = bundle, engine, progress
        manifest = bundle.manifest
        self._spec = manifest.model
        self._tokenizer = Tokenizer(bundle.file(TOKENIZER), self._spec.prompt.legacy)
        text = self._spec.text
        self._prompts = PromptBuilder(self._spec.prompt, self._tokenizer, text.bos, text.eos[0])
        self._cached: list[int] = []  # the engine's cache: token ids, and an image's key for each of its tokens
        self._image: _KnownImage | None = None
        self._lookup = Lookup(self._tokenizer.numbers)
        self._lock, self._owner = threading.Lock(), 0

    def ask(self, image: ImageSource | None, question: str, **params: Any) -> Answer:
        """Answer one question about one page (or none). `params` are those of `SamplingParams`.

        Raises `ImageError`, `ContextError`, `ParameterError`, `EngineError`.
        """
        return self.stream(image, question, **params).answer

    def stream(self, image: ImageSource | None, question: str, **params: Any) -> Stream:
        """Like `ask`, lazily: iterate to receive text while it is generated; `.answer` drains the rest."""
        ids = self._prompts.first_turn(question, image is not None)
        return self._start(ids, self._prompts.text(question, image is not None), image, _params(params))

    def chat(self, image: ImageSource | None) -> Chat:
        """A conversation about one page; each turn sees the ones before."""
        return Chat(self, image)

    def forget(self) -> None:
        """Drop what earlier requests left behind: the last image's tokens, the cache's content, and what lookup would
        draft from. The next request computes everything."""
        self._acquire()
        try:
            self._cached, self._image = [], None
            self._engine.rewind(0)
            self._lookup.forget()
        finally:
            self._release()

    def _start(self, ids: list[int], prompt: str, image: ImageSource | None, params: SamplingParams) -> Stream:
        encoded, name = (None, "") if image is None else source.read_bytes(image)
        return Stream(self, Request(tuple(ids), prompt, image, encoded, name, params))

    def _run(self, request: Request, state: _State) -> Generator[str, None, None]:
        """One request from the beginning to the end; the generator behind `Stream`."""
        self._acquire()
        state.running, failed = True, False
        try:
            start, out = time.perf_counter(), state.out
            stages = dict.fromkeys(("decode_image", "preprocess", "vision", "prefill"), 0.0)
            known = self._look_at(request, stages) if request.source is not None else None
            keys = self._keys(request.ids, known)
            reused = self._rewind_to_shared(keys)
            with _clock(stages, "prefill"):
                logits = self._engine.prefill(self._rows(keys[reused:], known), self._progress)
            self._cached = keys
            params, eos = request.params, self._spec.text.eos
            lookup = self._lookup if params.speculate else None
            text = TextStream(self._tokenizer, params.stop)
            if lookup is not None:
                lookup.begin(keys)
            try:
                with closing(generate(self._engine, logits, params, eos, text, out, lookup)) as pieces:
                    for piece in pieces:
                        state.text += piece
                        yield piece
            except Exception:
                failed = True
                with suppress(EngineError):  # the error that is on its way says more
                    self._engine.reset()
                raise
            finally:  # also where the caller left
                self._cached = (keys + out.tokens)[: self._engine.length]
                if not failed:
                    image = len(known.tokens) if known else 0
                    usage = Usage(len(keys), image, reused, len(out.tokens), out.drafted, out.accepted)
                    timings, provenance = _timings(stages, out, start), self._provenance(request, known)
                    state.answer = Answer(state.text, tuple(out.tokens), out.finish_reason, usage, timings, provenance)
        finally:
            state.running = False
            self._release()

    def _look_at(self, request: Request, stages: dict[str, float]) -> _KnownImage:
        """The request's image as tokens, from memory when it is the one seen last."""
        assert request.source is not None
        digest = hashlib.sha256(request.encoded).hexdigest() if request.encoded is not None else None
        known = self._image
        if known and digest and known.encoded_sha256 == digest:
            return known
        with _clock(stages, "decode_image"):
            page = source.decode(request.source, request.encoded, request.name)
        if known and known.page_sha256 == page.sha256:  # the same page, perhaps from another kind of file
            record = known.record | {"format": page.format, "exif_orientation": page.orientation}
            self._image = dataclasses.replace(known, encoded_sha256=digest, record=record)
            return self._image
        with _clock(stages, "preprocess"):
            pixels = images.preprocess(page.image, self._spec)
        with _clock(stages, "vision"):
            if self._progress:
                self._progress("vision", 0, len(pixels))
            self._image = None  # the engine may keep one page's features: the last one's are gone from here on
            features = self._engine.encode(pixels)
            tokens = image_rows(len(pixels), page.size, self._spec, self._engine.table_rows)
        record = {
            "sha256": page.sha256, "width": page.size[0], "height": page.size[1], "format": page.format,
            "exif_orientation": page.orientation, "views": len(pixels), "tokens": len(tokens),
        }  # fmt: skip
        self._image = _KnownImage(digest, page.sha256, record, features, tokens)
        return self._image

    def _keys(self, ids: tuple[int, ...], known: _KnownImage | None) -> list[int]:
        """The prompt as the cache would hold it. Raises `ContextError` when it does not fit."""
        keys: list[int] = []
        for token in ids:
            keys.extend([known.key] * len(known.tokens) if known and token == IMAGE else [token])
        if len(keys) >= self._engine.capacity:
            image = len(known.tokens) if known else 0
            raise ContextError(
                f"the prompt is {len(keys)} tokens ({image} of the image, {len(keys) - image} of text) and the context "
                f"{self._engine.capacity}, which must hold at least one token more; shorten the question or the chat"
            )
        return keys

    def _rewind_to_shared(self, keys: list[int]) -> int:
        """Cut the cache back to what it shares with `keys`; at least one token is left to run, for its logits."""
        limit = min(len(self._cached), len(keys) - 1)
        shared = next((i for i in range(limit) if self._cached[i] != keys[i]), limit)
        self._cached = self._cached[:shared]  # first: where Ctrl-C comes between, it claims too little, never too much
        self._engine.rewind(shared)
        return shared

    def _rows(self, keys: list[int], known: _KnownImage | None) -> Rows:
        """Rows [len(keys), …]; the image is among the keys as a whole or not at all, as in the cache."""
        numbers = np.array(keys, np.int64)
        image = numbers < 0
        if known is None or not image.any():
            return self._engine.rows(numbers)
        numbers[image] = known.tokens
        return self._engine.rows(numbers, known.features)

    def _provenance(self, request: Request, known: _KnownImage | None) -> dict[str, Any]:
        manifest = self.bundle.manifest
        return {
            "bundle": self.bundle.digest,
            "checkpoint": dataclasses.asdict(manifest.checkpoint),
            "image": dict(known.record) if known else None,
            "precision": dataclasses.asdict(manifest.precision),
            "target": manifest.target,
            "engine": self._engine.describe(),
            "versions": dict(_versions()),
            "machine": platform.machine(),
            "prompt": request.prompt,
            "parameters": dataclasses.asdict(request.params),
        }

    def _acquire(self) -> None:
        if self._owner == threading.get_ident():  # waiting would wait for ourselves
            raise PulseEdgeError("another answer of this model is being streamed; finish or close it first")
        self._lock.acquire()
        self._owner = threading.get_ident()

    def _release(self) -> None:
        self._owner = 0
        self._lock.release()


@dataclass
class _State:
    """How far a request is. Not part of its `Stream`, which the generator would then keep alive: a stream that is
    dropped midway (`for … in model.stream(…): break`) must end at once, not at some garbage collection."""

    out: Generation = field(default_factory=Generation)
    text: str = ""
    running: bool = False
    answer: Answer | None = None


class Stream:
    """A lazy answer. Iterate for text; `.answer` drains; `close()` (or leaving a `with`) cancels within one token."""

    def __init__(self, model: Model, request: Request) -> None:
        self.request, self._state = request, _State()
        self._pieces: Generator[str, None, None] = model._run(request, self._state)

    @property
    def text(self) -> str:
        """What was received so far."""
        return self._state.text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel. Also from another thread than the one that iterates, which then stops after its current token."""
        self._state.out.cancelled = True
        with suppress(ValueError):  # "generator already executing", in that other thread
            self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; what was cancelled has `finish_reason` "cancelled". Raises what the request raises."""
        for _ in self._pieces:
            pass
        if self._state.answer is None:
            raise PulseEdgeError("this answer was closed before it began, or failed")
        return self._state.answer


class Chat:
    """Turns about one page. A turn that raises or is cancelled is not part of the conversation."""

    def __init__(self, model: Model, image: ImageSource | None) -> None:
        self._model = model
        # Read once: a later turn must see the same image even if the file or the array has changed.
        encoded = None if image is None else source.read_bytes(image)[0]
        self._source: ImageSource | None = image.copy() if isinstance(image, np.ndarray) else encoded or image
        self._ids: list[int] = []
        self._prompt = ""
        self._last: tuple[Request, _State] | None = None

    def ask(self, question: str, **params: Any) -> Answer:
        return self.stream(question, **params).answer

    def stream(self, question: str, **params: Any) -> Stream:
        """The next turn; raises `ParameterError` while the turn before is still being streamed."""
        self._settle()
        model, prompts = self._model, self._model._prompts
        if self._ids:
            ids, prompt = self._ids + prompts.next_turn(question), f"{self._prompt}</s>{prompts.turn_text(question)}"
        else:
            has_image = self._source is not None
            ids, prompt = prompts.first_turn(question, has_image), prompts.text(question, has_image)
        stream = model._start(ids, prompt, self._source, _params(params))
        self._last = stream.request, stream._state
        return stream

    def _settle(self) -> None:
        """Take the last turn into the conversation."""
        if self._last is None:
            return
        request, state = self._last
        if state.running:
            raise ParameterError("the turn before is still being streamed; finish or close it first")
        if state.answer is not None and state.answer.finish_reason != "cancelled":
            self._ids = [*request.ids, *state.answer.token_ids]
            self._prompt = f"{request.prompt} {state.answer.text}"
        self._last = None


def _params(params: dict[str, Any]) -> SamplingParams:
    legal = [f.name for f in dataclasses.fields(SamplingParams)]
    unknown = sorted(params.keys() - set(legal))
    if unknown:
        raise ParameterError(f"unknown parameter {', '.join(unknown)}; there are {', '.join(legal)}")
    return SamplingParams(**params)


class _clock:
    """Adds the seconds spent inside to an entry of `stages`."""

    def __init__(self, stages: dict[str, float], name: str) -> None:
        self._stages, self._name = stages, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._stages[self._name] += time.perf_counter() - self._start


def _timings(stages: dict[str, float], out: Generation, start: float) -> Timings:
    first, last, count = out.first_token_at, out.last_token_at, len(out.tokens) + (out.finish_reason == "eos")
    return Timings(
        **stages,
        decode_steps=tuple(out.step_seconds),
        sample=out.sample_seconds,
        detokenise=out.detokenise_seconds,
        ttft=first - start if first else None,
        tpot=(last - first) / (count - 1) if first and last and count > 1 else None,
        total=time.perf_counter() - start,
    )


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version  # 50 ms of imports that only an answer needs

    names = ("pulse-edge", "numpy", "pillow", "sentencepiece")
    return {name: version(name) for name in names} | {"python": platform.python_version()}
