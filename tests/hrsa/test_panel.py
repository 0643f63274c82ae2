"""The panel on tiny models: what must be one is one, what is undefined says why, and files hold all of it."""

from __future__ import annotations

import copy
import json
import math

import pytest
import scipy.stats
import torch

from st_reasoning.errors import InputError
from st_reasoning.hrsa import Activations, Settings, compare, draw, measures, panel, summary, write
from st_reasoning.hrsa.tokens import sinks_of
from tests.hrsa.test_schema import DOCUMENT, matches
from tests.schemas import documented, keys_of

PICTURES = {"linear_cka", "dimension_correlation", "procrustes", "knn_overlap", "linear_probe"}


@pytest.fixture(scope="module")
def labels(texts):
    return ["even" if number % 2 else "odd" for number in range(len(texts))]


@pytest.fixture(scope="module")
def record(tiny, noisy, texts, labels):
    return panel(
        tiny, noisy, texts, labels=labels, k=(5, 2), names=("clean", "noisy"), estimator="exact", progress=False
    )


def activations(states: list[torch.Tensor], sentences: int) -> Activations:
    n = len(states[0])
    sentence = torch.arange(n) * sentences // n
    features = [torch.stack([x[sentence == m].mean(0) for m in range(sentences)]) for x in states]
    return Activations(states, features, torch.arange(n), sentence)


def random_states(seed: int, n: int = 200, d: int = 16, layers: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.5, 2, d)
    return [torch.randn(n, d, generator=generator) * scale for _ in range(layers)]


def test_model_against_itself_is_one_everywhere(tiny, texts, labels):
    record = panel(tiny, copy.deepcopy(tiny), texts, labels=labels, k=(2, 5), progress=False)
    for layer in record["layers"]:
        assert layer["dimension_correlation"]["value"] == pytest.approx(1, abs=1e-6)
        assert layer["linear_cka"]["biased"] == pytest.approx(1, abs=1e-5)
        assert layer["linear_cka"]["debiased"] == pytest.approx(1, abs=1e-5)
        assert [entry["value"] for entry in layer["knn_overlap"].values()] == [1, 1]
        assert layer["procrustes"]["residual"] < 1e-10
        assert layer["linear_probe"]["difference"] == 0
        if layer["procrustes"]["determined"]:
            assert layer["procrustes"]["inverse_row_entropy"] == pytest.approx(1, abs=1e-6)
    # Layer 0 is the embedding of 14 word types: they cannot determine a rotation of 32 dimensions.
    assert [layer["procrustes"]["determined"] for layer in record["layers"]] == [False, True, True, True]


def test_values_are_those_of_the_measures(record, tiny, noisy, texts):
    from st_reasoning.hrsa import hidden_states

    a, b = (hidden_states(model, texts, progress=False) for model in (tiny, noisy))
    for number, (layer, guard) in enumerate(zip(record["layers"], record["sensitivity"], strict=True)):
        x, y = a.states[number], b.states[number]
        assert layer["layer"] == guard["layer"] == number
        assert layer["linear_cka"]["biased"] == pytest.approx(measures.linear_cka(x, y), abs=1e-6)
        assert layer["dimension_correlation"]["value"] == pytest.approx(measures.dimension_correlation(x, y), abs=1e-6)
        near = {int(k): e["value"] for k, e in layer["knn_overlap"].items()}
        # Rows come in another order: of texts that begin alike, float32 near-ties may fall the other way.
        assert near == pytest.approx(measures.knn_overlap(x, y, k=(2, 5)), abs=0.02)
        residual = measures.procrustes(x, y, groups=a.sentence).residual
        assert layer["procrustes"]["residual"] == pytest.approx(residual, rel=1e-9)
        assert guard["effective_rank"]["noisy"] == pytest.approx(measures.effective_rank(y), rel=1e-5)
    cross = measures.linear_cka(a.states[1], b.states[3])
    assert record["matrices"]["linear_cka"][1][3] == pytest.approx(cross, abs=1e-6)
    assert cross != pytest.approx(record["matrices"]["linear_cka"][3][1], abs=1e-3)  # rows are the first model
    assert 0.2 < record["layers"][-1]["knn_overlap"]["5"]["value"] < 0.99  # neither model is a copy of the other


def test_record_says_what_was_compared(record, texts):
    assert record["schema"] == 3
    first = record["models"][0]
    assert (first["name"], first["layers"], first["width"], first["dtype"]) == ("clean", 3, 32, "float32")
    assert record["corpus"]["texts"] == len(texts)
    assert record["corpus"]["tokens"] == sum(len(text.split()) for text in texts)
    assert record["settings"]["k"] == [2, 5]
    assert record["omitted"] == {}
    assert "torch" in record["versions"]
    json.dumps(record, allow_nan=False)


