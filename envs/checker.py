"""The contract of `base.GoalEnv` as a check that anyone can run on a task of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch

from planner.actions import ActionSpec
from planner.errors import BadInput
from planner.symmetry import Symmetry

STEPS = 8
"""Environment steps of each motion that is repeated and compared."""
PLAYED = 8
"""Episodes of play that symmetries are tried on, five times as long."""

GoalGym = gym.Env[dict[str, np.ndarray], np.ndarray]


def check_goal_env(env: GoalGym, seed: int = 0) -> None:
    """Holds a task to what data collection, planning and evaluation rely on.

    Spaces, units and bounds that agree; states that reset exactly, with the same picture and the same motion bit for
    bit; symmetries that hold; a goal picture that is the picture of the goal state; success that is a distance of at
    most 1 and ends the episode; randomness from seeds alone; bad input refused. Runs some hundred steps, and some
    hundred more for each symmetry; `env` is used up.

    Args:
        env: the task, bare or in wrappers that change neither observations nor actions.
        seed: of the states and actions that are tried.

    Raises:
        AssertionError: what does not hold.
        BadInput: the task refuses what it should take.
    """
    task: Any = env.unwrapped
    rng = np.random.default_rng(seed)
    _check_interface(task)
    _check_spaces(env, task)
    _check_actions(env, task)
    _check_reset(env, task, rng)
    _check_motion(env, task, rng)
    _check_symmetries(task, rng)
    _check_success(env, task, rng)
    _check_goal_image(env, task, rng)
    _check_seeds(env, task, seed)
    _check_refusals(env, task, rng)


def _check_interface(task: Any) -> None:
    values = ["name", "pair_rule", "play_name", "packages", "size", "state", "state_size", "state_names", "state_units"]
    values += ["proprioception", "proprio_names", "places"]
    calls = ("action_spec", "set_state", "advance", "picture", "sample_state", "goal_distance", "counts", "play")
    missing = [name for name in values if not hasattr(task, name)]
    missing += [name for name in (*calls, "relieve") if not callable(getattr(task, name, None))]
    _require(not missing, f"an env with the attributes of envs.GoalEnv; {', '.join(missing)} missing")
    for what in ("state_names", "state_units"):
        held = len(getattr(task, what))
        _require(held == task.state_size, f"{what} to name all {task.state_size} numbers of the state, not {held}")
    dimensions = task.action_spec().env_dim
    _require(set(task.places) <= set(range(dimensions)), f"places among the action's {dimensions}, not {task.places}")


def _check_spaces(env: GoalGym, task: Any) -> None:
    space = env.observation_space
    keys = {"pixels", "goal"} | ({"proprio"} if task.proprioception else set())
    _require(
        isinstance(space, gym.spaces.Dict) and set(space.keys()) == keys,
        f"an observation space Dict of {', '.join(sorted(keys))}, not {space}",
    )
    for key in ("pixels", "goal"):
        wanted = gym.spaces.Box(0, 255, (task.size, task.size, 3), np.uint8)
        _require(space[key] == wanted, f"{key} to be {wanted}, not {space[key]}")  # type: ignore[index]
    unclear = [name for name in task.proprio_names if list(task.state_names).count(name) != 1]
    _require(not unclear, f"proprio_names to be one number of the state each; {', '.join(unclear)} is not")
    action = env.action_space
    _require(
        isinstance(action, gym.spaces.Box)
        and action.dtype == np.float32
        and action.is_bounded()
        and action.shape != (),
        f"a bounded float32 Box of actions [a], not {action}",
    )


def _check_actions(env: GoalGym, task: Any) -> None:
    spec, space = task.action_spec(), env.action_space
    _require(isinstance(spec, ActionSpec), f"action_spec() to return an ActionSpec, not {type(spec).__name__}")
    assert isinstance(space, gym.spaces.Box)
    _require(
        space.shape == (spec.env_dim,), f"actions of shape {(spec.env_dim,)} as action_spec says, not {space.shape}"
    )
    for name in ("low", "high"):
        said, has = np.array(getattr(spec, name), np.float32), getattr(space, name)
        _require(
            np.array_equal(said, has), f"action_space.{name} to equal action_spec's {said.tolist()}, not {has.tolist()}"
        )
    if getattr(task, "controls", False):
        _check_actuators(task)
    for bound in (-1.0, 1.0):
        block = spec.decode(torch.full((spec.dim,), bound)).numpy()
        _require(all(step in space for step in block), "a decoded block of extreme actions to lie in action_space")


def _check_actuators(task: Any) -> None:
    """Beyond its range MuJoCo sets an actuator to what is nearest: other actions would do the same."""
    if task.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL:
        return
    low, high = task.model.actuator_ctrlrange.T
    rounding = 1e-3 * (high - low)
    for i in np.flatnonzero(task.model.actuator_ctrllimited):
        inside = task.spec_low[i] >= low[i] - rounding[i] and task.spec_high[i] <= high[i] + rounding[i]
        said = f"{task.spec_low[i]:g} to {task.spec_high[i]:g}"
        _require(inside, f"bounds of action {i} within its actuator's {low[i]:g} to {high[i]:g}, not {said}")


def _check_reset(env: GoalGym, task: Any, rng: np.random.Generator) -> None:
    looks = []
    for _ in range(4):
        start, goal = task.sample_state(rng), task.sample_state(rng)
        good = isinstance(start, np.ndarray) and start.shape == (task.state_size,)
        _require(good, f"sample_state to return an array [{task.state_size}], not {start!r}")
        obs, info = env.reset(options={"start": start, "goal": goal})
        _check_observation(env, task, obs, info)
        _require(np.array_equal(info["state"], start), "reset to set the start state exactly")
        _require(np.array_equal(info["goal_state"], goal), "reset to set the goal state exactly")
        _require(
            np.array_equal(obs["goal"], task.picture(goal)), "the goal picture to be the picture of the goal state"
        )
        _require(np.array_equal(task.state, start), "picture(state) to leave the present state alone")
        _require(np.array_equal(obs["pixels"], task.picture()), "pixels to be the picture of the start state")
        kept = {key: value.copy() for key, value in obs.items()}
        again, _ = env.reset(options={"start": start, "goal": goal})
        _require(_same(kept, again), "the same pictures after the same reset, bit for bit")
        other, _ = env.reset(options={"start": goal, "goal": start})
        _require(_same(kept, obs), "an observation to stay as it was when the next one is made")
        swapped = np.array_equal(other["pixels"], obs["goal"]) and np.array_equal(other["goal"], obs["pixels"])
        _require(swapped, "start and goal exchanged to exchange the pictures")
        looks.append(obs["pixels"])
    _require(all(look.max() > 0 for look in looks), "pictures that are not black")
    _require(any(not np.array_equal(looks[0], look) for look in looks[1:]), "pictures of different states to differ")


def _check_motion(env: GoalGym, task: Any, rng: np.random.Generator) -> None:
    moved = False
    for _ in range(3):
        start, goal = task.sample_state(rng), task.sample_state(rng)
        low, high = np.array(task.action_spec().low), np.array(task.action_spec().high)
        actions = rng.uniform(low, high, (STEPS, len(low)))
        first, second = (list(_steps(env, start, goal, actions)) for _ in range(2))
        for (obs, info), (obs_again, info_again) in zip(first, second, strict=True):
            _require(
                np.array_equal(info["state"], info_again["state"]), "the same motion after the same reset, bit for bit"
            )
            _require(_same(obs, obs_again), "the same pictures of the same motion, bit for bit")
        middle = first[STEPS // 2][1]["state"]
        moved |= not np.array_equal(middle, start)
        obs, _ = env.reset(options={"start": middle, "goal": goal})
        seen = first[STEPS // 2][0]
        _require(
            np.array_equal(obs["pixels"], seen["pixels"]), "a step's picture to be that of the state after the step"
        )
        rest = list(_steps(env, middle, goal, actions[STEPS // 2 + 1 :]))
        end, end_again = first[-1][1]["state"], rest[-1][1]["state"]
        _require(
            np.allclose(end, end_again, atol=1e-6), "a state in mid-motion to go on as it did when it is set again"
        )
        _check_clipping(env, start, goal, low, high)
    _require(moved, "actions to move something")


def _check_clipping(env: GoalGym, start: np.ndarray, goal: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    for bound, outward in ((low, -10.0), (high, 10.0)):
        at, beyond = (
            list(_steps(env, start, goal, [action]))[0][1] for action in (bound, bound + outward * (high - low))
        )
        _require(
            np.array_equal(at["state"], beyond["state"]), "an action out of bounds to act as the nearest one inside"
        )


def _steps(env: GoalGym, start: np.ndarray, goal: np.ndarray, actions: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Observation and info after each action, the reports checked on the way; goes on after a success."""
    last, _ = env.reset(options={"start": start, "goal": goal})
    for action in actions:
        kept = {key: value.copy() for key, value in last.items()}
        obs, reward, terminated, truncated, info = env.step(np.asarray(action, np.float32))
        _require(_same(kept, last), "an observation to stay as it was when the next one is made")
        _check_observation(env, env.unwrapped, obs, info)
        _require(terminated == info["success"], f"terminated to be success ({info['success']}), not {terminated}")
        _require(reward == float(info["success"]), f"a reward of 1 on success and 0 otherwise, not {reward}")
        _require(not truncated, "no episode to be cut short within a few steps")
        yield obs, info
        last = obs


