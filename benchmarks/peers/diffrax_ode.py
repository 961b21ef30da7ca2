"""diffrax's adaptive steps on Van der Pol, compiled, as milliseconds a run: a JSON of arguments in, a JSON out."""

import json
import sys
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
from diffrax_sde import timed


def van_der_pol(states, end, tolerance, method, repeats):
    """The batch on one clock, and every sample on its own by ``vmap``."""

    def velocity(t, x, args):
        y, dy = x[..., 0], x[..., 1]
        return jnp.stack([dy, 2 * (1 - y * y) * dy - y], -1)

    def solve(x):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            getattr(diffrax, method)(),
            0.0,
            end,
            None,
            x,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=100_000,
        ).ys[-1]

    x = jnp.asarray(states, jnp.float32)
    runs = {"shared": jax.jit(solve), "per-sample": jax.jit(jax.vmap(solve))}
    return {name: {**timed(partial(run, x), repeats), "final": run(x).tolist()} for name, run in runs.items()}


if __name__ == "__main__":
    answer = van_der_pol(**json.loads(sys.argv[1]))
    print(json.dumps({**answer, "diffrax": diffrax.__version__, "jax": jax.__version__}))
