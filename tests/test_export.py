"""Exported files: what they answer, without this project, and what they do not tell."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import lightning
import onnx
import onnxruntime
import pytest
import torch
from helpers import refusal
from torch import nn

from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear
from project import export, fit

MODELS = {
    "original": LeNet5,
    "modern": lambda: LeNet5(c3="modern"),
    "1998": LeNet1998,
    "linear": lambda: Linear(scale=1 / 255),
}
# Every test of ONNX passes through torch's exporter, which warns of its own.
pytestmark = pytest.mark.filterwarnings("ignore")

RUN_PT2 = """
import sys, torch
for name in sys.argv[1:]:
    module = torch.export.load(f"{name}.model").module()
    torch.save(module(torch.load(f"{name}.x")), f"{name}.y")
assert not {"models", "project", "lightning"} & set(sys.modules)
"""

RUN_ONNX = """
import sys, onnxruntime, torch
for name in sys.argv[1:]:
    session = onnxruntime.InferenceSession(f"{name}.model")
    got = session.run(None, {"images": torch.load(f"{name}.x").numpy()})
    torch.save([torch.from_numpy(y) for y in got], f"{name}.y")
assert not {"models", "project", "lightning"} & set(sys.modules)
"""


def model(name):
    lightning.seed_everything(0, verbose=False)
    return MODELS[name]()


def inputs(model, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 28, 28)
    return model.inputs(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))


def assert_answers(model, x, got):
    with torch.no_grad():
        outputs = model(x)
        torch.testing.assert_close(got[0], outputs, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(got[1], model.probabilities(outputs), atol=1e-5, rtol=0)


def assert_kernels_are_constants(graph):
    """As OpenCV's reader wants them; for one image it wants a linear model's rows kept rows."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert constants.issuperset(node.input[1:]), node.name
        assert node.op_type not in ("ConstantOfShape", "ScatterND", "ScatterElements")
    inputs = {name for node in graph.node if node.op_type == "Sigmoid" for name in node.input}
    makers = {node.op_type for node in graph.node if inputs.intersection(node.output)}
    assert makers <= {"Concat"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_onnx_answers_as_the_model_does_for_any_number_of_images(name, tmp_path):
    trained = model(name)
    gaps = export.export(trained, inputs(trained, 5), "onnx", tmp_path / "model.onnx")
    assert max(gaps) < 1e-4
    assert_kernels_are_constants(onnx.load(tmp_path / "model.onnx").graph)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for count in (1, 7):
        x = inputs(trained, count, seed=count)
        got = [torch.from_numpy(y) for y in session.run(None, {"images": x.numpy()})]
        assert_answers(trained, x, got)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "script", "names"), [("pt2", RUN_PT2, MODELS), ("onnx", RUN_ONNX, ["original"])]
)
def test_files_answer_without_this_project(kind, script, names, tmp_path):
    trained = {name: model(name) for name in names}
    x = {name: inputs(trained[name], 7, seed=1) for name in names}
    for name in names:
        export.export(trained[name], inputs(trained[name], 5), kind, tmp_path / f"{name}.model")
        torch.save(x[name], tmp_path / f"{name}.x")
    subprocess.run([sys.executable, "-I", "-c", script, *names], cwd=tmp_path, check=True)
    for name in names:
        assert_answers(trained[name], x[name], torch.load(tmp_path / f"{name}.y"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", export.FORMATS)
def test_files_tell_nothing_of_this_machine(kind, tmp_path):
    trained = model("original")
    path = tmp_path / "model"
    export.export(trained, inputs(trained, 5), kind, path)
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(Path(export.__file__).parent.parent).encode() not in content
    assert len(content) < 1_000_000


def test_training_goes_on_where_it_ran(tmp_path):
    trained = LeNet5(backend="reference")
    export.export(trained, inputs(trained, 2), "pt2", tmp_path / "model.pt2")
    assert trained.net.c3.backend == "reference"
    assert all(parameter.requires_grad for parameter in trained.parameters())


@pytest.fixture
def checkpoint(tiny):
    fit.main(["--trainer.max_steps=2", "--figures=none"])
    return str(next(tiny.rglob("*.ckpt")))


class Layered(LeNet5):
    """One with another layer."""

    def __init__(self):
        super().__init__()
        self.net.f6 = nn.Sequential(self.net.f6, nn.ReLU())


class Inverted(LeNet5):
    """One that takes other inputs."""

    def inputs(self, images):
        return super().inputs(255 - images)


class Doubled(LeNet5):
    """One that does something outside of its net."""

    def forward(self, x):
        return 2 * super().forward(x)


class Other(LeNet5):
    """One with a network that no page knows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Loss(LeNet5):
    """One that learns in its own way, and is a LeNet-5 behind it."""

    def losses(self, outputs, labels):
        return 2 * super().losses(outputs, labels)


@pytest.mark.parametrize("kind", [Layered, Inverted, Doubled, Other, Loss])
def test_a_file_says_what_a_model_of_one_s_own_says_or_is_refused(kind, tiny, capsys):
    fit.main([f"--model=test_export.{kind.__name__}", "--trainer.max_steps=2", "--figures=none"])
    page, model = (["--ckpt_path=last", f"--format={name}"] for name in ("html", "pt2"))
    if kind is Loss:
        export.main(page)
    else:
        assert f"{kind.__name__} is another network, or" in refusal(capsys, export.main, *page)
    if kind is Doubled:
        assert "what Doubled does outside of its net" in refusal(capsys, export.main, *model)
    else:
        export.main(model)
    made = {path.suffix for path in Path().glob(f"{kind.__name__}.*")}
    assert made == {Loss: {".html", ".pt2"}, Doubled: set()}.get(kind, {".pt2"})


@pytest.mark.parametrize("kind", export.FORMATS)
def test_program_says_how_far_the_file_is_from_the_model(kind, checkpoint, capsys):
    export.main([f"--ckpt_path={checkpoint}", f"--format={kind}"])
    assert Path(f"lenet5-original.{kind}").is_file()
    said = capsys.readouterr().out
    assert "images (B, 1, 28, 28) from 0 to 1" in said
    assert float(re.search(r"at most (\S+) in outputs", said)[1]) < 1e-5
    assert "On 70 test digits" in said


def test_file_that_says_something_else_gets_no_name(checkpoint, capsys, monkeypatch):
    def wrong(portable, x):
        return b"another model", lambda x: [y + 1e-3 for y in portable(x)]

    monkeypatch.setitem(export.FORMATS, "onnx", wrong)
    Path("o.onnx").write_text("an older one")
    line = refusal(capsys, export.main, f"--ckpt_path={checkpoint}", "--output=o.onnx")
    assert "differs from the model" in line
    assert Path("o.onnx").read_text() == "an older one"
    assert not list(Path().glob("*.tmp"))


def test_file_under_the_default_name_is_not_replaced(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(export, "export", lambda *args: pytest.fail("it exports"))
    Path("lenet5-original.onnx").write_text("the user's")
    line = refusal(capsys, export.main, f"--ckpt_path={checkpoint}")
    assert line.startswith("error: lenet5-original.onnx is there already")
    assert "--output" in line
    assert Path("lenet5-original.onnx").read_text() == "the user's"


def test_named_file_is_replaced_and_that_is_said(checkpoint, capsys):
    Path("o.pt2").write_text("an older one")
    Path("o.pt2.tmp").write_text("the user's")
    options = [f"--ckpt_path={checkpoint}", "--format=pt2", "--output=o.pt2"]
    export.main(options)
    assert "o.pt2 (replaced): images" in capsys.readouterr().out
    torch.export.load("o.pt2")
    Path("o.pt2").unlink()
    export.main(options)
    assert "o.pt2: images" in capsys.readouterr().out
    assert Path("o.pt2.tmp").read_text() == "the user's"


def test_missing_package_is_named(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    line = refusal(capsys, export.main, f"--ckpt_path={checkpoint}")
    assert "pip install -r requirements-export.txt" in line
