"""What stages draw from: windows, pictures and latents of datasets that were held against the model and each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from ..data import CAMERA, EpisodeStore, Mixture, TooFewRows, Windows, split_rows
from ..errors import BadInput
from ..models.jepa import JEPA, JEPAConfig
from ..overlap import copies, moves, runs_of
from ..settings import TrainConfig
from ..symmetry import Symmetry


class Pictures:
    """Random pictures of a dataset; batch `i` is a pure function of `(seed, i)`.

    Args:
        store: the dataset.
        rows: episodes to draw from, `[n]`.
        batch: pictures a batch.
        seed: any integer >= 0.
    """

    def __init__(self, store: EpisodeStore, rows: Tensor, batch: int, seed: int) -> None:
        if not len(rows):
            raise TooFewRows(store)
        self.rows, self.batch, self.seed, self.frames = rows, batch, seed, store.info.steps + 1
        self.pixels = store.data["pixels"].flatten(0, 1)  # a gather from a flat memory map is the fastest

    def __len__(self) -> int:
        """Enough batches to draw every eighth picture about once; more may be asked for."""
        return -(-len(self.rows) * self.frames // (8 * self.batch))

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index`: `pixels` `[B, size, size, 3]`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        row = self.rows[torch.randint(len(self.rows), (self.batch,), generator=generator)]
        frame = torch.randint(self.frames, (self.batch,), generator=generator)
        return TensorDict({"pixels": self.pixels[row * self.frames + frame]}, batch_size=[self.batch])


@torch.no_grad()
def cache_latents(model: JEPA, store: EpisodeStore, symmetry: Symmetry | None = None, every: int = 1) -> Tensor:
    """Latents of a dataset's frames from the encoder as it is when planning, `[episodes x (L // every + 1), D]`.

    Of all frames as they are; with `symmetry` as it shows them, with `every` of that many frames one.
    """
    pixels, training = store.data["pixels"], model.training
    seen = symmetry.picture if symmetry else (lambda picture: picture)
    model.eval()
    latents = torch.cat([model.embed(seen(pixels[row][::every])) for row in range(len(pixels))])
    model.train(training)
    return latents


def draws_of(
    model: JEPA,
    store: EpisodeStore,
    config: TrainConfig,
    views: Sequence[Symmetry] = (),
    *,
    cached: bool = False,
    share: int = 1,
) -> tuple[Mixture, Windows]:
    """Windows to fit and to validate on, one in `share` of a batch each.

    Those to fit on are in equal shares as they are and as each of the `views` shows them. `cached` is for latents that
    do not change any more.
    """
    fit_rows, held_out = split_rows(store.info, config.held_out)
    frames, batch = model.history + config.horizon, max(1, config.batch // share)
    latents = cache_latents(model, store) if cached else None
    fit = Windows(store, fit_rows, frames, max(1, batch // (1 + len(views))), config.seed, config.moving, latents)
    check = Windows(store, held_out, frames, batch, config.seed + 1, latents=latents)
    block = store.info.block
    shown = [
        fit.under(view, config.seed + 1 + k, cache_latents(model, store, view, block) if cached else None)
        for k, view in enumerate(views, start=1)
    ]
    return Mixture([fit, *shown]), check


def episodes_of(
    model: JEPA, stores: Sequence[EpisodeStore], views: Sequence[Symmetry], held_out: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Latents `[N, L + 1, D]` and actions `[N, L, a]` of all datasets' episodes to fit, and of those to check.

    Those to fit are there again as each of the `views` shows them.
    """
    fit: list[tuple[Tensor, Tensor]] = []
    check: list[tuple[Tensor, Tensor]] = []
    for store in stores:
        fit_rows, check_rows = split_rows(store.info, held_out)
        if not len(fit_rows):
            raise TooFewRows(store)
        actions = store.data["actions"][:]
        for view in (None, *views):
            latents = cache_latents(model, store, view).unflatten(0, (store.info.episodes, -1))
            fit.append((latents[fit_rows], view.action(actions[fit_rows]) if view else actions[fit_rows]))
            if view is None:
                check.append((latents[check_rows], actions[check_rows]))
    (fits, fit_actions), (checks, check_actions) = (map(torch.cat, zip(*part, strict=True)) for part in (fit, check))
    return (fits, fit_actions), (checks, check_actions)


def pictures_of(store: EpisodeStore, config: TrainConfig) -> tuple[Pictures, Pictures]:
    """Single pictures to fit and to validate on."""
    fit, check = split_rows(store.info, config.held_out)
    return Pictures(store, fit, config.batch, config.seed), Pictures(store, check, config.batch, config.seed + 1)


