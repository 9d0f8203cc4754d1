"""Changes of appearance: they change the picture, a little, and nothing of the physics."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from planner.errors import BadInput


@pytest.mark.parametrize("appearance", envs.APPEARANCES)
@pytest.mark.parametrize(("task", "backend"), [*((task, None) for task in envs.TASKS), ("TwoRoom", "rays")])
def test_it_looks_different_and_moves_alike(task: str, backend: str | None, appearance: str) -> None:
    """Under rays colours were read when the camera was made, and two of them changed nothing."""
    with envs.TASKS[task](backend=backend) as plain, envs.TASKS[task](backend=backend) as other:
        envs.disguise(other, appearance)
        rng = np.random.default_rng(0)
        start, goal = plain.sample_state(rng), plain.sample_state(rng)
        shown = [env.reset(options={"start": start, "goal": goal})[0] for env in (plain, other)]
        for _ in range(5):
            action = rng.uniform(plain.spec_low, plain.spec_high)
            steps = [env.step(action) for env in (plain, other)]
            np.testing.assert_array_equal(steps[0][4]["state"], steps[1][4]["state"])
            assert steps[0][4]["goal_distance"] == steps[1][4]["goal_distance"]
            shown += [obs for obs, *_ in steps]
        for before, after in zip(shown[::2], shown[1::2], strict=True):
            for key in ("pixels", "goal"):
                change = np.abs(before[key].astype(int) - after[key]).mean()
                assert 0.05 < change < 90, f"{key}: {change} grey levels"
        again, _ = other.reset(options={"start": start, "goal": goal})
        np.testing.assert_array_equal(again["pixels"], shown[1]["pixels"])


def test_an_unknown_appearance_is_refused() -> None:
    with envs.make("TwoRoom", size=16) as env, pytest.raises(BadInput, match="unknown appearance; .*; got 'fog'"):
        envs.disguise(env, "fog")
