"""Training: from play to a model, and what a finished model is taught further. Everything resumes where it stopped."""

from .batches import cache_latents, check_datasets, views_of
from .body import body_directions
from .further import add_part, polish
from .jepa import JEPATraining, probe
from .looks import join, learn_looks
from .scratch import check_pretrain, check_shape, check_start, pretrain, train

__all__ = [
    "JEPATraining",
    "add_part",
    "body_directions",
    "cache_latents",
    "check_datasets",
    "check_pretrain",
    "check_shape",
    "check_start",
    "join",
    "learn_looks",
    "polish",
    "pretrain",
    "probe",
    "train",
    "views_of",
]
