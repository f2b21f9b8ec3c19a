"""Role of a parameter in its model: a matrix, an embedding, a head, a router, or none of these.

Decided by the type of the module that holds it, then by role and shape, then by name. What is no
plain reading of a type is a guess, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor, nn

from .names import clean

Kind = Literal["matrix", "embedding", "head", "router", "other", "vector"]
KINDS: tuple[Kind, ...] = ("matrix", "embedding", "head", "router", "other", "vector")

# Names that models commonly give to what a module's type does not tell.
EMBEDDINGS = (
    r"(^|\.)(wte|wpe|embed_(tokens|positions|in)|(\w+_)?embed(ding)?s?)(\.weight)?$",
    r"(^|\.)(\w+_)?tokens?$",  # learnt tokens: of the class, of a teacher, masks, registers
    r"(^|\.)(relative_(attention|position)_bias|rel_pos(_\w+)?|attention_biases)(\.weight)?$",
    r"(^|\.)\w*bias_table$",
    # PEFT's for embeddings: factors of an embedding's change, and rows of one, by adapter
    r"(^|\.)(lora_embedding_[AB]|trainable_tokens_(delta|original))(\.|$)",
)
HEADS = (
    r"(^|\.)(lm_head|heads?|head_dist|(\w+_)?classifier|unembed|embed_out|output_projection|score"
    r"|qa_outputs|logits|(\w+_)?pred)(\.|$)",
    r"^((_orig_mod|module)\.)*(fc|output)\.weight$",  # of the model itself; elsewhere hidden layers
)
ROUTERS = (r"(^|\.)(\w+_)?router(\.|$)",)
_GATE = re.compile(r"(^|.*\.)(\w+_)?gate\.weight$")  # a router where experts are beside it
_BIAS = re.compile(r"(^|[._])bias(es)?([._]|$)")
_SCALES = re.compile(r"(^|\.)(A_logs?|dt_bias|time_(mix|decay|first|faaaa|maa)\w*)$")
_EXPERTS = re.compile("expert|moe", re.IGNORECASE)
_LARGE_ROWS, _LARGE_RATIO = 16_384, 7  # more than these is no hidden layer's shape

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_LINEAR = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


class Role(NamedTuple):
    """Role of a parameter, the reason, and whether it is guessed without a type."""

    kind: Kind
    why: str
    guessed: bool = False


@dataclass
class Claim:
    """One parameter under all the names and modules that hold it."""

    param: Tensor
    names: list[str] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)

    def is_in(self, *types: type[nn.Module]) -> bool:
        """Whether a module of one of these types holds it."""
        return any(isinstance(module, types) for module in self.modules)

    def named(self, patterns: Sequence[str]) -> str | None:
        """The first of its names in which one of the patterns is found."""
        return next((n for n in self.names for p in patterns if re.search(p, n)), None)

    @property
    def owner(self) -> str:
        """The name of the type of the first module that holds it."""
        return type(self.modules[0]).__name__

    @property
    def leaf(self) -> str:
        """Its name in that module."""
        return self.names[0].rpartition(".")[2]

    @property
    def is_convolution(self) -> bool:
        """Whether it holds a convolution's kernels."""
        return self.is_in(*CONVOLUTIONS) and self.param.ndim > 2

    @property
    def is_linear(self) -> bool:
        """The weight of a layer that multiplies by it, for its type or its type's name."""
        if self.is_in(*_LINEAR):
            return True
        return self.leaf == "weight" and ("Linear" in self.owner or self.owner == "Conv1D")

    @property
    def is_stack(self) -> bool:
        """Whether its last two dimensions are the matrices, if it has any."""
        return self.param.ndim > 2 and not self.is_convolution


def claims_of(model: nn.Module) -> list[Claim]:
    """Every trainable parameter once, in model order, with all its names and owners."""
    claims: dict[int, Claim] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, param in module.named_parameters(recurse=False, remove_duplicate=False):
            if param.requires_grad:
                claim = claims.setdefault(id(param), Claim(param))
                claim.names.append(f"{prefix}.{name}" if prefix else name)
                before, parametrized, _ = f".{prefix}".rpartition(".parametrizations.")
                claim.modules.append(model.get_submodule(before[1:]) if parametrized else module)
    return list(claims.values())


