"""Small specs that call for more than any machine has, each with the sentence that it must give."""

from typing import Any

HugeSpec = tuple[str, dict[str, Any], str]  # its name, the spec, and a part of the sentence


def huge_specs() -> list[HugeSpec]:
    """Return small specs that call for more than any machine has."""

    def spec(nodes: list[dict[str, Any]], shape: list[int], time_steps: int = 1, **fields: Any) -> dict[str, Any]:
        return {"input": {"shape": shape}, "time_steps": time_steps, "labels": ["only"], "nodes": nodes, **fields}

    def conv(**fields: Any) -> dict[str, Any]:
        return {"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 1, "kernel_size": 1} | fields

    flat, out = {"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}
    pool = {"type": "AvgPool2d", "name": "pool", "kernel_size": 40001}
    sums: list[dict[str, Any]] = [{"type": "IF", "name": "n0"}]
    sums += [{"type": "IF", "name": f"n{k}", "inputs": [f"n{each}" for each in range(k)]} for k in range(1, 999)]
    wide = {"type": "Linear", "name": "wide", "in_features": 1, "out_features": 2**31 - 1}
    narrow = {"type": "Linear", "name": "narrow", "in_features": 2**31 - 1, "out_features": 1}
    steps = {"type": "Conv1d", "name": "steps", "in_channels": 1, "out_channels": 1, "kernel_size": 2**20}

    def up(**fields: Any) -> dict[str, Any]:
        node = {"type": "ConvTranspose2d", "name": "up", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
        return node | fields

    def program(*lines: str) -> list[dict[str, Any]]:
        """Return a neuron whose program has these lines before those that it needs."""
        text = {"states": {"v": 0.0}, "step": [*lines, "v = v + current", "s = v > 1"], "spikes": "s"}
        return [{"type": "Neuron", "name": "own", "program": text, "parameters": {}}]

    def average(size: int) -> dict[str, Any]:
        return {**pool, "kernel_size": size}

    def whole(values: int) -> list[dict[str, Any]]:
        """Return nodes that make one value of so many."""
        return [flat, {**narrow, "in_features": values}, out]

    doubled = [
        {"type": "Concatenate", "name": f"twice{k}", "inputs": [f"twice{k - 1}" if k else "input"] * 2}
        for k in range(30)
    ]
    channels = {"in_channels": 2**16, "out_channels": 2**16}
    apart = conv(kernel_size=[1, 3], padding=[0, 2**28], dilation=[1, 2**28])
    grouped = conv(**channels, groups=2**16, kernel_size=257, padding=128)
    product = {"type": "MatMul", "name": "product", "inputs": ["input", "input"]}
    overlapping = {**average(1000), "name": "overlapping", "stride": 1}
    loop = {"type": "IF", "name": "loop", "recurrent": {}}
    scale = {"type": "Scale", "name": "scale", "scale": "per_neuron"}
    return [
        (
            "padding",
            spec([conv(padding=20000), pool, flat, out], [1, 1, 1]),
            "node 'pool': with its input of 1×40001×40001 and output of 1×1×1 it takes 128",
        ),
        ("dilation", spec([conv(padding=10**9), pool, flat, out], [1, 1, 1]), "node 'conv': its output has shape 1×20"),
        (
            "padded",
            spec([conv(padding=30000, stride=60001), {**pool, "kernel_size": 1}, flat, out], [1, 1, 1]),
            "node 'conv': with its input of 1×1×1 and output of 1×1×1 ",
        ),
        ("wide", spec([wide, narrow, out], [1]), "and its 4294967294 parameters it takes"),
        ("input", spec([{**pool, "kernel_size": 30000}, flat, out], [1, 30000, 30000]), "its input of 1×30000×30000"),
        ("edges", spec([{**out, "inputs": ["input"] * 1_500_000}], [1]), "inputs: tuple should have at most 1000 item"),
        ("sums", spec(sums, [1]), "has more than 20000 edges"),
        (
            "delay",
            spec(
                [{"type": "Delay", "name": "late", "delay": 100_000}, {**pool, "kernel_size": 256}, flat, out],
                [1, 256, 256],
            ),
            "node 'late': with its input of 1×256×256 and output of 1×256×256 it takes 26",
        ),
        ("steps", spec([{**pool, "kernel_size": 200}, flat, out], [1, 200, 200], 100_000), "its input of 1×200×200"),
        (
            "taps",
            spec(
                [
                    {**steps, "padding": 2**20},
                    {"type": "MaxPool1d", "name": "most", "kernel_size": 2**20 + 2},
                    flat,
                    out,
                ],
                [1, 1],
            ),
            "that loading the model takes",  # of operations, or with a small limit of memory
        ),
        (
            "windows",
            spec(
                [{**pool, "kernel_size": 4000, "stride": 1}, {**pool, "name": "all", "kernel_size": 4001}, flat, out],
                [1, 8000, 8000],
            ),
            "its input of 1×8000×8000 and output of 1×4001×4001",
        ),
        ("groups", spec([grouped, *whole(2**16)], [2**16, 1, 1]), "and its 4328652800 parameters it takes"),
        ("upsampling", spec([up(stride=2**15), {**pool, "kernel_size": 2**15}, flat, out], [1, 2, 2]), "node 'pool': "),
        ("spread", spec([up(kernel_size=2, dilation=2**30), flat, out], [1, 1, 1]), "node 'up': its output has shape "),
        ("apart", spec([apart, flat, out], [1, 1, 1]), "and its 4 parameters it takes 277025391568 of the 2770253"),
        ("cropped", spec([up(stride=2**20, padding=2**19), flat, out], [1, 2, 2]), "and output of 1×1×1 it takes 4398"),
        ("overlap", spec([overlapping, average(1001), flat, out], [1, 2000, 2000]), "and output of 1×1001×1001"),
        ("product", spec([product, *whole(2**28)], [1, 2**14, 2**14]), "its shape of 1×16384×16384 takes"),
        ("doubling", spec([*doubled, *whole(2**30)], [1]), "node 'twice29': with its input of 1073741824"),
        ("recurrent", spec([{**wide, "out_features": 2**17}, loop, *whole(2**17)], [1]), "node 'loop': "),
        ("own steps", spec([{**scale, "steps": 100_000}, *whole(2**16)], [2**16]), "node 'scale': "),
        ("nodes", spec([{**out, "name": f"n{k}"} for k in range(1001)], [1]), "nodes: tuple should have at most 1000"),
        ("run", spec([out], [1], 10**9), "time_steps: input should be less than or equal to 100000"),
        ("late", spec([{"type": "Delay", "name": "late", "delay": 10**9}, out], [1]), "delay"),
        ("kernel", spec([conv(kernel_size=10**12), flat, out], [1, 1, 1]), "kernel_size"),
        ("axes", spec([out], [1] * 10_000), "input.shape: tuple should have at most 4 items"),
        ("code", spec(program("x = __import__('os').abort()"), [1]), "a Call is no operation, expected"),
        ("brackets", spec(program("x = " + "(" * 1900), [1]), "step, line 1: 'x = ((((("),
        ("signs", spec(program("x = " + "-" * 1900 + "v"), [1]), "operations lie more than 64 deep in one another"),
        ("digits", spec(program("x = " + "9" * 1900), [1]), "step, line 1: a number does not fit into float32"),
        ("lines", spec(program(*(f"x{k} = v" for k in range(300))), [1]), "step"),
        (
            "operations",
            spec(program("x0 = v", *(f"x{k + 1} = exp(x{k}) + exp(x{k})" for k in range(200))), [1]),
            "the program has more than 256 operations",
        ),
        ("ranges", spec([out], [1], input={"shape": [1], "low": [0] * 100_000}), "low has 100000 numbers"),
    ]
