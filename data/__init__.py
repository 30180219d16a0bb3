"""The data sets: finding, downloading and loading them. Knows nothing of models."""

from data.four_nine import FourNineDataModule
from data.mnist import MNISTDataModule
from data.source import DatasetError

__all__ = ["DatasetError", "FourNineDataModule", "MNISTDataModule"]
