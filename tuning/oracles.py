"""KerasTuner's oracles, with what is wrong in them for long searches mended.

What is proposed next depends on the space, the seed and the trials so far alone. So the list of
trials is all the state there is, and every oracle resumes from it. Mended (threads of keras-tuner
at github.com/keras-team/keras-tuner, version 1.4.8):

* `seed=0` drew another seed each time (`seed or random`, `Oracle.__init__`; #421).
* A setting was drawn again and again, or the search ended before all were tried (#417, #35).
* Grid search could not resume (#1055).
* `oracle.json` was written in place, and nothing was saved before the first trial had ended (#702).
* Hyperband counted completed trials alone, so that one failure stopped its promotions, and never
  promoted over a small space (#676).
* `max_consecutive_failed_trials` raised with the lock held (that of #810), and counted models that
  are too large (#764).
* The Bayesian oracle saved no random state, skipped failed trials, so that it went there again, and
  trained one setting eight times (#237).
* `get_best_trials` filled up with failed ones, and ranked a score of NaN second (#656): `fcnseg`
  ranks its own trials.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import math
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
import numpy as np
from keras_tuner.engine import trial as kt_trial

from fcnseg.config import Config
from fcnseg.errors import ConfigError, FcnsegError
from fcnseg.runs.run_folder import CHECKPOINT_FILE

from .space import SearchSpace
from .trials import TRIALS_FOLDER, Outcome, Progress, Trial, outcome_file, ranked

SETTINGS = "fcnseg/settings"
UNTIL_EPOCH = "tuner/epochs"  # the name that KerasTuner's Hyperband has for it
_MOST_COMBINATIONS = 100_000  # of a finite space that are listed, in about a second
_MOST_COLLISIONS = 1000  # draws that repeat before an infinite space counts as exhausted
_MOST_FAILURES = 5  # in a row, not by settings: then something else is wrong
_DISK_SECONDS = 90.0  # NFS caches that a file is not there, for 60 s at most by default
_POLL_SECONDS = 0.5
_RESTARTS = 2  # of the fit of the kernel, which has one length scale
_MOST_POINTS = 3000  # compared for each draw, in some hundredths of a second
_MOST_NEIGHBOURS, _NEIGHBOUR = 5, 0.05  # best trials with points near them; how near, of 1
_FACTOR = 3  # of Hyperband: of so many trials one is promoted, to so many times the epochs
_STATUS = kt_trial.TrialStatus

logger = logging.getLogger(__name__)


class FailedTrialsError(FcnsegError):
    """Too many trials failed in a row."""


class Proposal(NamedTuple):
    """A trial to begin.

    Attributes:
        trial_id: Id of the trial.
        settings: Settings by dotted key.
        until_epoch: Epoch after which it ends.
        bracket: Number of its bracket.
        rung: Number of its rung.
    """

    trial_id: str
    settings: dict[str, Any]
    until_epoch: int
    bracket: int | None = None
    rung: int = 0


class Limits(NamedTuple):
    """When a search ends.

    Attributes:
        trials: Most settings, the base configuration among them; None for no limit.
        seconds: Wall time after which no trial begins.
    """

    trials: int | None = None
    seconds: float | None = None


class SearchOracle(keras_tuner.Oracle):
    """The part that all oracles share: the list of trials, its file, and no setting twice.

    Attributes:
        progress: The trials so far.
        ended: Reason for which there is no other trial; None while there may be one.
        error: Error that ended the search.
        exhausted: What is said when there is nothing left to try.
    """

    exhausted = "all settings of the search space are tried"

    def __init__(
        self,
        space: SearchSpace,
        base: Config,
        *,
        folder: Path,
        objective: str,
        limits: Limits,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Makes the oracle, with the trials that a search in the folder has had.

        Args:
            space: Search space, checked against the base configuration.
            base: Base configuration, which is trial 0.
            folder: Folder of the search.
            objective: Name of the objective, which is maximised.
            limits: When the search ends.
            seed: Seed of the draws.
            **options: Further arguments of KerasTuner's oracle.
        """
        super().__init__(
            objective=keras_tuner.Objective(objective, "max"),
            hyperparameters=space.hyperparameters(),
            allow_new_entries=False,
            tune_new_entries=False,
            seed=seed,
            **options,
        )
        self.seed = seed
        self.space = space
        self.base = base
        self.folder = folder
        self.limits = limits
        self.ended: str | None = None
        self.error: FcnsegError | None = None
        self.lock = threading.RLock()  # KerasTuner's own stays held after an error
        self._is_finite = space.is_finite(most=_MOST_COMBINATIONS)
        self._own = space.own_values(base)
        self._has_workers_elsewhere = False
        self._began = time.monotonic()
        self._earlier = 0.0
        self.progress = Progress()

    @property
    def epochs(self) -> int:
        """Epochs of a complete training."""
        return self.base.training.epochs

    # What a strategy has of its own.

    def propose(self, *, may_be_fresh: bool) -> Proposal | None:
        """Proposes a trial; None if there is none, now or ever.

        Args:
            may_be_fresh: True if it may have settings of its own.
        """
        settings = self.draw(len(self.fresh_trials())) if may_be_fresh else None
        return None if settings is None else self.fresh(settings)

    def draw(self, number: int) -> dict[str, Any] | None:
        """Draws settings that were not tried; None if all were.

        Args:
            number: Number of settings drawn so far.
        """
        return self.draw_at_random(number)

    def is_waiting(self) -> bool:
        """True if the end of a running trial may lead to another trial."""
        return False

    def losers(self) -> set[str]:
        """The run folders of trials that ended before their last epoch and are not resumed."""
        return set()

    # What they share.

    def fresh_trials(self) -> list[Trial]:
        """The first rung of each trial but that of the base configuration."""
        return [each for each in self.progress.trials if each.rung == 0 and each.trial_id != "0"]

    def draw_at_random(self, number: int) -> dict[str, Any] | None:
        """Draws settings for a number; None if all were tried."""
        self._seed_state = self.seed_of(number)
        self._max_collisions = _MOST_COLLISIONS
        drawn = self._random_values()
        if drawn is not None:
            return self.space.decoded(drawn)
        left = [each for each in self._combinations() if not self.is_tried(each)]
        return random.Random(self.seed_of(number)).choice(left) if left else None

    def is_tried(self, settings: Mapping[str, Any]) -> bool:
        """Tells whether a trial has had such settings."""
        key = self._key(settings)
        return any(self._key(trial.settings) == key for trial in self.progress.trials)

    def seed_of(self, number: int) -> int:
        """The seed of a draw; those of neighbours have nothing in common."""
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        return int.from_bytes(digest[:4], "little")

    def _combinations(self) -> Iterator[dict[str, Any]]:
        return self.space.combinations() if self._is_finite else iter(())

    def _key(self, settings: Mapping[str, Any]) -> str:
        """The settings that differ from the base configuration, as text."""
        changed = {key: value for key, value in settings.items() if value != self._own[key]}
        return json.dumps(changed, sort_keys=True)

    def fresh(self, settings: dict[str, Any]) -> Proposal:
        """A trial with settings of its own, to be trained to the end."""
        return Proposal(str(len(self.fresh_trials()) + 1), settings, self.epochs)

    def _may_begin_fresh(self) -> bool:
        limit = self.limits.trials
        return limit is None or len(self.fresh_trials()) + 1 < limit

    # KerasTuner's interface.

    def create_trial(self, tuner_id: str) -> kt_trial.Trial:
        """Gives a worker the trial that it has not ended, one that nobody runs, or a new one."""
        with self.lock:
            if tuner_id in self.ongoing_trials:
                return self.ongoing_trials[tuner_id]
            self.tuner_ids.add(tuner_id)
            if again := self._to_run_again():
                self._retry_queue.remove(again[0])
                return self._begin(self.trials[again[0]], tuner_id)
            proposal = None if self._is_stopped() else self._next()
            if proposal is None:
                return self._no_trial(tuner_id)
            trial = self._trial_of(proposal)
            self.trials[proposal.trial_id] = trial
            return self._begin(trial, tuner_id)

    def update_trial(self, trial_id: str, metrics: Any, step: int = 0) -> kt_trial.Trial:
        """Takes nothing: the outcome of a trial is in its file."""
        del metrics, step
        return self.trials[trial_id]

    def end_trial(self, trial: kt_trial.Trial) -> None:
        """Takes the outcome of a trial from its file, which the worker has written."""
        with self.lock:
            known = self.trials[trial.trial_id]
            if self._noted(known.trial_id).outcome is not None:  # this worker or another said so
                return
            if known.trial_id in self._retry_queue:  # its worker was given up too early
                self._retry_queue.remove(known.trial_id)
            outcome = self._outcome_of(trial.trial_id)
            self._take(known, outcome)
            self._change(known.trial_id, lambda each: each.ended_with(outcome))
            for worker, each in list(self.ongoing_trials.items()):
                if each.trial_id == known.trial_id:
                    del self.ongoing_trials[worker]
            self._check_failures()
            self.save()
            for root in self.losers():  # a checkpoint is larger than the network
                checkpoint = self.folder / TRIALS_FOLDER / root / CHECKPOINT_FILE
                checkpoint.unlink(missing_ok=True)

    def save(self) -> None:
        """Writes the trials atomically."""
        self.progress = Progress(self.progress.trials, self._seconds(), self.ended)
        self.progress.write(self.folder)

    def reload(self, *, has_workers_elsewhere: bool = False) -> None:
        """Reads the trials of the folder; those that were running are to be run again.

        Args:
            has_workers_elsewhere: Leave running trials to their workers, which may have outlived
                this process.
        """
        self._has_workers_elsewhere = has_workers_elsewhere
        self.progress = Progress.read(self.folder)
        self._earlier = self.progress.seconds
        for trial in self.progress.trials:
            made = self._known(trial)
            self.trials[trial.trial_id] = made
            self.start_order.append(trial.trial_id)
            if trial.outcome is not None:
                self._take(made, trial.outcome)
            elif has_workers_elsewhere and trial.worker not in self.ongoing_trials:
                self.ongoing_trials[trial.worker] = made
                self.tuner_ids.add(trial.worker)
            else:
                self._retry_queue.append(trial.trial_id)

    def look_ahead(self) -> None:
        """Sets `ended` if no trial is left to begin, without beginning one."""
        with self.lock:
            if not self._is_stopped() and not self._retry_queue:
                self._next()

    def give_up(self, worker: str) -> None:
        """Has the trial of a lost worker run by another one."""
        with self.lock:
            self.tuner_ids.discard(worker)
            trial = self.ongoing_trials.pop(worker, None)
            if trial is not None:
                logger.warning(f"worker {worker} is lost: another gets its trial {trial.trial_id}")
                self._retry_queue.append(trial.trial_id)
            if not self.ongoing_trials:
                self.look_ahead()  # perhaps nobody is left to ask

    def is_over(self) -> bool:
        """True if no trial is running, and none is to begin."""
        with self.lock:
            is_done = self._is_stopped() or self.ended is not None
            return is_done and not self.ongoing_trials and not self._to_run_again()

    def retry_failed(self) -> None:
        """Makes failed trials ones to be run again."""
        for trial in self.progress.trials:
            if trial.status == "failed":
                self.end_order.remove(trial.trial_id)
                self._retry_queue.append(trial.trial_id)

    def _save_trial(self, trial: kt_trial.Trial) -> None:
        """Writes nothing: all trials are in one file."""

    def _record_values(self, trial: kt_trial.Trial) -> None:
        """Records nothing: the trials are the record."""

    def _duplicate(self, values: Mapping[str, Any]) -> bool:
        return self.is_tried(self.space.decoded(values))

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._began

    def _to_run_again(self) -> list[str]:
        """The trials to run again before any new one; after max_hours only those that had begun."""
        if self.error is not None:
            return []
        is_late = self._is_stopped()
        queue = self._retry_queue
        return [each for each in queue if not is_late or self._noted(each).status == "running"]

    def _is_stopped(self) -> bool:
        """True if no trial is to begin."""
        if self.error is not None:
            self.ended = str(self.error)
        elif self.limits.seconds is not None and self._seconds() >= self.limits.seconds:
            self.ended = f"max_hours is over, with {len(self.progress.trials)} trials begun"
        else:
            return False
        return True

    def _next(self) -> Proposal | None:
        if not self.progress.trials:
            return Proposal("0", {}, self.epochs)
        limit = self.limits.trials
        settings = len(self.fresh_trials()) + 1  # with those of the base configuration
        is_full = limit is not None and settings >= limit
        proposal = self.propose(may_be_fresh=not is_full)
        if proposal is None:
            done = f"all {settings} trials of max_trials are tried"
            self.ended = done if is_full else f"{self.exhausted}: {settings} trials"
        return proposal

    def _no_trial(self, worker: str) -> kt_trial.Trial:
        """The answer to a worker that has nothing to do, now or ever."""
        may_wait = self.is_waiting() and not self._is_stopped()
        may_wait = may_wait or self._has_workers_elsewhere  # one of them may be lost
        may_follow = self.error is None and self.ongoing_trials and may_wait
        status = _STATUS.IDLE if may_follow else _STATUS.STOPPED
        if not may_follow:
            self.tuner_ids.discard(worker)
            self.save()
        return kt_trial.Trial(self.get_space(), trial_id="", status=status)

    def _trial_of(self, proposal: Proposal) -> kt_trial.Trial:
        """A new trial, noted in the list."""
        is_base = proposal.trial_id == "0"
        drawn = self.space.encoded(self.base) if is_base else self.space.encode(proposal.settings)
        trial = Trial(
            proposal.trial_id,
            proposal.settings,
            drawn,
            proposal.until_epoch,
            proposal.bracket,
            proposal.rung,
        )
        self.progress = dataclasses.replace(self.progress, trials=(*self.progress.trials, trial))
        self.start_order.append(trial.trial_id)
        return self._known(trial)

    def _known(self, trial: Trial) -> kt_trial.Trial:
        """A trial as KerasTuner has it."""
        parameters = self.get_space()
        parameters.values = {
            **(trial.drawn or {}),
            SETTINGS: json.dumps(trial.settings),
            UNTIL_EPOCH: trial.until_epoch,
        }
        return kt_trial.Trial(parameters, trial_id=trial.trial_id, status=_STATUS.RUNNING)

    def _begin(self, trial: kt_trial.Trial, worker: str) -> kt_trial.Trial:
        trial.status = _STATUS.RUNNING
        if self._noted(trial.trial_id).status == "failed":
            outcome_file(self.folder, trial.trial_id).unlink(missing_ok=True)
        self.ongoing_trials[worker] = trial
        self.ended = None
        self._change(trial.trial_id, lambda each: each.begun_by(worker))
        self.save()
        return trial

    def _noted(self, trial_id: str) -> Trial:
        return next(each for each in self.progress.trials if each.trial_id == trial_id)

    def _change(self, trial_id: str, change: Callable[[Trial], Trial]) -> None:
        trials = self.progress.trials
        changed = (change(each) if each.trial_id == trial_id else each for each in trials)
        self.progress = dataclasses.replace(self.progress, trials=tuple(changed))

    def _take(self, trial: kt_trial.Trial, outcome: Outcome) -> None:
        trial.status = _STATUS.FAILED if outcome.objective is None else _STATUS.COMPLETED
        trial.score = outcome.objective
        trial.message = outcome.error
        self.end_order.append(trial.trial_id)

    def _outcome_of(self, trial_id: str) -> Outcome:
        """Reads the file of a trial; a network disk may show it some time after it was written."""
        deadline = time.monotonic() + _DISK_SECONDS
        path = outcome_file(self.folder, trial_id)
        while (outcome := Outcome.read(path)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return outcome or Outcome(None, error="its worker reported no outcome")

    def _check_failures(self) -> None:
        """Ends the search if the last trials crashed, or the first ones failed for any reason.

        Later failures by settings are not counted: half of a space may be too large.
        """
        outcomes = {trial.trial_id: trial.outcome for trial in self.progress.trials}
        ended = [each for trial_id in self.end_order if (each := outcomes[trial_id])]
        has_succeeded = any(each.objective is not None for each in ended)
        last = [each for each in ended if not (has_succeeded and each.is_by_settings)]
        last = last[-_MOST_FAILURES:]
        if len(last) == _MOST_FAILURES and all(each.objective is None for each in last):
            self.error = FailedTrialsError(
                f"{_MOST_FAILURES} trials failed in a row, the last: {last[-1].error}"
            )


class RandomOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Draws settings at random, each once."""


class GridOracle(SearchOracle, keras_tuner.oracles.GridSearchOracle):
    """Tries all settings of a finite space in order, the last key changing first."""

    def __init__(self, space: SearchSpace, base: Config, **options: Any) -> None:
        super().__init__(space, base, **options)
        next(space.combinations())  # raises an error if there is no end of them

    def draw(self, number: int) -> dict[str, Any] | None:
        """Gives the first settings that were not tried."""
        del number
        tried = {self._key(trial.settings) for trial in self.progress.trials}
        return next(
            (each for each in self.space.combinations() if self._key(each) not in tried), None
        )


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws settings near good ones by a Gaussian process, after some at random."""

    def __init__(self, space: SearchSpace, base: Config, *, limits: Limits, **options: Any) -> None:
        # KerasTuner's three for each setting would often be all there are.
        at_random = max(3, 3 * len(space.settings))
        if limits.trials is not None:
            at_random = min(at_random, max(3, limits.trials // 3))
        super().__init__(space, base, limits=limits, num_initial_points=at_random, **options)

    def draw(self, number: int) -> dict[str, Any] | None:
        """Draws the settings of the lowest confidence bound of the cost; None if all are tried.

        KerasTuner descends from 50 random points, which takes seconds, and gives settings that were
        tried. Here many points are compared, and the best one that was not tried is taken.
        """
        if number < self.num_initial_points:
            return self.draw_at_random(number)
        gpr = self._make_gpr()
        gpr.n_restarts_optimizer = _RESTARTS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kernels whose length scale is at its bound
            gpr.fit(*self._vectorize_trials())
        settings, points = self._candidates(number)
        mean, deviation = gpr.predict(points, return_std=True)
        for index in np.argsort(mean - self.beta * deviation):
            if settings is not None:
                candidate = settings[index]
            else:
                candidate = self.space.decoded(self._vector_to_values(points[index]))
            if not self.is_tried(candidate):
                return candidate
        return None if settings is not None else self.draw_at_random(number)

    def _candidates(self, number: int) -> tuple[list[dict[str, Any]] | None, Any]:
        """Points to compare: all settings of a small space, or random ones, some near the best."""
        axes = self._nonfixed_space()
        if self._is_finite and self.space.is_finite(most=_MOST_POINTS):
            settings = list(self.space.combinations())
            drawn = [self.space.encode(each) for each in settings]
            return settings, np.array([[self._place(a, each) for a in axes] for each in drawn])
        rng = np.random.default_rng(self.seed_of(number))
        points, costs = self._vectorize_trials()
        best = points[np.argsort(costs)[:_MOST_NEIGHBOURS]]
        near = best[rng.integers(len(best), size=_MOST_POINTS // 2)]
        near = near + rng.normal(0, _NEIGHBOUR, near.shape)
        anywhere = rng.random((_MOST_POINTS // 2, len(axes)))
        return None, np.clip(np.concatenate([anywhere, near]), 0, np.nextafter(1, 0))

    def _vectorize_trials(self) -> tuple[Any, Any]:
        """Gives a point in the unit cube and a cost for each trial of the space.

        A failed trial has the cost of the worst one, so that the search does not go there again, a
        running one the mean.
        """
        trials = [trial for trial in self.progress.trials if trial.drawn is not None]
        costs = [-trial.objective for trial in trials if trial.objective is not None]
        assumed = {"failed": max(costs, default=0.0), "running": float(np.mean(costs or [0.0]))}
        points = [
            [self._place(hp, trial.drawn) for hp in self._nonfixed_space()] for trial in trials
        ]
        values = [
            assumed[trial.status] if trial.objective is None else -trial.objective
            for trial in trials
        ]
        return np.array(points), np.array(values)

    @staticmethod
    def _place(hp: Any, drawn: Mapping[str, Any] | None) -> float:
        return float(hp.value_to_prob((drawn or {}).get(hp.name, hp.default)))


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Trains many settings for a few epochs, and goes on with the best third of them, and so on.

    A rung ends at a validation, and a trial goes on where it stopped, on the schedule of the
    complete training. A failed trial is the worst of its rung. The last bracket may be smaller than
    Hyperband's, if the settings or `max_trials` are used up.
    """

    exhausted = "all brackets, or all settings of the search space, are tried"

    def __init__(self, space: SearchSpace, base: Config, **options: Any) -> None:
        self._every = base.training.validate_every
        validations = math.ceil(base.training.epochs / self._every)
        if validations < _FACTOR:
            raise ConfigError(
                f"tuner hyperband must have at least {_FACTOR} validations to stop trials at,"
                f" got {validations}: training.epochs is {base.training.epochs} and"
                f" training.validate_every {self._every}"
            )
        super().__init__(space, base, max_epochs=validations, factor=_FACTOR, **options)

    def propose(self, *, may_be_fresh: bool) -> Proposal | None:
        """Proposes to fill the first bracket that is not full, or to go on with a trial."""
        fresh, begin = self.fresh_trials(), 0
        for bracket, most in enumerate(self._brackets_to_come()):
            size = self._get_size(most, 0)
            members = fresh[begin : begin + size]
            if len(members) < size:
                settings = self.draw(len(fresh)) if may_be_fresh else None
                if settings is not None:
                    until = self._until(most, 0)
                    return self.fresh(settings)._replace(until_epoch=until, bracket=bracket)
            for rung in self._rungs(most, members):
                if (trial := rung.to_promote()) is not None:
                    until, trial_id = self._until(most, rung.number), f"{trial.root}.{rung.number}"
                    return Proposal(trial_id, trial.settings, until, bracket, rung.number)
            if len(members) < size:
                break
            begin += size
        return None

    def is_waiting(self) -> bool:
        """True: a running trial may be promoted, or leave its place to another."""
        return True

    def losers(self) -> set[str]:
        """The run folders of trials in rungs from which enough others have gone on."""
        fresh, begin, found = self.fresh_trials(), 0, set()
        for most in self._brackets_to_come():
            size = self._get_size(most, 0)
            for rung in self._rungs(most, fresh[begin : begin + size]):
                if len(rung.promoted) == rung.size:
                    found |= {trial.root for trial in rung.ended}
            begin += size
            if begin >= len(fresh):
                break
        return found

    def _brackets_to_come(self) -> Iterator[int]:
        """The number of promotions in each bracket: all kinds once, or until a limit is reached."""
        kinds = list(reversed(range(self._get_num_brackets())))
        has_limit = self.limits != Limits()
        return itertools.cycle(kinds) if has_limit else iter(kinds)

    def _until(self, most: int, rung: int) -> int:
        return min(self._get_epochs(most, rung) * self._every, self.epochs)

    def _rungs(self, most: int, members: Sequence[Trial]) -> Iterator[_Rung]:
        """The rungs above the first, as far as their size is known."""
        below, expected = list(members), len(members)
        for number in range(1, most + 1):
            size = min(self._get_size(most, number), math.ceil(expected / self.factor))
            above = {trial.root: trial for trial in self.progress.trials if trial.rung == number}
            promoted = [above[trial.root] for trial in below if trial.root in above]
            ended = ranked([trial for trial in below if trial.root not in above])
            rung = _Rung(number, size, tuple(promoted), tuple(ended), expected)
            yield rung
            below, expected = promoted, rung.expected_above()


class _Rung(NamedTuple):
    """A rung above the first.

    Attributes:
        number: Its number.
        size: Most trials in it.
        promoted: Trials in it.
        ended: Trials of the rung below that have ended and are not in it, the best first.
        below: Trials that the rung below has or will have.
    """

    number: int
    size: int
    promoted: tuple[Trial, ...]
    ended: tuple[Trial, ...]
    below: int

    def to_promote(self) -> Trial | None:
        """The best trial that has ended, if it is among the best in any case."""
        is_safe = len(self.ended) > self.below - self.size and len(self.promoted) < self.size
        return self.ended[0] if is_safe and self.ended[0].objective is not None else None

    def expected_above(self) -> int:
        """Trials that this rung has or will have: fewer if too many failed."""
        all_ended = len(self.ended) + len(self.promoted) == self.below
        return len(self.promoted) if all_ended else self.size


ORACLES: dict[str, type[SearchOracle]] = {
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "grid": GridOracle,
    "hyperband": HyperbandOracle,
}
"""The oracles by name."""
