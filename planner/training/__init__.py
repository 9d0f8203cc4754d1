"""Training: from play to a model, and what a finished model is taught further. Everything resumes where it stopped."""

from .batches import Pictures, cache_latents, check_datasets, views_of
from .body import body_directions, find_body
from .further import add_part, polish
from .jepa import JEPATraining, PredictorTraining, probe
from .looks import agreement, join, learn_looks
from .scratch import check_start, pretrain, train

__all__ = [
    "JEPATraining",
    "Pictures",
    "PredictorTraining",
    "add_part",
    "agreement",
    "body_directions",
    "cache_latents",
    "check_datasets",
    "check_start",
    "find_body",
    "join",
    "learn_looks",
    "polish",
    "pretrain",
    "probe",
    "train",
    "views_of",
]
