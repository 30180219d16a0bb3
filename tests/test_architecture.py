"""Imports run one way: project -> {data, models, callbacks}; kernels load no Lightning."""

from __future__ import annotations

import ast

import pytest
from helpers import REPOSITORY, loaded_by

ALLOWED = {
    "data": {"data"},
    "models": {"models"},
    "callbacks": {"callbacks"},
    "project": {"project", "data", "models", "callbacks"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below_them(package):
    for path in (REPOSITORY / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in imported(path)} & set(ALLOWED)
        assert ours <= ALLOWED[package], path


def test_nets_and_kernels_load_no_lightning():
    modules = loaded_by("import models.nets, models.losses, models.kernels.conv_pool.reference")
    assert "models.kernels.conv_pool.composite" in modules
    assert not {"lightning", "torchmetrics", "torchvision"} & modules


def test_the_mathematics_of_the_document_load_torch_alone():
    modules = loaded_by("import project.reproduce.theory, project.reproduce.filters")
    assert "torch" in modules, "or this test could not fail"
    assert not {"lightning", "models", "data"} & modules


def test_files_are_written_without_torch():
    modules = loaded_by("import callbacks.files")
    assert not {"lightning", "torch"} & modules


def test_data_loads_no_model():
    modules = loaded_by("from data import MNISTDataModule")
    assert "lightning" in modules, "or this test could not fail"
    assert "models" not in modules
