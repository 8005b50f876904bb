"""The ops of a SavedModel, and those that older runtimes are known to have."""

from __future__ import annotations

from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

OPS_FILE = Path(__file__).with_name("exported_ops.txt")


def known_ops() -> set[str]:
    """The ops that exports use and that the older runtimes ran, by tests/test_old_runtimes.py."""
    return set(OPS_FILE.read_text().split())


def ops_of(directory: Path) -> set[str]:
    """The ops of a SavedModel's graph and of its functions, calls of the functions left out."""
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    (meta_graph,) = saved.meta_graphs
    functions = meta_graph.graph_def.library.function
    nodes = [*meta_graph.graph_def.node, *(node for each in functions for node in each.node_def)]
    return {node.op for node in nodes} - {each.signature.name for each in functions}
