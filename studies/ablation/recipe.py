"""Recipes of the ablation: how large its stages and its evaluation are."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from pgenrm_agent.training.recipe import GrpoRecipe, Recipe, SftRecipe


class AblationRecipe(Recipe):
    """What each stage buys, in the simulated world. The stages' own seeds give way to `seeds`."""

    folder: ClassVar[str] = "recipes"
    package: ClassVar[str] = "studies.ablation"
    seeds: Annotated[
        # Below 100, where the names of their users's splits stay apart (simulation).
        tuple[Annotated[int, Field(ge=0, lt=100)], ...],
        Field(min_length=1, description="one training and one test draw for each"),
    ]
    training_users: Annotated[
        int, Field(gt=0, description="simulated users of the reinforcement stages, 7 choices each")
    ]
    psi_chains: Annotated[
        int, Field(gt=0, description="chains of the rule-based teacher that stage 1 learns from")
    ]
    psi: SftRecipe
    cre: GrpoRecipe
    curriculum: GrpoRecipe
    users: Annotated[int, Field(ge=2, description="test users of a seed, one comparison each")]
    history: Annotated[int, Field(ge=0, le=6, description="past choices shown")] = 3
    chains: Annotated[int, Field(gt=0, description="samples of an evaluation")] = 8
    temperature: Annotated[float, Field(ge=0)] = 1.0
    history_users: Annotated[
        int,
        Field(
            ge=0, description="test users of a seed for accuracy by 0 to 6 past choices; 0: none"
        ),
    ] = 0

    @model_validator(mode="after")
    def _whole_models(self) -> AblationRecipe:
        for stage in (self.psi, self.cre, self.curriculum):
            if stage.adapter is not None:
                raise ValueError(
                    f"stage {stage.name}: the ablation trains whole models, no adapter"
                )
        return self