def _check_observation(env: GoalGym, task: Any, obs: dict[str, np.ndarray], info: dict[str, Any]) -> None:
    _require(obs in env.observation_space, "observations inside the observation space")
    missing = {"success", "goal_distance", "state", "goal_state"} - set(info)
    _require(not missing, f"info to have {', '.join(sorted(missing))}")
    _require(isinstance(info["success"], bool), f"info['success'] to be a bool, not {type(info['success']).__name__}")
    for key in ("state", "goal_state"):
        value = info[key]
        good = isinstance(value, np.ndarray) and value.dtype == np.float64 and value.shape == (task.state_size,)
        _require(good, f"info[{key!r}] to be float64 [{task.state_size}]")
    _require(bool(np.isfinite(info["state"]).all()), "finite states")
    if task.proprioception:
        measured = info["state"][[task.state_names.index(name) for name in task.proprio_names]].astype(np.float32)
        _require(np.array_equal(obs["proprio"], measured), f"proprio to be {measured.tolist()}, as state says")
    distance, known = info["goal_distance"], bool(np.isfinite(info["goal_state"]).all())
    _require(isinstance(distance, float), f"info['goal_distance'] to be a float, not {type(distance).__name__}")
    _require(not known or bool(np.isfinite(distance)), f"a finite distance to a goal state, not {distance}")
    _require(
        info["success"] == (distance <= 1),
        f"success to be a distance of at most 1, not {info['success']} at {distance}",
    )
    if known:
        measured = float(task.goal_distance(info["state"], info["goal_state"]))
        _require(
            distance == measured, f"info['goal_distance'] to be goal_distance(state, goal) {measured}, not {distance}"
        )


