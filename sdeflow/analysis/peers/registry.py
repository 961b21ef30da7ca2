"""Peers by name: ``peer:LIBRARY:METHOD``."""

from __future__ import annotations

from importlib.util import find_spec

from sdeflow.analysis.peers.call import Peer
from sdeflow.analysis.peers.diffrax import Diffrax
from sdeflow.analysis.peers.ode_libraries import FlowMatching, Scipy, Torchode, Zuko
from sdeflow.analysis.peers.torch_libraries import Torchdiffeq, Torchsde
from sdeflow.errors import MethodError, nearest

__all__ = ["PEERS", "PREFIX", "is_peer", "missing", "peer"]

PREFIX = "peer:"
PEERS: dict[str, Peer] = {
    p.name: p for p in (Torchsde(), Torchdiffeq(), Scipy(), Torchode(), Zuko(), FlowMatching(), Diffrax())
}


def is_peer(name: str) -> bool:
    return isinstance(name, str) and name.startswith(PREFIX)


def peer(name: str) -> tuple[Peer, str]:
    """The library and the method that a name means, such as ``"peer:torchsde:srk"``.

    Raises:
        MethodError: There is no such library.
    """
    library, _, method = name.removeprefix(PREFIX).partition(":")
    if library not in PEERS or not method:
        raise MethodError(
            f"method={name!r} names no peer; write peer:LIBRARY:METHOD, such as 'peer:torchsde:euler'. "
            f"{nearest(library, PEERS)}"
        )
    return PEERS[library], method


def missing(other: Peer) -> str:
    """Why the library cannot be imported, or an empty string."""
    own = getattr(other, "interpreter", None)
    if own is not None and own() is not None:
        return ""
    return "" if find_spec(other.package) else f"{other.package} is not installed"
