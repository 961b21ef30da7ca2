"""Test the tests: break the package in one place at a time, and see that a named test notices.

``python tests/mutants.py`` takes each entry of ``mutants.toml``, applies it to a copy of the repository and
runs the tests that the entry names. The mutant is *killed* when a test fails (pytest's exit code 1) and has
*survived* when all pass (0). Anything else, a package that no longer imports or a test that does not exist,
shows nothing about the tests: the entry is *broken*. The named tests must first pass on an unbroken copy.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = 70  # exit code of a test run that imported the package from elsewhere; pytest itself uses 0 to 5


@dataclass(frozen=True)
class Mutant:
    """One breakage: in ``file``, ``old`` becomes ``new``, a test of ``killed_by`` must fail, and ``why``."""

    file: str
    old: str
    new: str
    killed_by: tuple[str, ...]
    why: str
    timeout_kills: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"


def load(path: Path = ROOT / "tests" / "mutants.toml") -> list[Mutant]:
    """Read the entries of a ``mutants.toml``; an unknown or a missing key is a ``TypeError``."""

    def mutant(*, killed_by: str | list[str], **entry: Any) -> Mutant:
        return Mutant(killed_by=(killed_by,) if isinstance(killed_by, str) else tuple(killed_by), **entry)

    return [mutant(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])]


def faults(mutant: Mutant, root: Path = ROOT) -> list[str]:
    """What is wrong with an entry by its text alone; nothing with a sound one."""

    def text(file: str) -> str:
        return (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""

    found = []
    if (count := text(mutant.file).count(mutant.old)) != 1 or not mutant.old:
        found.append(f"`old` must occur exactly once in {mutant.file}, and occurs {count} times")
    if mutant.old == mutant.new:
        found.append("`old` and `new` are the same")
    if not mutant.killed_by:
        found.append("`killed_by` names no test")
    for test in mutant.killed_by:
        file, *names = test.partition("[")[0].split("::")  # without parameters
        defined = re.findall(r"^\s*(?:async def|def|class)\s+(\w+)", text(file), re.MULTILINE)
        if not names or not set(names) <= set(defined):
            found.append(f"`killed_by` names {test}, which is not a test function")
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """This file is a plugin of each test run: one that imported the package from elsewhere shows nothing."""
    package, copy = sys.modules.get("sdeflow"), session.config.invocation_params.dir
    if package is not None and not Path(str(package.__file__)).resolve().is_relative_to(copy):
        print(f"\nsdeflow was imported from {package.__file__}, not from the copy in {copy}")
        session.exitstatus = OUTSIDE


def run_tests(copy: Path, tests: Iterable[str], timeout: float | None = None) -> tuple[int | None, str]:
    """Run tests in a copy of the repository: pytest's exit code, ``None`` for a timeout, and its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"} | {
        # The copy comes before site-packages, so before an installed sdeflow; this folder is for the plugin.
        "PYTHONPATH": os.pathsep.join([str(copy), str(Path(__file__).resolve().parent)]),
        # Bytecode is matched by size and by time in whole seconds: two letters swapped would not be noticed.
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    # Failing examples that Hypothesis kept from the mutant before would make the verdict depend on the order.
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "mutants", *tests]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        streams: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=copy, env=environment, start_new_session=True, **streams)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and whatever the tests have started
                process.wait()
        output.seek(0)
        return code, output.read()


@contextmanager
def applied(mutant: Mutant, copy: Path) -> Iterator[None]:
    """Break the copy, and mend it afterwards."""
    target = copy / mutant.file
    original = target.read_bytes()
    try:
        target.write_bytes(original.replace(mutant.old.encode(), mutant.new.encode()))
        yield
    finally:
        target.write_bytes(original)


def verdict(mutant: Mutant, code: int | None) -> str:
    """What the exit code of a test run says of a mutant."""
    if code is None:
        return "killed" if mutant.timeout_kills else "broken"
    return {0: "survived", 1: "killed"}.get(code, "broken")


def attempt(mutant: Mutant, copy: Path, timeout: float) -> tuple[str, str]:
    """Try one mutant in a copy that nobody else uses: the verdict, and the lines that report it."""
    if wrong := faults(mutant, copy):
        return "broken", "\n          ".join([f"{'broken':<9} {mutant}", *wrong])
    start = time.monotonic()
    with applied(mutant, copy):
        code, output = run_tests(copy, mutant.killed_by, timeout)
    said = verdict(mutant, code)
    report = [f"{said:<9} {mutant} ({time.monotonic() - start:.1f} s)"]
    if said == "broken":
        report.append(f"no end after {timeout:g} s" if code is None else f"pytest's exit code was {code}")
        report.extend(output.splitlines()[-15:])
    return said, "\n          ".join(report)


def copy_repository(root: Path, destination: Path) -> None:
    """Copy the files that git tracks, and the new ones that it does not ignore."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    for name in os.fsdecode(listed).split("\0"):
        if (root / name).is_file():  # a tracked file may have been deleted
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, destination / name)


def run(mutants: Sequence[Mutant], root: Path = ROOT, jobs: int = 2, timeout: float = 300.0) -> bool:
    """Try the mutants, print a line for each and a summary, and return whether all were killed."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Path(folder).resolve() / str(number) for number in range(jobs)]
        copy_repository(root, copies[0])
        for copy in copies[1:]:
            shutil.copytree(copies[0], copy)

        sound = [mutant for mutant in mutants if not faults(mutant, copies[0])]
        if sound:
            code, output = run_tests(copies[0], sorted({test for mutant in sound for test in mutant.killed_by}))
            if code != 0:
                print(output)
                print(f"The named tests must pass before anything is broken, but pytest's exit code was {code}.")
                return False

        free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for copy in copies:
            free.put(copy)

        def attempt_in_turn(mutant: Mutant) -> tuple[str, str]:
            copy = free.get()
            try:
                return attempt(mutant, copy, timeout)
            finally:
                free.put(copy)

        counts = Counter[str]()
        with ThreadPoolExecutor(jobs) as pool:
            for said, report in pool.map(attempt_in_turn, mutants):
                counts[said] += 1
                print(report, flush=True)
    print(f"{counts['killed']} killed, {counts['survived']} survived, {counts['broken']} broken")
    return counts["killed"] == len(mutants)


def main() -> int:
    """The command line; 0 when every mutant was killed."""
    parser = argparse.ArgumentParser(description="Break the package in one place at a time; tests must notice.")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="those with this in their file or reason")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for each (default: 300)")
    options = parser.parse_args()
    mutants = [mutant for mutant in load() if options.only in str(mutant)]
    if options.only and not mutants:
        parser.error(f"no mutant has {options.only!r} in its file or reason")
    return 0 if run(mutants, jobs=options.jobs, timeout=options.timeout) else 1


if __name__ == "__main__":
    sys.exit(main())
