"""The development container has a Python that is supported, is made by a script, and forwards the ports of compose."""

import json
import re
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet

from tests.sources import PROJECT, ROOT

CONTAINER: dict[str, Any] = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())


def test_its_python_is_supported_and_a_script_installs_an_extra_that_there_is() -> None:
    (version,) = re.findall(r"/python:(\d+\.\d+)-", CONTAINER["image"])
    assert f"{version}.0" in SpecifierSet(PROJECT["requires-python"])
    script, extra = CONTAINER["postCreateCommand"].split()
    assert (ROOT / script).is_file() is (extra in PROJECT["optional-dependencies"]) is True


def test_it_forwards_the_ports_that_compose_publishes() -> None:
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    published = {int(port.split(":")[1]) for service in services.values() for port in service["ports"]}
    assert set(CONTAINER["forwardPorts"]) == published == {int(port) for port in CONTAINER["portsAttributes"]}
    assert any("docker" in feature for feature in CONTAINER["features"])  # which compose needs