def test_attention_is_what_the_model_does(make_model, texts):
    for causal, expected in ((None, "causal"), (True, "causal"), (False, "bidirectional")):
        model = make_model(causal=causal)
        assert panel(model, model, texts, k=[2], progress=False)["models"][1]["attention"] == expected
    liar = make_model(causal=True)
    causal_states = liar[0].model.forward
    # A config that says one thing on a network that does the other, as some architectures do.
    liar[0].model.config.is_causal = False
    liar[0].model.forward = lambda **kwargs: _as_causal(liar, causal_states, kwargs)
    with pytest.raises(InputError, match=r"config says bidirectional, but LlamaModel under \w+ is causal"):
        panel(liar, liar, texts, k=[2], progress=False)


def _as_causal(model, forward, kwargs):
    model[0].model.config.is_causal = True
    try:  # a probe may end a forward pass behind the layers that it wants to see
        return forward(**kwargs)
    finally:
        model[0].model.config.is_causal = False


def test_rotated_activations_keep_geometry_and_lose_the_basis():
    states = random_states(0)
    rotation = torch.from_numpy(scipy.stats.ortho_group.rvs(16, random_state=0)).float()
    rotated = activations([x @ rotation for x in states], 20)
    found = compare(activations(states, 20), rotated, names=("a", "b"), settings=Settings(k=(5,)))
    for layer in found["layers"]:
        assert layer["linear_cka"]["biased"] == pytest.approx(1, abs=1e-5)
        assert layer["procrustes"]["residual"] < 1e-10
        assert layer["knn_overlap"]["5"]["value"] > 0.999  # float32 near-ties
        assert abs(layer["dimension_correlation"]["value"]) < 0.3
        assert layer["procrustes"]["inverse_row_entropy"] < 2 * layer["procrustes"]["chance"]


def test_unrelated_activations_are_at_chance():
    found = compare(
        activations(random_states(0, 400), 40),
        activations(random_states(1, 400), 40),
        names=("a", "b"),
        settings=Settings(k=(5,)),
    )
    for layer in found["layers"]:
        cka, near = layer["linear_cka"], layer["knn_overlap"]["5"]
        assert cka["biased"] == pytest.approx(cka["chance"], abs=0.015)
        assert cka["debiased"] == pytest.approx(0, abs=0.015)
        assert near["value"] == pytest.approx(near["chance"], abs=0.01)
        assert layer["procrustes"]["residual"] > 0.95


def test_sinks_are_counted_left_out_and_shown_beside_the_raw_value():
    a, b = random_states(0), random_states(1)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(2))
    for states in (a, b):
        states[1][::10] = 60 * direction  # the first token of each sentence, at one layer
    found = compare(activations(a, 20), activations(b, 20), names=("a", "b"), settings=Settings(k=(5,)))
    guard = found["sensitivity"]
    assert [entry["sink_tokens"]["either"] for entry in guard] == [0, 20]
    assert found["sinks_left_out"] == 20
    assert found["layers"][1]["linear_cka"]["debiased"] > 0.95
    assert abs(guard[1]["linear_cka_without_sinks"]["debiased"]) < 0.05
    assert guard[1]["dimension_correlation_without_sinks"]["value"] == pytest.approx(0, abs=0.1)
    assert guard[1]["procrustes_without_sinks"]["residual"] > 0.9 > found["layers"][1]["procrustes"]["residual"]
    assert guard[1]["effective_rank"]["a"] < 1.2 < guard[0]["effective_rank"]["a"]
    assert found["matrices"]["linear_cka"][1][1] > 0.95 > 0.2 > found["matrices"]["linear_cka_without_sinks"][1][1]
    kept = torch.arange(200) % 10 != 0
    assert guard[0]["linear_cka_without_sinks"]["biased"] == pytest.approx(
        measures.linear_cka(a[0][kept], b[0][kept]), abs=1e-6
    )


def test_sink_tokens_are_relative_to_the_median():
    x = torch.ones(9, 4)
    x[3] *= 11
    norms = x.norm(dim=1)[None]
    assert sinks_of(norms, 10).nonzero().tolist() == [[0, 3]]
    assert torch.equal(sinks_of(norms, 10), sinks_of(1e-3 * norms, 10))


def test_undefined_debiased_value_is_null_not_nan():
    states = [torch.eye(16).repeat(1, 1)]  # all rows equally far from each other
    found = compare(activations(states, 8), activations(states, 8), names=("a", "b"), settings=Settings(k=(2,)))
    assert found["layers"][0]["linear_cka"]["debiased"] is None
    assert found["layers"][0]["linear_cka"]["biased"] == pytest.approx(1)
    json.dumps(found, allow_nan=False)