def some_pictures(store: EpisodeStore, config: TrainConfig) -> Iterator[Tensor]:
    """Batches of random training pictures, enough for the statistics of a normalisation."""
    pictures = Pictures(store, split_rows(store.info, config.held_out)[0], 256, config.seed)
    return (pictures[i]["pixels"] for i in range(16))


def views_of(config: TrainConfig, symmetries: Sequence[Symmetry]) -> Sequence[Symmetry]:
    """The symmetries that episodes are to be seen under: the task's where `config.symmetric` says so, else none.

    Raises:
        BadInput: if some are wanted and the task has none.
    """
    if config.symmetric and not symmetries:
        expected, do = "a task that lists its symmetries (GoalEnv.symmetries)", "leave the option out"
        raise BadInput("training: symmetric, and the task has no symmetries", expected=expected, do=do)
    return symmetries if config.symmetric else ()


def check_size(store: EpisodeStore, shape: JEPAConfig) -> None:
    """Raises `BadInput` where a model of this shape sees pictures of another size than the dataset's."""
    if shape.image_size != store.info.size:
        raise BadInput("image sizes differ", expected=f"{store.info.size} (the dataset's)", got=str(shape.image_size))


def check_datasets(stores: Sequence[EpisodeStore], model: JEPA) -> None:
    """Raises `BadInput` where a dataset's size of pictures or actions (bounds, units, block) are not the model's."""
    for store in stores:
        store.check_fits(model.config.image_size, model.action)


def _check_apart(stores: Sequence[EpisodeStore]) -> None:
    """Raises `BadInput` where two datasets share episodes: one's held-out ones would be trained on with the other."""
    _check_recordings_apart([store for store in stores if store.info.renderer == CAMERA])  # which no seed makes others
    seen: dict[int, list[tuple[EpisodeStore, int]]] = {}
    for store in stores:
        rows = list(enumerate(store.data["checksum"].tolist()))
        owners = [_owner(store, row, seen[checksum]) for row, checksum in rows if checksum in seen]
        if twice := [other for other in owners if other is not None]:
            do = "name each once, and collect with another --seed"
            expected, got = "episodes of its own", f"{len(twice)} that {twice[0].path} has too"
            raise BadInput(f"dataset {store.path} is no other", expected=expected, got=got, do=do)
        for row, checksum in rows:
            seen.setdefault(checksum, []).append((store, row))


def _check_recordings_apart(stores: Sequence[EpisodeStore]) -> None:
    """The same for recordings, whose rows may be cut otherwise elsewhere."""
    found = [runs_of(moves(store), store.info.recordings) for store in stores] if len(stores) > 1 else []
    for (one, its), (other, theirs) in combinations(zip(stores, found, strict=False), 2):
        if twice := max(copies(theirs, its), copies(its, theirs)):
            do = "name each dataset once, and import all recordings together, or the new ones alone"
            expected, got = "recordings of its own", f"{twice} that {one.path} has too"
            raise BadInput(f"dataset {other.path} is no other", expected=expected, got=got, do=do)


def _owner(store: EpisodeStore, row: int, alike: Sequence[tuple[EpisodeStore, int]]) -> EpisodeStore | None:
    """The first dataset that has this episode too, of those rows that have its checksum; None if there is none.

    Of thousands of episodes two have the same 32 bits by chance: what was done in them tells.
    """
    actions = store.data["actions"][row]
    return next((other for other, its in alike if torch.equal(other.data["actions"][its], actions)), None)


def data_of(store: EpisodeStore) -> dict[str, Any]:
    """What a training on a dataset of its own knows it by, wherever it lies."""
    spec = store.info.action_spec  # of other bounds what was learned means other actions
    known: dict[str, Any] = {name: getattr(store.info, name) for name in ("episodes", "steps", "seed", "policy")}
    return known | {"renderer": store.info.renderer, "low": [*spec.low], "high": [*spec.high], "block": spec.block}


def fitting(stores: Sequence[EpisodeStore], model: JEPA, weights: str, views: Sequence[Symmetry]) -> dict[str, Any]:
    """What a run of a finished model on datasets is known by; `BadInput` where one does not fit the model."""
    check_datasets(stores, model)
    _check_apart(stores)
    data = [{"path": str(store.path)} | data_of(store) for store in stores]
    return {"task": stores[0].info.task, "encoder": weights, "data": data, "symmetries": named(views)}


def named(views: Sequence[Symmetry]) -> list[str] | None:
    """What a run says of the symmetries that it sees episodes under: another task's matrices make it another run."""
    return [view.digest for view in views] or None
