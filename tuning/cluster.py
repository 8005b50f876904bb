"""A search on several machines: KerasTuner's chief, which has the oracle, and its workers.

Which process is which, `roles` says. The folder of the search is on a disk that all share.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent import futures

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.engine import conditions

from fcnseg.errors import InputError

from .oracles import SearchOracle
from .signs_of_life import Silence, signs_of_life
from .trials import BEST_CONFIG_FILE, SEARCH_FILE, Search
from .worker_devices import keep_devices
from .workers import Share, TrialRunner, Worker, run_worker

_POLL_SECONDS = 0.5
# Others see a sign on NFS after 60 s at most by default; a pod that is started again takes minutes.
_SILENT_SECONDS = 300.0
_FAREWELL_SECONDS = 60.0  # for workers to ask once more, and to be told that the search is over

logger = logging.getLogger(__name__)

# KerasTuner prints each condition that it sends.
conditions.print = lambda *_: None


def serve(oracle: SearchOracle, should_stop: threading.Event) -> None:
    """Answers the workers until there are no more trials.

    KerasTuner's own chief waits in steps of 20 seconds, and for ever for a worker that has died.
    Here the trial of a worker that gives no sign of life is run by another.

    Raises:
        InputError: If the port is taken.
    """
    address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)]
    )
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(f"KERASTUNER_ORACLE_PORT must be free, got {address}") from error
    server.start()
    logger.info(f"the chief listens at {address}")
    oracle.look_ahead()  # nobody asks the chief of a search that is over
    silence, over_since = Silence(oracle.folder), None
    while not should_stop.wait(_POLL_SECONDS):
        for worker in {*oracle.tuner_ids, *oracle.ongoing_trials}:
            if silence.seconds(worker) > _SILENT_SECONDS:
                oracle.give_up(worker)
        over_since = (over_since or time.monotonic()) if oracle.is_over() else None
        if over_since is None:
            continue
        if not oracle.tuner_ids or time.monotonic() - over_since > _FAREWELL_SECONDS:
            break
    server.stop(grace=1).wait()


def work(oracle: SearchOracle, runner: TrialRunner, search: Search, share: Share) -> None:
    """Runs trials that the chief gives, until there are no more.

    Raises:
        InputError: If the chief's search began with something else, or other workers have more or
            fewer GPUs.
        TrialStoppedError: If it was stopped in a trial.
    """
    while not (runner.folder / SEARCH_FILE).exists():
        if runner.should_stop.wait(_POLL_SECONDS):
            return
    search.begin_or_resume(runner.folder)
    keep_devices(runner.folder, share)
    if (runner.folder / BEST_CONFIG_FILE).exists():
        logger.info("the search is over")
        return
    worker = Worker(oracle, runner, share=share)
    with signs_of_life(runner.folder, worker.tuner_id):
        run_worker(worker)
