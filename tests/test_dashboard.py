"""What a run leaves in TensorBoard, read back with its own reader."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pytest
import torch
from helpers import python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from models import nets
from models.kernels.table import C3_TABLE
from project import fit
from project.dashboard import figures

LENET = ["--data.batch_size=20", "--trainer.max_epochs=2"]
LINEAR = ["--config=logistic", "--data.iterations=40"]
SCALARS = {
    "train/loss",
    "train/learning_rate",
    "test/accuracy",
    "test/loss",
    "time/ms_per_iteration",
    "time/images_per_second",
    "time/epoch_seconds",
    "time/train_seconds",
    "weights/parameters",
}
PICTURES = {
    "lenet5-original": {"weights/C1", "weights/C3", "weights/feature_maps"},
    "logistic": {"weights/pixels"},
}


def events(name):
    """All events of a run; several files make one run, as TensorBoard shows it."""
    folder = Path("runs") / name / "version_0"
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


@pytest.mark.parametrize(("name", "options"), [("lenet5-original", LENET), ("logistic", LINEAR)])
def test_every_tag_of_the_default_dashboard_is_there(name, options, tiny):
    fit.main([*options, "--data.val_size=10"])
    run = events(name)
    tags = run.Tags()
    assert set(tags["scalars"]) >= SCALARS | {"val/accuracy", "val/loss"}
    assert set(tags["images"]) == PICTURES[name] | {"test/confusion", "test/mistakes"}
    # TensorBoard sorts them by name, and opens on the first.
    assert min(tags["scalars"] + tags["images"]) == "test/accuracy"
    dots = {"test/correct", "test/total", "test/predicted_classes", "val/total"}
    dots |= {"time/setup_seconds", "time/test_seconds", "time/validate_seconds"}
    assert not dots & set(tags["scalars"])
    assert not tags["histograms"]
    assert "custom_scalars__config__" in tags["tensors"]
    steps = {event.step for tag in tags["images"] for event in run.Images(tag)}
    assert steps == {run.Scalars("test/accuracy")[-1].step}


@pytest.mark.parametrize(("name", "options"), [("lenet5-original", LENET), ("logistic", LINEAR)])
def test_hparams_hold_the_final_metrics(name, options, tiny):
    fit.main([*options, "--figures=none"])
    run = events(name)
    assert not run.Tags()["images"]
    data = run.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
    assert start.hparams["config"].string_value == name
    assert not [key for key in start.hparams if key.startswith("_")]
    data = run.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(data).experiment
    for metric in experiment.metric_infos:
        assert run.Scalars(metric.name.tag), metric.name.tag
    assert "hp_metric" not in run.Tags()["scalars"]
    # TensorBoard takes the columns of all runs from any one of them.
    columns = {info.name: info.type for info in experiment.hparam_infos}
    assert set(columns) >= {"c3", "loss", "lr", "momentum", "batch_size", "scale", *start.hparams}
    for key, value in start.hparams.items():
        number = columns[key] == api_pb2.DATA_TYPE_FLOAT64
        assert value.WhichOneof("kind") == ("number_value" if number else "string_value"), key
    assert start.hparams["backend"].string_value == ("cuda" if torch.cuda.is_available() else "cpu")


def test_hparams_are_left_out_where_nobody_wants_them(tiny):
    fit.main([*LINEAR, "--figures=none", "--trainer.enable_autolog_hparams=false"])
    assert "_hparams_/session_start_info" not in events("logistic").summary_metadata


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "options"), [("lenet5-original", LENET), ("logistic", LINEAR)])
def test_full_dashboard_adds_the_costly_ones(name, options, tiny):
    fit.main([*options, "--figures=full"])
    tags = events(name).Tags()
    assert any(tag.startswith("weights/") for tag in tags["histograms"])
    assert tags["graph"]
    if name == "logistic":
        assert "test/precision_recall" in tags["tensors"]
    else:
        assert any(tag.startswith("gradients/") for tag in tags["histograms"])
        assert list(Path("runs").rglob("projector_config.pbtxt"))


def test_figures_cope_with_nothing_to_show():
    figures.gallery([], 70).savefig(Path("/dev/null"), format="png")
    figures.confusion_matrix(torch.zeros(2, 2), (4, 9)).savefig(Path("/dev/null"), format="png")


def test_gallery_shows_the_surest_mistakes_first():
    pixels = torch.zeros(28, 28, dtype=torch.uint8)
    mistakes = [figures.Mistake(pixels, 4, 9, n / 100) for n in range(50, 100)]
    (axes,) = figures.gallery(mistakes, 1000).axes
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == figures.ROWS * figures.COLUMNS
    assert texts[0] == "4, taken for 9\n99% sure"


def test_c3_has_a_picture_for_each_connection_of_its_table():
    (axes,) = figures.table_kernels(nets.LeNet5("original")).axes
    expected = [f"{source} to {output}" for output, row in enumerate(C3_TABLE) for source in row]
    assert [text.get_text() for text in axes.texts] == expected


def test_figures_are_drawn_whatever_style_a_user_has_set(tiny, monkeypatch, capsys):
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setenv("PATH", "")  # without LaTeX
    fit.main(LINEAR)
    assert set(events("logistic").Tags()["images"]) >= {"test/confusion", "test/mistakes"}
    assert not capsys.readouterr().err
    assert matplotlib.rcParams["text.usetex"], "it is the user's"


@pytest.mark.filterwarnings("ignore")
def test_figure_that_cannot_be_drawn_is_one_line(tiny, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no\nroom")

    monkeypatch.setattr(figures, "gallery", broken)
    monkeypatch.setattr("project.dashboard.costly.write", broken)
    fit.main([*LINEAR, "--figures=full"])
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "warning: the figure test/mistakes could not be drawn (RuntimeError: no room)",
        "warning: what --figures full adds could not be drawn (RuntimeError: no room)",
    ]
    assert "test accuracy" in said.out
    assert set(events("logistic").Tags()["images"]) == {"test/confusion", "weights/pixels"}
    assert json.loads(Path("runs/logistic/version_0/results.json").read_text())["test"]


@pytest.mark.slow
def test_programs_take_no_backend_from_a_notebook(tmp_path):
    done = python("-m", "project.evaluate", folder=tmp_path, MPLBACKEND="not-installed")
    assert done.stderr.startswith("error: say which checkpoint to test")
