"""Steps until the last, with a bar; and how a run ends."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from sdeflow.errors import TrainingError
from sdeflow.training.interruption import Interruption
from sdeflow.training.run import Run
from sdeflow.training.training import Training

__all__ = ["conclude", "go"]

SHOWN = 100  # steps that the loss on the bar is the mean of
REFRESH = 0.2  # seconds
KEPT = "The model has the weights it came to; without a folder there is no checkpoint to go on from."


def go(training: Training, interruption: Interruption, folder: Path | None, save_every: int, progress: bool) -> None:
    """Take the steps that are left; afterwards ``training.status`` says why there are no more."""
    try:
        take_steps(training, interruption, folder, save_every, progress)
    except Exception as error:
        rescue(training, folder, error)
        raise


def take_steps(
    training: Training, interruption: Interruption, folder: Path | None, save_every: int, progress: bool
) -> None:
    settings = training.settings
    training.status = "finished"
    with tqdm(total=settings.steps, initial=training.step, disable=not progress, desc="fit", unit="step") as bar:
        shown = time.perf_counter()
        while training.step < settings.steps:
            if training.look():
                training.status = "stopped early"
                break
            if interruption.signal is not None:
                training.status = "interrupted"
                break
            if not training.advance():
                training.status = "diverged"
                break
            if folder is not None and training.step % save_every == 0 and training.step < settings.steps:
                training.status = "interrupted"  # as which it is found if nothing comes after
                training.save(folder)
                training.status = "finished"
            if progress and time.perf_counter() - shown > REFRESH:
                shown = time.perf_counter()
                show(bar, training)
        else:
            training.look()
        show(bar, training)


def rescue(training: Training, folder: Path | None, error: Exception) -> None:
    """After an error between two steps: keep what was computed, and say in the error where it is."""
    training.status = "interrupted"
    if training.step and training.whole:
        kept = KEPT
        if folder is not None:
            try:
                training.save(folder)
                kept = goes_on(folder)
            except Exception as unwritten:
                kept = f"It could not be written to {folder}: {unwritten}"
        add(error, f"{stopped(training)} {kept}")
    training.average.swap()


def add(error: Exception, sentence: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(sentence)
    else:
        print(sentence, file=sys.stderr)


def stopped(training: Training) -> str:
    return f"sf.fit stopped at step {training.step} of {training.settings.steps}."


def goes_on(folder: Path) -> str:
    return f"All of it is in {folder}: the same call with resume=True goes on from there."


def show(bar: tqdm, training: Training) -> None:
    recent = training.losses[-SHOWN:]
    said = {"loss": f"{sum(recent) / len(recent):.4g}"} if recent else {}
    if training.looks:
        said["held out"] = f"{training.looks[-1]['value']:.4g}"
    bar.set_postfix(said, refresh=False)
    bar.update(training.step - bar.n)


def conclude(training: Training, interruption: Interruption, folder: Path | None, seconds: float) -> Run:
    """Write the last checkpoint, give the model the weights to be used, and return the run or raise why it ended."""
    if folder is not None:
        training.save(folder)
    if training.best and training.status != "interrupted":
        with torch.no_grad():
            for name, value in training.average.state().items():
                value.copy_(training.best[name])
    training.average.swap()
    run = Run(
        model=training.model,
        losses=torch.tensor(training.losses, dtype=torch.float64),
        status=training.status,
        seed=training.seed,
        seconds=seconds,
        folder=folder,
        held_out=training.looks,
    )
    if training.status == "diverged":
        kept = f" They are in {folder} too." if folder is not None else ""
        raise TrainingError(
            f"the loss or its gradient was not finite in step {training.step + 1}, which was not taken: the model has the "
            f"weights from before it.{kept} Try a lower learning_rate, a warmup, or a smaller clip.",
            run,
        )
    if interruption.signal is not None:
        sentence = f"{stopped(training)} {KEPT if folder is None else goes_on(folder)}"
        if interruption.signal == signal.SIGINT:
            raise KeyboardInterrupt(sentence)
        print(sentence, file=sys.stderr)
        raise SystemExit(128 + interruption.signal)
    return run
