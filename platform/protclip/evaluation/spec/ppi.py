"""What a benchmark of protein-protein interaction types may say."""

from typing import Annotated, Generic, Literal

from pydantic import Field

from protclip.config.base import Config, Count
from protclip.evaluation.interaction_splits import Partition
from protclip.evaluation.spec.base import Benchmark, DataT, Positive


class GraphProtocol(Config):
    """How the graph network is trained; the defaults are those of GNN-PPI."""

    features: Literal["pooled", "projected"] = Field(
        default="pooled", description="mean of the encoder's residue states, or the projected embedding"
    )
    max_residues: Count = Field(default=1024, description="longer sequences are cut (OntoProtein's length)")
    messages: Literal["all", "train"] = Field(
        default="all", description="interactions that messages pass over: all, test ones included, or train"
    )
    width: Count = Field(default=256, description="features of a node are mapped to this width")
    hidden: Count = Field(default=512, description="width of the hidden layers")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.5, description="in the head")
    lr: Positive = Field(default=1e-3, description="learning rate of Adam")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=5e-4, description="of Adam, on all weights")
    plateau: Count = Field(
        default=20, description="epochs without a lower training loss before the learning rate is halved"
    )
    batch: Count = Field(default=2048, description="interactions per update")
    epochs: Count = Field(default=300, description="epochs; the last one's network is measured")


class PpiSpec(Benchmark[DataT], Generic[DataT]):
    """Types of interaction of pairs of proteins, by a graph network on the encoder's features."""

    kind: Literal["ppi"]
    protocol: GraphProtocol = GraphProtocol()
    partitions: tuple[Partition, ...] = Field(
        default=("random", "bfs", "dfs"), min_length=1, description="how test interactions are chosen"
    )
    test_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="share of the interactions that is test"
    )
    max_start_degree: Count = Field(
        default=5, description="most interactions of the protein at which bfs and dfs start"
    )
