"""The page: what is in it, and the programs that write it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from helpers import assert_same_weights, refusal
from pages import MODELS, SHIPPED, digits, page_of, trained, untrained, weights_in

from project import export, fit, predict
from project.page import __main__ as renew
from project.page import assemble, contents


def test_page_is_one_file_that_asks_no_network_for_anything():
    page = assemble.assemble(page_of(untrained()["original"], untrained()["linear"]))
    assert len(page.encode()) < 1_000_000
    for word in ("http:", "https:", "src=", 'href="s', "@import", "fetch(", "url(", "XMLHttp"):
        assert word not in page, word
    assert "default-src 'none'" in page
    assert not re.search(r"^(import|export) ", page, re.MULTILINE)


@pytest.mark.parametrize("name", MODELS)
def test_page_carries_all_weights_bit_for_bit(name):
    page = assemble.assemble(page_of(untrained()[name], untrained()["linear"]))
    models = untrained()[name], untrained()["linear"]
    for found, model in zip(weights_in(assemble.content_of(page)), models, strict=True):
        found.pop("answers")
        expected = {name: tensor.flatten() for name, tensor in contents.tensors(model).items()}
        assert_same_weights(found, expected)


def test_test_digits_are_in_the_page_with_their_labels():
    test = digits(60)
    facts, data = page_of(untrained()["original"], test=test)
    _, pixels = contents.unpack(data, facts["floats"])
    labels = facts["digits"]["labels"]
    assert len(labels) == len(pixels) >= 50
    for label, image in zip(labels, pixels, strict=True):
        assert any(torch.equal(image, test[i]) for i in range(label, 60, 10))


def test_name_of_a_run_cannot_end_the_element_it_stands_in():
    run = trained("</script><b>", untrained()["linear"], digits(20))
    page = assemble.assemble(contents.content([run]))
    assert "</script><b>" not in page
    assert assemble.content_of(page).facts["networks"][0]["name"] == "</script><b>"


def test_page_is_unsure_where_predict_is():
    (share,) = re.findall(r"const SURE = (\S+);", (assemble.SOURCES / "answer.js").read_text())
    assert float(share) == predict.SURE


def test_page_that_would_be_too_large_is_refused():
    with pytest.raises(Exception, match="name fewer checkpoints than 4"):
        assemble.assemble(page_of(*[untrained()["original"]] * 4))


@pytest.mark.parametrize("name", MODELS)
def test_page_knows_every_network_of_the_project(name):
    model = MODELS[name]().eval()
    plain, x = contents.as_in_page(model), model.inputs(digits(5))
    assert plain is not None
    with torch.no_grad():
        assert torch.equal(plain(x), model(x))


def test_shipped_page_has_todays_sources():
    text = SHIPPED.read_text(encoding="utf-8")
    assert assemble.assemble(assemble.content_of(text)) == text, (
        "run python -m project.page docs/lenet5.html"
    )


def test_page_is_made_anew_with_the_networks_in_it(tmp_path, capsys):
    path = tmp_path / "page.html"
    content = page_of(untrained()["linear"])
    path.write_text(assemble.assemble(content).replace("<style>", "<style>/* an older one */"))
    renew.main([str(path)])
    assert path.read_text() == assemble.assemble(content)
    older = path.with_name("older.html")
    older.write_text(path.read_text().replace("<style>", "<style>/* an older one */"))
    before = older.read_text()
    path.write_text("something else")
    line = refusal(capsys, renew.main, str(older), str(path))
    assert "name a page of project.export" in line
    assert path.read_text() == "something else"
    assert older.read_text() == before, "all or none"
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or a device" in refusal(capsys, renew.main, str(tmp_path / "pipe"))


@pytest.fixture
def checkpoint(tiny):
    fit.main(["--trainer.max_steps=2", "--figures=none"])
    return str(next(tiny.rglob("*.ckpt")))


def test_program_writes_a_page_of_several_checkpoints(checkpoint, capsys):
    fit.main(["--config=logistic", "--trainer.max_steps=2", "--figures=none"])
    linear = str(next(Path("runs/logistic").rglob("*.ckpt")))
    export.main([f"--ckpt_path={checkpoint}", "--ckpt_path", linear, "--format=html"])
    assert "lenet5-original, logistic; open it" in capsys.readouterr().out
    page = Path("lenet5-original.html").read_text(encoding="utf-8")
    facts = assemble.content_of(page).facts
    assert [network["parameters"] for network in facts["networks"]] == [60_806, 785]
    assert facts["networks"][0]["total"] == 70


def test_other_formats_hold_one_model(checkpoint, capsys):
    options = [f"--ckpt_path={checkpoint}"] * 2
    line = refusal(capsys, export.main, *options, "--format=onnx")
    assert "holds one model" in line
