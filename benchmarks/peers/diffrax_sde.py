"""diffrax's Euler–Maruyama and virtual Brownian tree, compiled, as milliseconds a run: a JSON of arguments in, a JSON out."""

import json
import sys
import time
from statistics import median

import diffrax
import jax
import jax.numpy as jnp


def timed(function, repeats):
    began = time.perf_counter()
    jax.block_until_ready(function())
    first = time.perf_counter() - began
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return {"ms": 1e3 * median(times), "first ms": 1e3 * first}


def euler_maruyama(shape, steps, repeats):
    """dx = −x/2 dt + dW on its fastest noise, which cannot be asked again."""

    @jax.jit
    def run(key, x):
        noise = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(tuple(shape), jnp.float32), key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: -0.5 * y),
            diffrax.ControlTerm(lambda t, y, args: lineax_identity(y), noise),
        )
        return diffrax.diffeqsolve(
            terms,
            diffrax.Euler(),
            0.0,
            1.0,
            1.0 / steps,
            x,
            adjoint=diffrax.DirectAdjoint(),
            max_steps=steps + 1,
        ).ys

    x = jnp.zeros(tuple(shape), jnp.float32)
    return timed(lambda: run(jax.random.key(0), x), repeats)


def lineax_identity(y):
    import lineax

    return lineax.DiagonalLinearOperator(jnp.ones_like(y))


def tree(shape, queries, depth, repeats):
    """Increments over equal intervals, one after the other."""

    @jax.jit
    def run(key):
        path = diffrax.VirtualBrownianTree(0.0, 1.0, 2.0**-depth, tuple(shape), key)
        times = jnp.linspace(0.0, 1.0, queries + 1)

        def step(total, k):
            return total + path.evaluate(times[k], times[k + 1]), None

        return jax.lax.scan(step, jnp.zeros(tuple(shape)), jnp.arange(queries))[0]

    return timed(lambda: run(jax.random.key(0)), repeats)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    what = arguments.pop("what")
    answer = {"euler-maruyama": euler_maruyama, "tree": tree}[what](**arguments)
    print(json.dumps({**answer, "diffrax": diffrax.__version__, "jax": jax.__version__}))
