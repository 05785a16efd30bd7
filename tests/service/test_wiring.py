"""The objects of an app are made in order, each of those before it: nothing is put into them later."""

from __future__ import annotations

import ast
import inspect

from spikeserve.service.app import make_services


def test_no_attribute_is_assigned_where_the_services_are_made() -> None:
    nodes = ast.walk(ast.parse(inspect.getsource(make_services)))
    stored = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    assert [ast.unparse(node) for node in stored] == []
