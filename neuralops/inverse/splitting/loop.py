"""A loop that stops when it is done, and that can be differentiated forwards and backwards all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from neuralops.solvers.algebra.programs import hoist

__all__ = ["bounded_loop"]


def bounded_loop(step: Callable[[Any], Any], done: Callable[[Any], Any], state: Any, limit: int) -> Any:
    """Repeats `state = step(state)` until `done(state)`, at most `limit` times.

    As it stands it is a `while_loop`, which under `jax.vmap` ends with the last member. When it is differentiated, it
    runs as a scan of `limit` steps, idle once done, that keeps each state and computes what is inside a step again on
    the way back. `step` may close over anything, and
    derivatives with respect to that are right too; `done` sees the state and nothing else.
    """
    # What `step` closes over must be an argument: a rule of differentiation does not see it otherwise.
    program, closed, _ = hoist(step, state)

    @jax.custom_jvp
    def run(closed: Any, state: Any) -> Any:
        counted = lambda pair: (pair[0] < limit) & ~done(pair[1])
        return lax.while_loop(counted, lambda pair: (pair[0] + 1, program(closed, pair[1])), (0, state))[1]

    def scanned(closed: Any, state: Any) -> Any:
        inner = jax.checkpoint(program, prevent_cse=False)

        def body(state: Any, _: None) -> tuple[Any, None]:
            return lax.cond(done(state), lambda: state, lambda: inner(closed, state)), None

        return lax.scan(body, state, None, length=limit)[0]

    run.defjvp(lambda primals, tangents: jax.jvp(scanned, primals, tangents))
    return run(closed, state)
