"""Ways in which a process may end, wait or fork while a model is in use; none may hang.

    PYTHONPATH=tests python -m support.exits BUNDLE

Each case runs in a child that is forked from this process once the imports are done, because
importing takes longer than a case. Prints a JSON object: case -> [exit status, seconds, output].
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pulse_edge import worker
from pulse_edge.errors import PulseEdgeError
from pulse_edge.model import Model, load
from pulse_edge.page.preparation import DECODED_AT_ONCE, decoding_places

from support.requests import LONG, Q1, Q2, page

LIMIT = 10.0  # seconds a case may take
AT_ONCE = 2  # children
KEPT: list[Any] = []  # what lives until the modules are torn down

Case = Callable[[Path], None]
CASES: dict[str, tuple[Case, int]] = {}  # name -> case, its exit status


def case(status: int = 0) -> Callable[[Case], Case]:
    """Register a case under its name, with the exit status that its child must have."""

    def register(run: Case) -> Case:
        CASES[run.__name__] = (run, status)
        return run

    return register


def forever() -> NoReturn:
    threading.Event().wait()
    raise AssertionError("an event that nobody sets was set")


def at_stage(bundle: Path, stage: str, act: Callable[[], object], done: int = 0) -> Model:
    """A model that calls `act` in its thread, when a request comes to a stage."""

    def progress(name: str, amount: int, total: int) -> None:
        if (name, amount > 0) == (stage, done > 0):
            act()

    return load(bundle, threads=1, prefill_chunk=16, progress=progress)


# --- the interpreter's exit ----------------------------------------------------------------------


@case()
def exit_with_an_unread_stream(bundle: Path) -> None:
    KEPT.append(load(bundle, threads=1).stream(page(), Q1))


@case()
def exit_with_begun_streams(bundle: Path) -> None:
    for _ in range(2):
        model = load(bundle, threads=1)
        for i in range(2):
            stream = model.stream(page(i), Q1, max_new_tokens=LONG)
            next(stream)
            KEPT.append(stream)


@case(3)
def exit_during_the_prefill(bundle: Path) -> None:
    reached = threading.Event()
    model = at_stage(bundle, "prefill", reached.set, done=1)
    reader = threading.Thread(target=lambda: model.ask(page(), Q1), daemon=True)
    reader.start()
    assert reached.wait(LIMIT)
    sys.exit(3)


@case()
def exit_while_a_callback_blocks(bundle: Path) -> None:
    worker.EXIT_SECONDS = 0.3
    reached = threading.Event()

    def block() -> None:
        reached.set()
        forever()

    model = at_stage(bundle, "vision", block)
    threading.Thread(target=lambda: model.ask(page(), Q1), daemon=True).start()
    assert reached.wait(LIMIT)


@case(7)
def sys_exit_in_a_callback(bundle: Path) -> None:
    """It ends the reader, as if the reader had called it."""
    at_stage(bundle, "prefill", lambda: sys.exit(7)).ask(page(), Q1)


@case()
def sys_exit_in_a_callback_of_another_reader(bundle: Path) -> None:
    model = at_stage(bundle, "prefill", lambda: sys.exit(7))
    reader = threading.Thread(target=lambda: model.ask(page(), Q1))
    reader.start()
    reader.join(LIMIT)
    assert not reader.is_alive()


@case()
def exit_while_daemons_wait(bundle: Path) -> None:
    """Some read, some wait for their turn, some ask again and again."""
    model = load(bundle, threads=1)
    begun = threading.Barrier(5)

    def ask(number: int) -> None:
        begun.wait()
        with suppress(PulseEdgeError):  # of one that asks again
            while True:
                model.ask(page(number), Q1, max_new_tokens=LONG)

    for number in range(4):
        threading.Thread(target=ask, args=(number,), daemon=True).start()
    begun.wait()
    time.sleep(0.05)


@case()
def exit_while_a_thread_reads(bundle: Path) -> None:
    """The interpreter waits for a thread that is no daemon, and the thread gets its answer."""
    model = load(bundle, threads=1)

    def ask() -> None:
        assert len(model.ask(page(), Q1, max_new_tokens=30).token_ids) == 30
        print("answered", flush=True)

    threading.Thread(target=ask).start()


@case()
def ask_in_an_atexit_handler(bundle: Path) -> None:
    model = load(bundle, threads=1)
    model.ask(page(), Q1, max_new_tokens=3)
    atexit.register(lambda: print(model.ask(page(), Q2, max_new_tokens=3).finish_reason))


@case()
def ask_in_a_late_atexit_handler(bundle: Path) -> None:
    """It was registered before the model was loaded, so it runs after the model has ended."""
    models: list[Model] = []

    def late() -> None:
        for model in models:
            try:
                model.ask(None, Q2, max_new_tokens=3)
            except PulseEdgeError as error:
                print(error)

    _run_after_finalizers(late)
    models += [load(bundle, threads=1), load(bundle, threads=1)]
    models[0].ask(page(), Q1, max_new_tokens=3)
    KEPT.append(models[0].stream(page(), Q1))


def _run_after_finalizers(handler: Callable[[], None]) -> None:
    """Register a handler before the finalizers, which weakref registers with its first one."""
    run_finalizers = weakref.finalize._exitfunc  # type: ignore[attr-defined]
    atexit.unregister(run_finalizers)
    atexit.register(handler)
    atexit.register(run_finalizers)
    weakref.finalize._registered_with_atexit = True  # type: ignore[attr-defined]


@case()
def exit_with_a_kept_exception(bundle: Path) -> None:
    model = load(bundle, threads=1, context=90)
    for _ in range(2):
        try:
            model.ask(page(), Q1)
        except PulseEdgeError as error:
            KEPT.append(error)
            sys.last_value = error
    stream = model.stream(page(), Q1)
    try:
        next(stream)
    except PulseEdgeError as error:
        KEPT.append((error, stream))
    assert model.ask(None, "a", max_new_tokens=2).usage.new_tokens == 2
    other = load(bundle, threads=1)
    assert other.ask(page(), Q1, max_new_tokens=2).usage.new_tokens == 2
    del model


@case()
def exit_with_a_stream_in_a_cycle(bundle: Path) -> None:
    stream: Any = load(bundle, threads=1).stream(page(), Q1, max_new_tokens=LONG)
    next(stream)
    stream.itself = stream
    gc.disable()


# --- finalizers ----------------------------------------------------------------------------------


@case()
def a_model_is_collected_in_a_lock_of_threading(bundle: Path) -> None:
    """Its finalizer waits for no thread: that thread may need the lock."""
    model = load(bundle, threads=1)
    model.ask(None, Q1, max_new_tokens=2)
    start = time.monotonic()
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        del model
        gc.collect()
    assert time.monotonic() - start < 1


@case()
def streams_are_dropped_in_the_worker_s_thread(bundle: Path) -> None:
    """Of this model and of another, begun and not, by count and by the collector."""
    dropped: list[Any] = []
    other = load(bundle, threads=1)

    def drop() -> None:
        dropped.clear()
        gc.collect()

    model = at_stage(bundle, "prefill", drop, done=1)
    for owner in (model, other, model):
        cycle: Any = owner.stream(page(), Q1)
        cycle.itself = cycle
        dropped += [owner.stream(page(2), Q1), cycle]
    begun = other.stream(page(3), Q1, max_new_tokens=LONG)
    next(begun)
    dropped.append(begun)
    del cycle, begun
    assert model.ask(page(), Q1, max_new_tokens=3).usage.new_tokens == 3
    assert not dropped
    assert other.ask(page(), Q1, max_new_tokens=3).usage.new_tokens == 3


@case()
def a_model_is_dropped_in_another_model_s_callback(bundle: Path) -> None:
    models = [load(bundle, threads=1)]
    models[0].ask(None, Q1, max_new_tokens=2)
    asking = at_stage(bundle, "prefill", models.clear, done=1)
    assert asking.ask(page(), Q1, max_new_tokens=3).usage.new_tokens == 3


# --- callbacks that ask --------------------------------------------------------------------------


@case()
def a_callback_asks_another_model(bundle: Path) -> None:
    other = load(bundle, threads=1)
    answers: list[str] = []
    model = at_stage(bundle, "vision", lambda: answers.append(other.ask(page(), Q1).text))
    assert model.ask(page(), Q1, max_new_tokens=3).usage.new_tokens == 3
    assert len(answers) == 1


@case()
def callbacks_of_two_models_ask_each_other(bundle: Path) -> None:
    """Directly, and both at the same time from two threads: an error, and both go on."""
    models: list[Model] = []
    errors: list[str] = []

    def asking(number: int) -> Callable[[], None]:
        def ask() -> None:
            for _ in range(2):
                try:
                    models[number].ask(page(), Q2, max_new_tokens=2)
                except PulseEdgeError as error:
                    errors.append(str(error))

        return ask

    models += [at_stage(bundle, "prefill", asking(1)), at_stage(bundle, "prefill", asking(0))]
    models[0].ask(page(), Q1, max_new_tokens=2)
    assert errors
    assert all("callback waits" in error for error in errors)
    threads = [threading.Thread(target=model.ask, args=(page(), Q1)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    for model in models:
        model.forget()


@case()
def a_callback_waits_in_every_way(bundle: Path) -> None:
    """For its own model: each is an error."""
    errors: list[str] = []
    chats: list[Any] = []

    def ask() -> None:
        for wait in (
            lambda: model.ask(None, Q1),
            lambda: model.ask(None, Q1, timeout=3600),
            lambda: model.stream(page(1), Q1).answer,
            lambda: next(chats[0].stream(Q1)),
            model.forget,
            lambda: model.run_on_engine(lambda *_: None),
        ):
            try:
                wait()
            except PulseEdgeError as error:
                errors.append(str(error))

    model = at_stage(bundle, "vision", ask)
    chats.append(model.chat(page(2)))
    assert model.ask(page(), Q1, max_new_tokens=3).usage.new_tokens == 3
    assert len([error for error in errors if "callback waits" in error]) == 6


# --- forks ---------------------------------------------------------------------------------------


def _fork(child: Callable[[], None]) -> None:
    """Run `child` in a child that ends by itself, like a script; wait for it."""
    if (process := os.fork()) == 0:
        child()
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


@case()
def fork_while_a_request_runs(bundle: Path) -> None:
    reached = threading.Event()
    resume = threading.Event()

    def pause() -> None:
        reached.set()
        assert resume.wait(LIMIT)

    model = at_stage(bundle, "prefill", pause)
    stream = model.stream(page(), Q1, max_new_tokens=20)
    reader = threading.Thread(target=lambda: KEPT.append(stream.answer.usage.new_tokens))
    reader.start()
    assert reached.wait(LIMIT)

    def child() -> None:
        for wait in (lambda: list(stream), lambda: model.ask(page(), Q1), model.forget):
            with pytest.raises(PulseEdgeError, match="forked"):
                wait()
        fresh = load(bundle, threads=1)
        assert fresh.ask(page(), Q1, max_new_tokens=5).usage.new_tokens == 5

    _fork(child)
    resume.set()
    reader.join(LIMIT)
    assert KEPT == [20]


@case()
def fork_while_others_prepare(bundle: Path) -> None:
    """The child has places of its own, whatever its parent's threads were doing."""
    model = load(bundle, threads=1)
    places = decoding_places(os.getpid())
    for _ in range(DECODED_AT_ONCE):
        places.get()

    def child() -> None:
        assert model.ask(page(), Q1, max_new_tokens=5).usage.new_tokens == 5
        os._exit(0)  # a script's end would wait: its main thread was in the parent

    thread = threading.Thread(target=_fork, args=(child,))
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


