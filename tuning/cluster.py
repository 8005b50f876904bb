"""A search on several machines: KerasTuner's chief, which has the oracle, and its workers.

Which process is which, `roles` says. The folder of the search is on a disk that all share.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.engine import conditions

from fcnseg.errors import FcnsegError, InputError

from .oracles import SearchOracle
from .signs_of_life import Silence, signs_of_life
from .trials import BEST_CONFIG_FILE, SEARCH_FILE, Search
from .worker_devices import keep_devices
from .workers import Share, TrialRunner, Worker, run_worker

_POLL_SECONDS = 0.5
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # of a chief that has ended
# Others see a sign on NFS after 60 s at most by default; a pod that is started again takes minutes.
_SILENT_SECONDS = 300.0
_FAREWELL_SECONDS = 60.0  # for workers to ask once more, and to be told that the search is over

logger = logging.getLogger(__name__)


class ChiefLostError(FcnsegError):
    """The chief of a search is away."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: a supervisor starts the worker again


# KerasTuner prints each condition that it sends.
conditions.print = lambda *_: None


def serve(oracle: SearchOracle, should_stop: threading.Event) -> None:
    """Answers the workers until there are no more trials.

    KerasTuner's own chief waits in steps of 20 seconds, and for ever for a worker that has died.
    Here the trial of a worker that gives no sign of life is run by another.

    Raises:
        InputError: If the port is taken.
        OutputError: If the list of trials cannot be written.
    """
    address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)]
    )
    servicer = _Servicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(f"KERASTUNER_ORACLE_PORT must be free, got {address}") from error
    server.start()
    logger.info(f"the chief listens at {address}")
    silence, over_since = Silence(oracle.folder), None
    while not should_stop.wait(_POLL_SECONDS) and servicer.failure is None:
        for worker in {*oracle.tuner_ids, *oracle.ongoing_trials}:
            if silence.seconds(worker) > _SILENT_SECONDS:
                oracle.give_up(worker)
        over_since = (over_since or time.monotonic()) if oracle.is_over() else None
        if over_since is None:
            continue
        if not oracle.tuner_ids or time.monotonic() - over_since > _FAREWELL_SECONDS:
            break
    server.stop(grace=1).wait()
    if servicer.failure is not None:
        raise servicer.failure


class _Servicer(OracleServicer):
    """Answers the workers, but for a chief that fails, as on a full disk: they ask the next one.

    Attributes:
        failure: Error of the oracle; None while there was none.
    """

    def __init__(self, oracle: SearchOracle) -> None:
        super().__init__(oracle)
        self.failure: Exception | None = None

    def CreateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Gives a trial to a worker."""
        return self._answer(super().CreateTrial, request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Takes the end of a trial."""
        return self._answer(super().EndTrial, request, context)

    def _answer(self, method: Callable[..., Any], request: Any, context: Any) -> Any:
        if self.failure is None:
            try:
                return method(request, context)
            except Exception as error:
                self.failure = error
        return context.abort(grpc.StatusCode.UNAVAILABLE, "the chief ends")


class _Stub:
    """Calls of the chief that wait for it as long as the worker is not to stop."""

    def __init__(self, stub: Any, should_stop: threading.Event) -> None:
        self._stub = stub
        self._should_stop = should_stop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._answer, getattr(self._stub, name))

    def _answer(self, method: Any, request: Any, **options: Any) -> Any:
        while True:
            call = method.future(request, **options)
            self._wait(call)
            error = call.exception()
            if error is None:
                return call.result()
            if error.code() not in _AWAY:
                raise ChiefLostError(f"the chief does not answer: {error.details()}") from error
            if self._should_stop.wait(_POLL_SECONDS):
                raise keras_tuner.errors.FatalError("stopped")

    def _wait(self, call: Any) -> None:
        has_ended = threading.Event()
        call.add_done_callback(lambda _: has_ended.set())
        while not has_ended.wait(_POLL_SECONDS):
            if self._should_stop.is_set():
                call.cancel()
                raise keras_tuner.errors.FatalError("stopped")


def has_ended(oracle: SearchOracle, *, retry_failed: bool = False) -> bool:
    """Tells whether the search in an oracle's folder is over, also by the limits that it has now.

    Args:
        oracle: Oracle of a worker, which has not read the trials yet.
        retry_failed: True if failed trials are to be run again.
    """
    if not (oracle.folder / BEST_CONFIG_FILE).exists():
        return False
    oracle.reload(has_workers_elsewhere=True)
    if retry_failed:
        oracle.retry_failed()
    oracle.look_ahead()
    return oracle.is_over()


def work(
    oracle: SearchOracle,
    runner: TrialRunner,
    search: Search,
    share: Share,
    *,
    retry_failed: bool = False,
) -> None:
    """Runs trials that the chief gives, until there are no more.

    Args:
        oracle: Oracle of the search.
        runner: Runs the trials.
        search: What the search is to have begun with.
        share: The part of this machine.
        retry_failed: True if failed trials are to be run again.

    Raises:
        InputError: If the chief's search began with something else, or other workers have more or
            fewer GPUs.
        TrialStoppedError: If it was stopped in a trial.
        ChiefLostError: If the chief is away for an hour.
    """
    while not (runner.folder / SEARCH_FILE).exists():
        if runner.should_stop.wait(_POLL_SECONDS):
            return
    search.begin_or_resume(runner.folder)
    keep_devices(runner.folder, share)
    if has_ended(oracle, retry_failed=retry_failed):
        logger.info("the search is over")
        return
    worker = Worker(oracle, runner, share=share)
    worker.oracle.stub = _Stub(worker.oracle.stub, runner.should_stop)
    with signs_of_life(runner.folder, worker.tuner_id):
        run_worker(worker)
