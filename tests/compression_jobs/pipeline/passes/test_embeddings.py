"""Tables that a model looks rows up in are weights like any others: factored, sparse, clustered, pruned, trained."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.costs import parameters
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.passes.kinds import Material
from tests.compression_jobs.pipeline.passes.conftest import Studio

WORDS, WIDTH, TOPICS = 400, 24, 4


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Texts of twelve words, most of them about one of four topics, and a net that averages what words mean."""
    folder, chance = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    meanings = chance.normal(size=(TOPICS, WIDTH))
    table = meanings[np.arange(WORDS) % TOPICS] + chance.normal(size=(WORDS, WIDTH)) * 0.3
    y = np.arange(480) % TOPICS
    about = chance.random((480, 12)) < 0.7
    words = chance.integers(0, WORDS // TOPICS, (480, 12)) * TOPICS
    x = words + np.where(about, y[:, None], chance.integers(0, TOPICS, (480, 12)))
    np.savez(folder / "d.npz", x=x, y=y)
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"], name="words"),
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "topics"], ["y"], name="dense", transB=1),
    ]
    constants = {"table": table, "topics": meanings}
    graph = helper.make_graph(
        nodes,
        "texts",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", TOPICS])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    data = Dataset.load(folder / "d.npz")
    canonical = canonicalise(folder / "m.onnx", data.rows("calibration")[0])
    return Studio(canonical, data, Material(data.rows("calibration")[0], 1, data, canonical))


def table_of(graph: Graph) -> np.ndarray:
    [node] = [node for node in graph.nodes if node.op_type == "Gather"]
    table = graph.constant(node, 0)
    assert table is not None
    return table


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dictionary", {"atoms": 0.5, "nonzeros": 3, "smallest": 1000}),
        ("factorize", {"energy": 0.9}),
        ("cluster", {"clusters": 8}),
        ("prune", {"sparsity": 0.7}),
    ],
)
def test_a_table_becomes_smaller_and_words_keep_their_meaning(
    texts: Studio, name: str, options: dict[str, object]
) -> None:
    before = texts.accuracy(texts.net())
    assert before > 0.85
    net = texts.run(name, **{"steps": 40, **options})
    graph = texts.export(net)
    table = table_of(graph)
    if name == "dictionary":
        assert (table != 0).sum() <= 3 * WORDS
    elif name == "factorize":
        assert table.shape[1] <= WIDTH // 3
        assert parameters(graph) < parameters(texts.graph) / 2
    elif name == "cluster":
        assert len(np.unique(table)) <= 9
    else:
        assert (table == 0).mean() > 0.6
    assert texts.accuracy(net) > before - 0.08
