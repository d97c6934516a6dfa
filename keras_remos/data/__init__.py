"""Data in every form that `fit` takes, or on disk, as batches of NumPy arrays in the form that a model takes."""

from keras_remos.data.datasets import Dataset
from keras_remos.data.for_model import MatchedDataset, open_for_model
from keras_remos.data.from_disk import open_dataset
from keras_remos.data.parts import set_aside
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import Samples
from keras_remos.data.scaling import SCALINGS, choose_scaling, scale_inputs
from keras_remos.data.streams import Batches, Fingerprint, batches
from keras_remos.data.training_data import TrainingData, training_data
from keras_remos.data.unlabelled import Unlabelled, open_unlabelled

__all__ = [
    "SCALINGS",
    "Batches",
    "Dataset",
    "Fingerprint",
    "MatchedDataset",
    "PixelSpace",
    "Samples",
    "TrainingData",
    "Unlabelled",
    "batches",
    "choose_scaling",
    "open_dataset",
    "open_for_model",
    "open_unlabelled",
    "scale_inputs",
    "set_aside",
    "training_data",
]