def _check_symmetries(task: Any, rng: np.random.Generator) -> None:
    """Each listed symmetry, held against the simulation: a changed state and changed actions lead to the changed end.

    Steps of play, since random actions from random states hardly touch what is to be moved. One step in fifty may miss
    the tolerance, since a solver of contacts need not be symmetric, and two of five pictures may be off.
    """
    spec, symmetries = task.action_spec(), getattr(task, "symmetries", ())
    walk = [step for _ in range(PLAYED) for step in _played(task, rng)] if symmetries else []
    ends = [_after(task, state, action) for state, action in walk]
    for number, symmetry in enumerate(symmetries):
        told = f"symmetry {number} of {task.name}"
        _require(isinstance(symmetry, Symmetry), f"{told} to be a planner.symmetry.Symmetry, not {symmetry!r}")
        for name, size in (("actions", spec.env_dim), ("states", task.state_size)):
            held = getattr(symmetry, name).shape
            _require(held == (size, size), f"{told}: {name} to be {(size, size)}, not {held}")
        beside = []
        for (state, action), end in zip(walk, ends, strict=True):
            other = _after(task, _under(symmetry.state, state), _under(symmetry.action, action))
            beside.append(np.abs(_under(symmetry.state, end) - other) / symmetry.tolerance)
        worst = np.quantile(beside, 0.98, axis=0)
        what = task.state_names[int(worst.argmax())]
        _require(worst.max() <= 1, f"{told} to keep the motion; {what} ends {worst.max():.2g} tolerances beside it")
        seen = []
        for end in ends[:: len(ends) // 5]:
            wanted = _under(symmetry.picture, task.picture(end)).astype(int)
            seen.append((np.abs(wanted - task.picture(_under(symmetry.state, end))).max(-1) > 32).mean())
        _require(np.median(seen) < 0.001, f"{told} to show its picture; {np.median(seen):.1%} of the pixels differ")


def _under(change: Callable[[torch.Tensor], torch.Tensor], array: np.ndarray) -> np.ndarray:
    """An array after one of the changes of a symmetry."""
    changed: np.ndarray = change(torch.from_numpy(array)).numpy()
    return changed


def _played(task: Any, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """States and actions, float64, of an episode of play."""
    task.set_state(task.sample_state(rng))
    play = task.play(rng)
    for _ in range(5 * STEPS):
        state = task.state
        action = np.asarray(play(state), np.float64)
        yield state, action
        task.advance(action)


def _after(task: Any, start: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The state after one step."""
    task.set_state(start)
    task.advance(action)
    end: np.ndarray = task.state
    return end


def _check_success(env: GoalGym, task: Any, rng: np.random.Generator) -> None:
    low, high = np.array(task.action_spec().low), np.array(task.action_spec().high)
    far = False
    for _ in range(20):
        start, goal = task.sample_state(rng), task.sample_state(rng)
        _, info = env.reset(options={"start": goal, "goal": goal})
        _require(info["success"], f"a start at the goal to be a success, not {info['goal_distance']} tolerances away")
        _, info = env.reset(options={"start": start, "goal": goal})
        far |= not info["success"]
        action = rng.uniform(low, high)
        ((_, there),) = _steps(env, start, goal, [action])
        ((_, reached),) = _steps(env, start, there["state"], [action])
        _require(reached["success"], "a step to the very goal state to be a success")
    _require(far, "some random starts not to be solved")
    states = np.stack([task.sample_state(rng) for _ in range(6)])
    together = task.goal_distance(states[:3, None], states[None, 3:])
    single = [[task.goal_distance(start, goal) for goal in states[3:]] for start in states[:3]]
    _require(np.shape(together) == (3, 3) and np.allclose(together, single), "goal_distance to take batches of states")
    told = getattr(task, "errors", task.goal_distance)
    one, other = states[:3, None], states[None, 3:]
    least = min(np.min(told(one, other)), np.min(told(other, one)))
    _require(bool(least > -1e-6), f"errors >= 0, how far off it is to either side, not {least:.3g}")


def _check_goal_image(env: GoalGym, task: Any, rng: np.random.Generator) -> None:
    start = task.sample_state(rng)
    image = task.picture(start)
    obs, info = env.reset(options={"start": start, "goal_image": image})
    for _ in range(2):
        _require(np.array_equal(obs["goal"], image), "a goal given as an image to be observed as that image")
        _require(
            bool(np.isnan(info["goal_distance"])), "a goal given as an image to have distance NaN: its state is unknown"
        )
        _require(not info["success"], "a goal given as an image never to count as success: nobody can tell")
        _require(bool(np.isnan(info["goal_state"]).all()), "a goal given as an image to have a goal_state of NaN")
        obs, _, terminated, _, info = env.step(env.action_space.sample())
        _require(not terminated, "a goal given as an image not to end the episode")


def _check_seeds(env: GoalGym, task: Any, seed: int) -> None:
    (obs, info), (obs_again, info_again), (_, other) = (env.reset(seed=one) for one in (seed, seed, seed + 1))
    equal = np.array_equal(info["state"], info_again["state"]) and _same(obs, obs_again)
    _require(
        equal and np.array_equal(info["goal_state"], info_again["goal_state"]), "the same episode from the same seed"
    )
    _require(not np.array_equal(info["state"], other["state"]), "another episode from another seed")
    first, second, third = (_play(task, one) for one in (seed, seed, seed + 1))
    states, actions = first
    _require(bool(np.isfinite(states).all() and np.isfinite(actions).all()), "finite states and actions in play")
    same = all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))
    _require(same, "the same play episode from the same seed, which held-out pairs are cut from")
    _require(not np.array_equal(first[0], third[0]), "another play episode from another seed")
    spec = task.action_spec()
    inside = (actions >= np.array(spec.low) - 1e-6).all() and (actions <= np.array(spec.high) + 1e-6).all()
    _require(bool(inside), "play to keep to the bounds of the actions")


def _play(task: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 7])
    task.set_state(task.sample_state(rng))
    play, states, actions, wanted = task.play(rng), [task.state], [], (task.action_spec().env_dim,)
    _require(callable(play), f"play to return a policy, state to action, not {play!r}")
    for _ in range(4 * STEPS):
        actions.append(play(states[-1]))
        _require(np.shape(actions[-1]) == wanted, f"play to give actions {wanted}, not {np.shape(actions[-1])}")
        task.advance(actions[-1])
        states.append(task.state)
    return np.array(states), np.array(actions)


def _check_refusals(env: GoalGym, task: Any, rng: np.random.Generator) -> None:
    state, image = task.sample_state(rng), np.zeros((task.size, task.size, 3), np.uint8)
    nothing = np.full_like(state, np.nan)
    options: dict[str, dict[str, Any]] = {
        "an unknown reset option": {"begin": state},
        "a goal and a goal_image together": {"goal": state, "goal_image": image},
        "a start state with a number missing": {"start": state[:-1]},
        "a start state of NaN": {"start": nothing},
        "a goal state of NaN": {"goal": nothing},
        "a goal image of another size": {"goal_image": image[1:]},
        "a goal image of floats": {"goal_image": image.astype(np.float32)},
    }
    for what, bad in options.items():
        _require(_refuses(lambda bad=bad: env.reset(options=bad)), f"{what} to be refused with BadInput")  # type: ignore[misc]
    env.reset(options={"start": state, "goal": state})
    action = np.zeros(task.action_spec().env_dim, np.float32)
    broken = {
        "an action of NaN": action + np.nan,
        "an infinite action": action + np.inf,
        "an action with a number too many": np.append(action, 0),
        "an action with an axis too many": action[None],
    }
    for what, one in broken.items():
        _require(_refuses(lambda one=one: env.step(one)), f"{what} to be refused with BadInput")  # type: ignore[misc]
    _require(np.array_equal(task.state, state), "a refused action to move nothing")


def _refuses(call: Any) -> bool:
    try:
        call()
    except BadInput:
        return True
    return False


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def _require(holds: bool, what: str) -> None:
    # Not an assert statement: those vanish under python -O, and a checker that checks nothing is worse than none.
    if not holds:
        raise AssertionError(f"expected {what}")
