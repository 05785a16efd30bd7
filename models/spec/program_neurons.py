"""The neurons that are written as programs: any author's rule, as readable lines in the bundle; see `program`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from typing_extensions import override

from spikeserve.models.spec.neurons import NeuronBase, Recurrent, recurrent_shapes
from spikeserve.models.spec.parameters import Float32, FrozenModel, Parameter, Shape
from spikeserve.models.spec.program import (
    MAX_CHARACTERS,
    MAX_LINES,
    MAX_PARAMETERS,
    MAX_STATES,
    InvalidProgram,
    Program,
    check_name,
    read,
)

Identifier = Annotated[str, StringConstraints(max_length=64)]
Line = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]


class ProgramText(FrozenModel):
    """A program as it stands in a bundle: where each state starts, and the lines of a step."""

    states: Annotated[dict[Identifier, Float32 | Identifier], Field(max_length=MAX_STATES)]
    step: Annotated[tuple[Line, ...], Field(min_length=1, max_length=MAX_LINES)]


class SpikingText(ProgramText):
    """The program of a neuron that fires; `spikes` is the name of what leaves, and the first state its membrane."""

    spikes: Identifier


class IntegratingText(ProgramText):
    """The program of a neuron that never fires; `output` is the name of what leaves."""

    output: Identifier


class ProgramBase(NeuronBase):
    """A neuron whose step is a program; `parameters` are its own, each a number or `"per_neuron"`."""

    program: SpikingText | IntegratingText
    parameters: Annotated[dict[Identifier, Parameter], Field(max_length=MAX_PARAMETERS)]

    @cached_property
    def read_program(self) -> Program:
        """The program as expressions."""
        text = self.program
        leaving, spiking = (text.spikes, True) if isinstance(text, SpikingText) else (text.output, False)
        return read(text.states, text.step, leaving, spiking=spiking)

    @model_validator(mode="after")
    def _program_is_whole(self) -> Self:
        try:
            program = self.read_program
            for name in self.parameters:
                check_name(name, "parameter")
        except InvalidProgram as error:
            raise ValueError(f"node '{self.name}': program: {error}") from error
        needed, named = {*program.parameters}, {*self.parameters}
        for name in sorted(needed - named):
            raise ValueError(
                f"node '{self.name}': parameters lacks '{name}', which no line of the program sets before it is used"
            )
        for name in sorted(named - needed):
            raise ValueError(f"node '{self.name}': parameters has '{name}', which the program does not use")
        return self

    @model_validator(mode="after")
    def _feedback_is_of_a_recurrent_layer(self) -> Self:
        recurrent = getattr(self, "recurrent", None) is not None
        if self.read_program.hears_itself and not recurrent:
            raise ValueError(f"node '{self.name}': its program asks for feedback, but it is not recurrent")
        if recurrent and not self.read_program.hears_itself:
            raise ValueError(f"node '{self.name}': it is recurrent, but its program never asks for feedback")
        return self

    @override
    def values(self) -> dict[str, Parameter]:
        return self.parameters

    @override
    def with_values(self, values: Mapping[str, Parameter]) -> Self:
        return self.model_copy(update={"parameters": {**self.parameters, **values}})


class ProgramNeuron(ProgramBase):
    """A neuron that fires, whatever its author's rule is."""

    type: Literal["Neuron"] = "Neuron"
    program: SpikingText
    recurrent: Recurrent | None = None

    @property
    def several(self) -> bool:
        """Whether it may fire more than once in a step."""
        return self.read_program.several

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {**super().tensor_shapes(shape), **recurrent_shapes(self.recurrent, shape)}


class ProgramIntegrator(ProgramBase):
    """A neuron that never fires, as a readout, whatever its author's rule is."""

    recurrent: ClassVar = None

    type: Literal["Integrator"] = "Integrator"
    program: IntegratingText
