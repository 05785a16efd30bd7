"""Helm on our chart, in a process of its own, since it is a program of Go with its own threads and signal handlers.

python -m tests.deploy.helm CHART    # reads lists of values as JSON, a line each, and writes what each renders to
"""

import json
import sys
from typing import Any

import helm_python


def rendered(chart: Any, values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the text of each template, by its file's name, or the error that Helm gives."""
    try:
        return {"files": {path.split("/", 1)[1]: text for path, text in chart.render(values, name=name).items()}}
    except helm_python.HelmError as error:
        return {"error": str(error)}


def main() -> None:
    """Answer each line of the input, a release's name and values, by a line; the first line is Helm's lint."""
    (path,) = sys.argv[1:]
    chart = helm_python.Chart.load(path)
    print(json.dumps(helm_python.lint(path, strict=True)))
    for line in sys.stdin:
        print(json.dumps(rendered(chart, **json.loads(line))))


if __name__ == "__main__":
    main()
