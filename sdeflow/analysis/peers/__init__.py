"""Other libraries as their users call them: nothing of sdeflow stands between them and the coefficients."""

from sdeflow.analysis.peers.call import Call, Peer
from sdeflow.analysis.peers.registry import PREFIX, is_peer, peer

__all__ = ["PREFIX", "Call", "Peer", "is_peer", "peer"]