def test_other_width_leaves_out_what_pairs_dimensions(make_model, texts, labels, tmp_path):
    record = panel(make_model(), make_model(width=48), texts, labels=labels, k=[2, 5], progress=False)
    assert set(record["omitted"]) == {"dimension_correlation", "procrustes", "linear_probe"}
    assert record["omitted"]["procrustes"] == "widths differ: 32 and 48"
    assert record["matrices"]["dimension_correlation"] is None
    for layer in record["layers"]:
        assert layer["procrustes"] is layer["dimension_correlation"] is layer["linear_probe"] is None
        assert 0 < layer["linear_cka"]["biased"] < 1
    write(record, tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"linear_cka", "knn_overlap"}
    assert "procrustes omitted: widths differ" in summary(record)


def test_other_depth_is_matched_by_relative_depth(make_model, tiny, texts):
    record = panel(tiny, make_model(layers=2), texts, k=[2], estimator="exact", progress=False)
    assert [(layer["layer"], layer["matched_layer"]) for layer in record["layers"]] == [(0, 0), (1, 1), (2, 1), (3, 2)]
    matrix = record["matrices"]["linear_cka"]
    assert (len(matrix), len(matrix[0])) == (4, 3)
    assert record["layers"][2]["linear_cka"]["biased"] == matrix[2][1]
    assert record["layers"][3]["dimension_correlation"]["value"] == record["matrices"]["dimension_correlation"][3][2]
    assert "matched" in summary(record)


def test_other_tokens_are_compared_where_they_end_together(make_model, tiny, texts):
    """The same words under other ids: every token has its counterpart, and the values are those of equal ids."""
    shuffled = make_model(words=["one", "zero", "two", "three"])
    record = panel(tiny, shuffled, ["two three", "two three zero"], k=[1], progress=False)
    assert record["settings"]["estimator"] == "exact"  # two texts are too few for the fast one
    assert record["corpus"]["alignment"]["method"] == "spans"
    assert record["corpus"]["alignment"]["share_a"] == 1


def test_one_vector_per_text_is_compared_beside_the_tokens(tiny, texts):
    """Against the measures on the sentence embeddings that encode() gives, before normalisation."""
    record = panel(tiny, tiny, texts, k=[2], estimator="exact", progress=False)
    last = record["pooled"]["layers"][-1]
    assert last["linear_cka"]["biased"] == pytest.approx(1)
    assert last["knn_overlap"]["2"]["value"] == 1
    assert record["pooled"]["sample"]["tokens"] == len(texts)
    said = record["pooled"]["reading"]
    assert [level["level"] for level in said["levels"]][:2] == ["coordinate basis", "global geometry"]
    assert "token" not in str(said["levels"])
    assert "one vector per text anyway" in said["levels"][3]["sentence"]
    other = panel(tiny, tiny, texts[:4], k=[2], progress=False)
    assert other["pooled"] is None
    assert "more texts" in other["omitted"]["pooled"]


@pytest.mark.parametrize("estimator", ["fast", "exact"])
@pytest.mark.parametrize(("pooling", "width"), [("cls", 32), ("lasttoken", 32), ("lasttoken", 48)])
def test_one_vector_for_all_texts_is_undefined_not_refused(
    make_model, texts, labels, tmp_path, pooling, width, estimator
):
    """Where all texts begin or end alike, the state that is pooled of layer 0 is the embedding of one token."""
    alike = [f"so {text} so" for text in texts]
    models = make_model(pooling_mode=pooling), make_model(1, width=width, pooling_mode=pooling)
    options = {"labels": labels, "k": [2], "estimator": estimator, "progress": False}
    record = panel(*models, alike, names=("first", "second"), **options)
    pooled = record["pooled"]
    first, guard = pooled["layers"][0], pooled["sensitivity"][0]
    assert guard["effective_rank"] == {"first": None, "second": None}
    for cka in (first["linear_cka"], guard["linear_cka_standardised"], guard["linear_cka_without_sinks"]):
        assert cka["biased"] is cka["debiased"] is cka["debiased_interval"] is cka["chance"] is None
    assert first["linear_cka"]["chance_exchangeable"] is None
    assert first["procrustes"] is guard["procrustes_standardised"] is guard["procrustes_without_sinks"] is None
    assert pooled["omitted"]["layers_without_variance"].startswith("layer 0 of first, layer")
    if width == 32:
        assert first["dimension_correlation"]["value"] is first["dimension_correlation"]["chance"] is None
        assert pooled["matrices"]["dimension_correlation"][1][0] is None
        record["omitted"]["nothing"] = "here"  # a record without an omission does not show the key
        patterns = documented(DOCUMENT)
        assert {key for key in keys_of(record) if not any(matches(key, pattern) for pattern in patterns)} == set()
    if pooling == "lasttoken":  # the first token of a causal model is the same at all layers
        assert 0 < pooled["layers"][1]["linear_cka"]["biased"] < 1
        assert pooled["matrices"]["linear_cka"][0] == [None] * 4
        assert (pooled["layers"][1]["procrustes"] is None) == (width != 32)
        warnings = [warning.split(":")[0] for warning in pooled["reading"]["warnings"] if "one vector" in warning]
        assert warnings == [f"All texts are one vector at layer 0 of {name}" for name in ("first", "second")]
    assert "layers_without_variance" not in record["omitted"]
    assert "one vector" not in str(record["reading"])
    page = write(record, tmp_path / "out").with_name("report.html").read_text(encoding="utf-8")
    assert "All texts are one vector at layer" in page


