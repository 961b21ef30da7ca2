"""The registry as a collection: its entries, their names, and the name that was probably meant."""

import pytest

import sdeflow as sf


def test_iterating_gives_the_entries():
    table = sf.methods()
    names = [method.name for method in table]
    assert names == list(table.keys()) and len(names) == len(table) == len(set(names))
    assert all(isinstance(method, sf.Method) for method in table)
    assert list(table.values()) == list(table)
    assert all(table[name] is method and name in table for name, method in table.items())
    assert dict(table) == dict(table.items())
    assert "zzz" not in table and 3 not in table


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("huen", "heun"),
        ("srk", "torchsde:srk"),
        ("milsten", "milstein"),
        ("torchsde:skr", "torchsde:srk"),
        ("Tsit5", "tsit5"),
    ],
)
def test_an_unknown_name_gets_the_nearest(word, meant):
    with pytest.raises(sf.MethodError, match=f"Did you mean '{meant}'"):
        sf.methods()[word]
