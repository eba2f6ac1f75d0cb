"""One pass for all fusions: a rewrite rule replaces a subgraph by one operator of ONNX Runtime, wherever it matches.

A rule is written once as a pattern and its replacement (`onnxscript.rewriter`). It matches only if nothing else reads the
values inside the subgraph.
"""

import onnx_ir as ir
from onnxscript.rewriter.pattern import RewriteRule, RewriteRuleSet


class Fuse(ir.passes.InPlacePass):
    """Apply a rule to a graph of an export. Ensures: the graph has `count` operators of the kind that the rule writes."""

    def __init__(self, operator: str, rule: RewriteRule, count: int) -> None:
        self._operator, self._rule, self._count = operator, rule, count

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        traced = set(model.graph)
        replaced = RewriteRuleSet([self._rule]).apply_to_model(model)
        for node in model.graph:
            if node not in traced:
                node.metadata_props.clear()  # the rewriter copies the tracer's notes on the matched nodes
        return ir.passes.PassResult(model, modified=replaced > 0)

    def ensures(self, model: ir.Model) -> None:
        found = sum(node.op_type == self._operator for node in model.graph)
        if found != self._count:
            raise ir.passes.PostconditionError(f"{found} subgraphs match {self._operator}, expected {self._count}")