@dataclass(frozen=True)
class Roles:
    """Sorts the claims of one model.

    ``embeddings``, ``heads`` and ``matrices`` are what the caller said, as regular expressions;
    None for the first two is "find out".
    """

    model: nn.Module
    claims: Sequence[Claim]
    embeddings: Sequence[str] | None = None
    heads: Sequence[str] | None = None
    matrices: Sequence[str] = ()

    def sort(self) -> list[Role]:
        """The role of each claim."""
        output = output_weight(self.model)
        roles = [self._role(claim, output) for claim in self.claims]
        known = any(role.kind == "head" or "tied" in role.why for role in roles)
        if self.heads is None:
            for i in self._by_size(roles) or ([] if known else self._last(roles)):
                why = "as wide as the classes" if known or self._sizes() else "last linear layer"
                roles[i] = Role("head", why, guessed=True)
        return roles

    def _role(self, claim: Claim, output: Tensor | None) -> Role:
        if claim.param.ndim < 2:
            return Role("vector", "ndim < 2")
        if name := claim.named(self.matrices):
            return Role("matrix", f"by name: {name}")
        return self._end(claim, output) or _vector(claim) or _matrix(claim)

    def _end(self, claim: Claim, output: Tensor | None) -> Role | None:
        """Embeddings, heads and routers."""
        told = self.embeddings is not None
        heads = HEADS if self.heads is None else self.heads
        if claim.is_in(nn.Embedding, nn.EmbeddingBag):
            is_head = claim.param is output or claim.named(heads)
            return Role("embedding", "tied with the head" if is_head else "nn.Embedding")
        if told and (name := claim.named(self.embeddings or ())):
            return Role("embedding", f"by name: {name}")
        if not told and not claim.is_convolution:
            if name := claim.named(EMBEDDINGS):
                return Role("embedding", f"by name: {name}", guessed=True)
            if re.search("Embeddings?$", claim.owner):
                return Role("embedding", f"a parameter of {claim.owner}", guessed=True)
        if claim.param is output:
            return Role("head", "model's output embeddings")
        if self._routes(claim):
            return Role("router", f"by name: {claim.names[0]}", guessed=True)
        if (name := claim.named(heads)) and (self.heads is not None or not _vector(claim)):
            return Role("head", f"by name: {name}", guessed=self.heads is None)
        return None

    def _routes(self, claim: Claim) -> bool:
        """Whether it chooses experts: by its name or type's name, or a gate beside experts."""
        if claim.named(ROUTERS) or "Router" in claim.owner:
            return not _BIAS.search(claim.leaf)
        gate = _GATE.match(claim.names[0])
        if gate is None:
            return False
        beside = (n for c in self.claims if c is not claim for n in c.names)
        around = gate.group(1)
        return any("expert" in n[len(around) :] for n in beside if n.startswith(around))

    def _sizes(self) -> set[int]:
        """How many classes or tokens the model says that it tells apart."""
        found = set()
        for module in self.model.modules():
            config = getattr(module, "config", None)
            found.add(getattr(config, "vocab_size", None))
            found.add(getattr(config, "num_labels", None))
            found.add(getattr(module, "num_classes", None))
        return {size for size in found if type(size) is int and size > 0}

    def _by_size(self, roles: Sequence[Role]) -> list[int]:
        """Linear layers outside of the repeated blocks that are as wide as the classes."""
        sizes = self._sizes()
        return [i for i in self._single(roles) if self.claims[i].param.shape[0] in sizes]

    def _last(self, roles: Sequence[Role]) -> list[int]:
        """The model's last matrix, where it is a linear layer of the model itself."""
        if self._sizes():
            return []
        weights = [i for i, role in enumerate(roles) if role.kind == "matrix"]
        single = self._single(roles)
        depth = 2 if isinstance(_unwrapped(self.model), nn.Sequential) else 1
        if len(weights) < 2 or not single or single[-1] != weights[-1]:
            return []
        name = clean(self.claims[single[-1]].names[0])
        return single[-1:] if name.count(".") <= depth else []

    def _single(self, roles: Sequence[Role]) -> list[int]:
        """Linear layers that are in no list of modules: not in a repeated block."""
        lists = (nn.ModuleList, nn.ModuleDict)
        inside = tuple(f"{n}." for n, m in self.model.named_modules() if n and isinstance(m, lists))
        return [
            i
            for i, (claim, role) in enumerate(zip(self.claims, roles, strict=True))
            if role.kind in ("matrix", "other")
            and claim.is_linear
            and claim.param.ndim == 2
            and not claim.named(self.matrices)
            and not claim.is_in(nn.MultiheadAttention, nn.RNNBase)
            and not claim.names[0].startswith(inside or ("\0",))
        ]