@case()
def fork_in_a_callback(bundle: Path) -> None:
    """The child is in the worker's thread, and its exit does not wait for jobs."""
    statuses: list[int] = []

    def fork() -> None:
        if (process := os.fork()) == 0:
            sys.exit()
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))

    model = at_stage(bundle, "vision", fork)
    assert model.ask(page(), Q1, max_new_tokens=5).usage.new_tokens == 5
    assert statuses == [0]


# --- Ctrl-C --------------------------------------------------------------------------------------


def _interrupted(wait: Callable[[], object], begun: threading.Event | None = None) -> None:
    """Ctrl-C in the midst of a wait ends it."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert begun is None or begun.wait(LIMIT)
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        wait()
    except KeyboardInterrupt:
        return
    raise AssertionError("the wait ended without the interrupt")


@case()
def ctrl_c_in_each_wait(bundle: Path) -> None:
    resume = threading.Event()
    reached = threading.Event()

    def pause() -> None:
        reached.set()
        assert resume.wait(LIMIT)

    model = at_stage(bundle, "prefill", pause)
    stream = model.stream(page(), Q1, max_new_tokens=20)
    _interrupted(lambda: next(stream), reached)  # for text
    _interrupted(lambda: stream.answer)  # for the end, of a request that has not obeyed yet
    _interrupted(lambda: model.ask(page(1), Q1))  # for the turn
    _interrupted(lambda: model.ask(page(1), Q1, timeout=LIMIT))
    _interrupted(lambda: model.chat(None).ask(Q1))
    _interrupted(model.forget)
    _interrupted(lambda: model.run_on_engine(lambda *_: None))
    places = decoding_places(os.getpid())
    for _ in range(DECODED_AT_ONCE):
        places.get()
    _interrupted(lambda: model.ask(page(1), Q1))  # for a place to decode in
    for _ in range(DECODED_AT_ONCE):
        places.put(None)
    resume.set()
    assert stream.answer.finish_reason == "cancelled"
    assert model.ask(page(), Q1, max_new_tokens=20).usage.new_tokens == 20


@case()
def ctrl_c_while_the_exit_waits(bundle: Path) -> None:
    """It then waits no longer."""
    worker.EXIT_SECONDS = 3600
    reached = threading.Event()

    def block() -> None:
        reached.set()
        forever()

    model = at_stage(bundle, "vision", block)
    threading.Thread(target=lambda: model.ask(page(), Q1), daemon=True).start()
    assert reached.wait(LIMIT)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)


# --- running them --------------------------------------------------------------------------------


def _child(run: Case, bundle: Path, output: int) -> None:
    for stream in (1, 2):
        os.dup2(output, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(bundle)


def run_all(bundle: Path) -> dict[str, tuple[int | None, float, str]] | None:
    """The outcome of each case; None in a child, which then ends as a script does."""
    waiting = list(CASES)
    running: dict[int, tuple[str, float, int]] = {}  # process -> case, start, output
    outcomes: dict[str, tuple[int | None, float, str]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            output, path = tempfile.mkstemp()
            os.unlink(path)
            process = os.fork()
            if process == 0:
                _child(CASES[name][0], bundle, output)
                return None
            running[process] = (name, time.monotonic(), output)
        time.sleep(0.005)
        for process, (name, start, output) in list(running.items()):
            seconds = time.monotonic() - start
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and seconds < LIMIT:
                continue
            if not ended:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            code = os.waitstatus_to_exitcode(status) if ended else None
            outcomes[name] = (code, seconds, os.pread(output, 10_000, 0).decode())
            os.close(output)
            del running[process]
    return outcomes


def main() -> None:
    outcomes = run_all(Path(sys.argv[1]))
    if outcomes is not None:
        print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
