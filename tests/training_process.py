"""A training run in a process of its own, which says what it is doing, so that it can be ended anywhere.

The processes are forked from one that has imported everything, so each starts in a moment.
"""

import multiprocessing
import sys
import time

import torch

import sdeflow as sf
from sdeflow.training import checkpoint, training

STEPS = 30
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sdeflow", "lightning_fabric", "safetensors.torch"])


def train(folder):
    """Thirty small steps, with a checkpoint after every eight."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = sf.models.FlowMatching(sf.networks.MLP(2, width=8, depth=1), sf.paths.LinearPath().base((2,)))
    data = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    sf.fit(model, data, STEPS, batch_size=16, seed=1, folder=folder, save_every=8, resume=True, progress=False)


def talking(connection, folder, errors, slow_step, slow_write):
    """The same, slowly, with a word before each step and each write."""
    sys.stderr = open(errors, "w", buffering=1)  # noqa: SIM115 (until the process ends)
    advance, put = training.Training.advance, checkpoint.put_in_place

    def slow_advance(self):
        connection.send(self.step)
        time.sleep(slow_step)
        return advance(self)

    def slow_put(partial, path):
        connection.send(path.name)
        time.sleep(slow_write)
        put(partial, path)

    training.Training.advance, checkpoint.put_in_place = slow_advance, slow_put
    train(folder)


class Process:
    """A run that has been started."""

    def __init__(self, folder, slow_step=0.0, slow_write=0.0):
        self.errors = folder.with_suffix(".err")
        self.receiver, sender = CONTEXT.Pipe(duplex=False)
        arguments = (sender, folder, self.errors, slow_step, slow_write)
        self.process = CONTEXT.Process(target=talking, args=arguments)
        self.process.start()
        sender.close()
        self.pid = self.process.pid

    def wait_for(self, word):
        """Until it says that word."""
        while self.receiver.recv() != word:
            pass

    def end(self):
        """(its exit code, what it wrote to stderr)."""
        self.process.join(60)
        return self.process.exitcode, self.errors.read_text()