def _vector(claim: Claim) -> Role | None:
    """Role of a parameter that is a vector in spite of its dimensions; None for any other."""
    if claim.is_in(*_NORMS) or "Norm" in claim.owner:
        return Role("vector", f"of {claim.owner}")
    layer = claim.is_linear or claim.is_convolution
    if not (layer and claim.leaf == "weight") and claim.param.numel() == max(claim.param.shape):
        return Role("vector", "one dimension but for ones")
    if layer:
        return None
    if _BIAS.search(claim.leaf) or _SCALES.search(claim.names[0]):
        return Role("vector", f"by name: {claim.names[0]}", guessed=True)
    return None


def _matrix(claim: Claim) -> Role:
    """Whether it is a matrix, for the type of its owner; else what it is taken for."""
    shape = claim.param.shape
    if claim.is_convolution:
        if shape[1] == 1 and any(getattr(m, "groups", 1) > 1 for m in claim.modules):
            return Role("other", "depthwise: a filter for each channel, no matrix")
        return Role("matrix", "ndim >= 2, kernels flattened")
    if min(shape[-2:]) == 1:
        return Role("other", "a single row or column")
    if claim.is_linear:
        return Role("matrix", "stack of matrices" if claim.is_stack else "ndim >= 2")
    if claim.is_stack and _EXPERTS.search(f"{claim.names[0]} {claim.owner}"):
        return Role("matrix", "stack of matrices", guessed=True)
    own = {name for module in claim.modules for name, _ in module.named_parameters(recurse=False)}
    if claim.leaf == "weight" and own <= {"weight", "bias"}:
        return Role("matrix", f"weight of {claim.owner}", guessed=True)
    return Role("other", f"a parameter of {claim.owner} itself", guessed=True)


def output_weight(model: nn.Module) -> Tensor | None:
    """The output projection that Hugging Face models name by a method."""
    method = getattr(model, "get_output_embeddings", None)
    module = method() if callable(method) else None
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) else None


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model within torch.compile and DistributedDataParallel."""
    for name in ("_orig_mod", "module"):
        inner = model._modules.get(name)
        if inner is not None and len(model._modules) == 1:
            return _unwrapped(inner)
    return model


def misplaced(name: str | None, param: Tensor) -> str | None:
    """Role that a parameter under Newton-Schulz seems to have and should not; None without one.

    Of its name and shape alone, as an optimizer has no more.
    """
    if name is not None:
        embedding = param.ndim <= 3 and any(re.search(p, name) for p in EMBEDDINGS)
        if embedding or any(re.search(p, name) for p in HEADS):
            return "an embedding or head"
        if any(re.search(p, name) for p in ROUTERS):
            return "a router"
        if _SCALES.search(name):
            return "a scale"
    if param.ndim == 2:
        small, large = sorted(param.shape)
        if large >= _LARGE_ROWS and large >= _LARGE_RATIO * small:
            return "an embedding or head"
    return None


def unstacked(name: str | None, param: Tensor) -> bool:
    """Whether it looks like a stack of experts, one matrix each."""
    return name is not None and param.ndim == 3 and _EXPERTS.search(name) is not None
