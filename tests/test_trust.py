"""A compiled kernel is used where it has been seen to give the reference's numbers."""

from __future__ import annotations

import json

import pytest
import torch

from models.kernels import packages, sgd, trust
from models.kernels.conv_pool import dispatch, proof
from models.kernels.sgd import proof as sgd_proof
from models.kernels.trust import DeviceLostError, Kernel

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _strange_machine(monkeypatch, tmp_path):
    """One on which nothing has been proved."""
    monkeypatch.setattr(trust, "_verdicts", {})
    monkeypatch.setattr(trust, "_told", set())
    monkeypatch.setattr(trust.machine, "cache_folder", lambda: tmp_path / "cache")


def kernel(*answers, bound=1e-5):
    """One whose proofs find these answers, one after the other."""
    left = iter(answers)

    def errors(device):
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return {"result": answer}

    return Kernel("kernel", errors, bound)


def forget():
    """As another process begins."""
    trust._verdicts.clear()
    trust._told.clear()


def test_what_is_right_is_proved_once_and_kept(capsys, tmp_path):
    right = kernel(1e-7)
    assert trust.find_obstacle(right, CPU, proving=False) is None
    assert trust.obstacle(right, CPU) is None
    forget()
    assert trust.obstacle(right, CPU) is None
    (kept,) = (tmp_path / "cache").iterdir()
    assert json.loads(kept.read_text())["errors"] == {"result": 1e-7}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [0.1, float("nan"), float("inf")])
def test_what_is_wrong_is_told_in_one_line_by_every_process(error, capsys):
    wrong = kernel(error)
    for _ in range(2):
        assert "it is off, result by" in trust.obstacle(wrong, CPU)
        known = trust.find_obstacle(wrong, CPU, proving=False)
        assert trust.obstacle(wrong, CPU) == known
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("Not using the kernel on ")
        forget()


def test_what_raises_is_told_and_tried_again_by_the_next_process(capsys):
    mended = kernel(RuntimeError("Failed to find C compiler.\nSee above."), 0.0)
    assert trust.obstacle(mended, CPU) == "RuntimeError: Failed to find C compiler."
    assert len(capsys.readouterr().err.splitlines()) == 1
    forget()
    assert trust.obstacle(mended, CPU) is None


def test_a_device_that_a_kernel_has_stopped_ends_the_program_once(monkeypatch):
    monkeypatch.setattr(trust, "_answers", lambda device: False)
    fatal = kernel(RuntimeError("an illegal memory access was encountered"))
    with pytest.raises(DeviceLostError, match="start again"):
        trust.obstacle(fatal, CPU)
    forget()
    assert "illegal memory access" in trust.obstacle(fatal, CPU)


def test_another_driver_or_version_or_source_is_another_proof(monkeypatch):
    names = [trust._file(kernel(), CPU)]
    monkeypatch.setattr(trust.machine, "driver", lambda: "600.1")
    names.append(trust._file(kernel(), CPU))
    monkeypatch.setattr(trust, "_versions", lambda: {"torch": "3"})
    names.append(trust._file(kernel(), CPU))
    monkeypatch.setattr(trust.machine, "sources", lambda: b"others")
    names.append(trust._file(kernel(), CPU))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"errors": 3, "obstacle": null}', "null"])
def test_a_damaged_verdict_is_none(content, tmp_path):
    right = kernel(0.0, 0.0)
    trust.obstacle(right, CPU)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_text(content)
    forget()
    assert trust.obstacle(right, CPU) is None


def test_where_nothing_can_be_kept_every_process_proves(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert trust.obstacle(kernel(0.0), CPU) is None


def test_the_kernels_of_this_machine_pass_their_proofs():
    for one in (proof.ANSWERS, proof.GRADIENT, sgd_proof.DESCENT["cpu"]):
        verdict = trust.prove(one, CPU)
        assert verdict.obstacle is None
        assert verdict.errors


def test_a_proof_leaves_torch_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert trust.prove(proof.ANSWERS, CPU).obstacle is None
    assert torch.equal(torch.rand(2), expected)


def fake_gpu(monkeypatch, *, answers):
    """Lets a device be a GPU whose kernels give such proofs."""
    monkeypatch.setattr(packages, "MISSING", set())
    monkeypatch.setattr(proof, "ANSWERS", answers)
    monkeypatch.setattr(proof, "GRADIENT", kernel(0.0))
    monkeypatch.setattr(trust.machine, "describe", lambda device: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(trust, "_answers", lambda device: True)


@pytest.mark.parametrize(
    ("answer", "version", "lines"),
    [
        (0.0, "cuda", 0),
        (0.5, "composite", 1),
        (RuntimeError("Failed to find C compiler"), "composite", 1),
        (RuntimeError("no kernel image is available for execution on the device"), "composite", 1),
    ],
)
def test_a_gpu_gets_the_fused_block_after_its_proof(answer, version, lines, monkeypatch, capsys):
    fake_gpu(monkeypatch, answers=kernel(answer))
    gpu = torch.device("cuda", 0)
    for _ in range(3):
        assert dispatch.choose("auto", gpu, torch.float32) == version
    assert len(capsys.readouterr().err.splitlines()) == lines


@pytest.mark.parametrize("answer", [0.5, RuntimeError("Failed to find C compiler")])
def test_a_gpu_without_a_descent_has_that_of_the_cpu(answer, monkeypatch, capsys):
    fake_gpu(monkeypatch, answers=kernel())
    kernels = {"cuda": kernel(answer), "cpu": kernel(0.0)}
    monkeypatch.setattr(sgd_proof, "DESCENT", kernels)
    gpu = torch.device("cuda", 0)
    assert [sgd.choose("auto", gpu, torch.float32) for _ in range(2)] == ["cpu", "cpu"]
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(ValueError, match="backend cuda cannot run: "):
        sgd.choose("cuda", gpu, torch.float32)


def test_other_accelerators_train_single_images_on_the_cpu():
    assert sgd.choose("auto", torch.device("mps", 0), torch.float32) == "cpu"
