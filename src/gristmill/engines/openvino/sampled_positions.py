"""Computing only the positions whose logits are wanted, from where in the graph nothing else needs the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from gristmill.user_error import UserError


def gather_sampled(ov: Any, model: Any) -> None:
    """Give a paged ``model`` the input ``sampled`` (i64, positions of the step), and logits of those positions only.

    Keys and values of the last layer are needed for every token, but what follows its attention is not: in prefill,
    where one position of a row is sampled, that saves most of a layer, and the LM head, a fifth of a small model's
    work. Where the graph behind the attention is not as we know it, only the head is spared. Raises UserError for a
    model without a head.
    """
    sampled = ov.opset13.parameter([-1], ov.Type.i64, name="sampled")
    sampled.output(0).set_names({"sampled"})
    edges = _edges_behind(model, _projection_of_last_attention(model)) or [_head(model).input(0)]
    for edge in edges:
        gathered = ov.opset13.gather(edge.get_source_output(), sampled, ov.opset13.constant(np.int64(0)))
        edge.replace_source_output(gathered.output(0))
    model.add_parameters([sampled])
    model.validate_nodes_and_infer_types()


def _head(model: Any) -> Any:
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        if not node.inputs():
            raise UserError("The model has no LM head that the embedded engine knows (a MatMul before its output).")
        node = node.input_value(0).get_node()
    return node


def _projection_of_last_attention(model: Any) -> Any | None:
    """The first matrix product that takes the last attention's output."""
    nodes = model.get_ordered_ops()
    attention = [node for node in nodes if node.get_type_name() == "PagedAttentionExtension"]
    behind = {attention[-1].get_name()} if attention else set()
    for node in nodes:
        if any(port.get_node().get_name() in behind for port in node.input_values()):
            if node.get_type_name() == "MatMul":
                return node
            behind.add(node.get_name())
    return None


def _edges_behind(model: Any, first: Any | None) -> list[Any]:
    """The inputs through which positions reach ``first`` and all that follows it; empty where one of them is neither
    a constant nor shaped like the hidden state (positions, 1, width), as a computed shape would be."""
    if first is None:
        return []
    edges = [first.input(0)]
    behind = {first.get_name()}
    for node in model.get_ordered_ops():
        inside = [port.get_node().get_name() in behind for port in node.input_values()]
        if not any(inside):
            continue
        behind.add(node.get_name())
        for known, edge in zip(inside, node.inputs(), strict=True):
            source = edge.get_source_output()
            if known or _constant(source.get_node()):
                continue
            shape = source.get_partial_shape()
            if shape.rank.is_dynamic or len(shape) != 3 or shape[0].is_static:
                return []
            edges.append(edge)
    return edges


def _constant(node: Any) -> bool:
    return node.get_type_name() == "Constant" or (
        len(node.inputs()) > 0 and all(_constant(port.get_node()) for port in node.input_values())
    )
