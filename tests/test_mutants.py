"""The list of mutants is sound, and its runner tells the killed from the survivors and the broken."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mutants import Mutant, faults, load, run

MINIMUM = 15

PACKAGE = "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n"
TESTS = "import sdeflow\n\n\ndef test_double():\n    assert sdeflow.double(3) == 6\n"
KILLER = "tests/test_double.py::test_double"
SOUND = Mutant("sdeflow/__init__.py", old="2 * x", new="3 * x", killed_by=(KILLER,), why="twice is twice")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in small, with a package of the same name, half of it tested."""
    for name, text in {"sdeflow/__init__.py": PACKAGE, "tests/test_double.py": TESTS}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_every_entry_is_sound() -> None:
    assert {str(mutant): wrong for mutant in load() if (wrong := faults(mutant))} == {}


def test_no_breakage_is_listed_twice() -> None:
    breakages = [(mutant.file, mutant.old, mutant.new) for mutant in load()]
    assert len(set(breakages)) == len(breakages)


def test_there_are_enough_entries() -> None:
    assert len(load()) >= MINIMUM


def test_an_entry_names_one_test_or_several(tmp_path: Path) -> None:
    entry = '[[mutant]]\nfile = "a"\nold = "b"\nnew = "c"\nwhy = "d"\nkilled_by = {}\n'
    path = tmp_path / "mutants.toml"
    path.write_text(entry.format('"e"') + entry.format('["e", "f"]'))
    assert [mutant.killed_by for mutant in load(path)] == [("e",), ("e", "f")]
    path.write_text(entry.format('"e"') + "timeout_kill = true")
    with pytest.raises(TypeError, match="timeout_kill"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": "4 * x"}, "occurs 0 times"),
        ({"old": ""}, "must occur exactly once"),
        ({"old": "return"}, "occurs 2 times"),
        ({"file": "sdeflow/missing.py"}, "occurs 0 times"),
        ({"new": "2 * x"}, "are the same"),
        ({"killed_by": ()}, "names no test"),
        ({"killed_by": ("tests/test_double.py",)}, "not a test function"),
        ({"killed_by": ("tests/test_double.py::test_dou",)}, "not a test function"),
        ({"killed_by": (KILLER, "tests/missing.py::test_double")}, "not a test function"),
    ],
)
def test_an_unsound_entry_is_told_why(repository: Path, change: dict[str, Any], message: str) -> None:
    assert faults(replace(SOUND, killed_by=(f"{KILLER}[x]",)), repository) == []
    (fault,) = faults(replace(SOUND, **change), repository)
    assert message in fault


def test_the_runner_judges_mutants(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survivor = replace(SOUND, old="x / 2", new="x / 3", why="nobody looks at half")
    broken = replace(SOUND, old="def double", new="def double(", why="the package does not import")
    unsound = replace(SOUND, old="4 * x", why="nothing is changed")
    assert not run([SOUND, survivor, broken, unsound], repository)
    printed = capsys.readouterr().out
    for verdict, mutant in [
        ("killed", SOUND),
        ("survived", survivor),
        ("broken", broken),
        ("broken", unsound),
    ]:
        assert f"{verdict:<9} {mutant}" in printed
    assert printed.endswith("\n1 killed, 1 survived, 2 broken\n")
    assert (repository / SOUND.file).read_text() == PACKAGE


def test_a_timeout_kills_only_where_it_is_said_to(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endless = replace(SOUND, old="return 2", new="while True: x\n    return 2", why="the end is never reached")
    assert not run([endless, replace(endless, timeout_kills=True)], repository, timeout=3)
    assert capsys.readouterr().out.endswith("\n1 killed, 0 survived, 1 broken\n")


def test_tests_that_fail_by_themselves_kill_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / SOUND.file).write_text(PACKAGE.replace("2 * x", "2 * x + 1"))
    assert not run([SOUND], repository)
    assert "must pass before anything is broken" in capsys.readouterr().out


def test_a_package_from_elsewhere_shows_nothing(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "sdeflow.py").write_text(PACKAGE)
    test = repository / "tests" / "test_double.py"
    test.write_text(f"import sys\n\nsys.path.insert(0, {str(elsewhere)!r})\n{TESTS}")
    assert not run([SOUND], repository)
    assert "not from the copy" in capsys.readouterr().out
