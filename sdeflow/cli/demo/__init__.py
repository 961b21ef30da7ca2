"""``sdeflow demo``: what the library does, on real data whose law is known, in under a minute."""