def test_one_vector_for_all_tokens_is_undefined_not_refused(make_model, tiny, tmp_path):
    record = panel(tiny, make_model(1), ["so so so so so"] * 20, k=[2], estimator="exact", progress=False)
    assert record["layers"][0]["procrustes"] is None
    assert record["layers"][0]["dimension_correlation"]["value"] is None
    assert "layers_without_variance" in record["omitted"]
    assert "All tokens are one vector at layer 0 of a" in str(record["reading"]["warnings"])
    assert "layers_without_variance omitted: layer 0 of a" in summary(record)
    write(record, tmp_path / "out")


def test_models_that_cannot_be_compared_are_refused(make_model, tiny, texts, labels):
    with pytest.raises(InputError, match="the fast estimator needs at least 8, got 2"):
        panel(tiny, tiny, texts[:2], k=[1], estimator="fast", progress=False)
    for change, message in (
        ({"names": ("x", "x")}, "two different names"),
        ({"k": [10_000]}, "k: expected less than"),
        ({"k": []}, "k: expected"),
        ({"labels": labels[1:]}, "labels: expected 40"),
        ({"sink_ratio": 1.0}, "sink_ratio"),
    ):
        with pytest.raises(InputError, match=message):
            panel(tiny, tiny, texts, **{"k": [2], "progress": False, **change})


def test_unusable_labels_are_refused_before_anything_runs(tiny, texts, monkeypatch):
    monkeypatch.setattr("st_reasoning.hrsa.activations.forward", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(InputError, match="at least 5 sentences of each class"):
        panel(tiny, tiny, texts, labels=["rare", *["common"] * 39], progress=False)


def test_write_and_draw(record, tmp_path):
    file = write(record, tmp_path / "out")
    assert json.loads(file.read_text()) == json.loads(json.dumps(record))
    pictures = {path.stem: path for path in file.parent.glob("*.png")}
    assert set(pictures) == PICTURES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    with pytest.raises(InputError, match="not empty"):
        write(record, tmp_path / "out")
    # A record read back from its file can be drawn again.
    assert {path.stem for path in draw(json.loads(file.read_text()), tmp_path)} == PICTURES


def test_summary_shows_every_layer_beside_its_guard(record):
    lines = summary(record).splitlines()
    said = lines[lines.index("") + 1 :]
    levels = len(record["reading"]["levels"])
    assert said[:levels] == record["reading"]["answer"]
    table = said[said.index("") + 1 :]
    assert table[0].split()[:3] == ["layer", "correlation", "H_inv"]
    assert [line.split()[0] for line in table[1:5]] == ["0", "1", "2", "3"]
    cka = record["layers"][2]["linear_cka"]["biased"]
    assert math.isclose(float(table[3].split()[3]), cka, abs_tol=5e-4)
    assert "causal attention" in summary(record)


def test_ceiling_is_the_first_model_at_another_precision(make_model, texts):
    first, second = make_model(seed=0), make_model(seed=1)
    record = panel(first, second, texts, k=[2], ceiling=True, progress=False)
    assert record["ceiling"]["precision"] == "bfloat16"
    assert first[0].model.dtype == torch.float32  # the model itself is left as it was
    top, found = record["ceiling"]["layers"][-1], record["layers"][-1]
    assert 1 > top["dimension_correlation"]["value"] > 0.99
    assert found["dimension_correlation"]["value"] < 0.5
    assert len(record["ceiling"]["sensitivity"]) == len(record["sensitivity"])
    half = panel(make_model(seed=0).to(torch.bfloat16), second, texts, k=[2], ceiling=True, progress=False)
    assert half["ceiling"]["precision"] == "float32"
    assert panel(first, second, texts, k=[2], progress=False)["ceiling"] is None
