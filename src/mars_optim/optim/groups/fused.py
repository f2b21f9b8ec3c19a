"""Which weights are several matrices in one, and how: for their classes, their model's config.

What a class does with a layer's output is known of the classes here alone, for layers of one name
are fused in many ways: GPT-NeoX's ``query_key_value`` has q, k and v of each head side by side.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import nn

from ..blocks import WAY_OUT, Split
from .roles import Claim

Word = Literal["fused", "heads"]
Given = None | Word | Mapping[str, Any] | Sequence[Word | Mapping[str, Any]]
WORDS = ("fused", "heads")
# Names of layers that are several in one, in whichever way.
_FUSED = re.compile(r"(^|_)(\w?qkvz?|kqv|qkv_proj|query_key_value|c_attn|gate_up(_proj)?|pack)$")
# Layers of one of the three; what classes call the number of heads of keys and values, and the size
# of heads, the surest first.
_QUERIES = re.compile(r"(q|k|query|key)(_proj|_lin)?(_weight)?|q_attn|q_b_proj")
_VALUES = re.compile(r"(v|value)(_proj|_lin)?(_weight)?")
_KV_HEADS = (
    "num_key_value_heads", "num_kv_heads", "num_kv_head", "n_kv_heads", "n_kv_head",
    "num_query_groups", "n_query_groups",
)  # fmt: skip
# What hosts put between a layer's name and its weight.
_WRAPPERS = "_orig_mod", "_checkpoint_wrapped_module", "base_layer"
_SIZES = "head_dim", "dim_head", "attention_head_size", "head_size", "key_value_proj_dim"


class Layout(NamedTuple):
    """The matrices that a layer's outputs are of.

    Args:
        sizes: outputs of each, in one round of them.
        heads: of these, those of one head; empty where there are no heads.
        rounds: how often they follow each other.
        guessed: whether no class told it.
    """

    sizes: tuple[int, ...]
    heads: tuple[int, ...]
    rounds: int = 1
    guessed: bool = False


class Place(NamedTuple):
    """A weight, the name of its layer, the module that uses it, and the one that holds it."""

    claim: Claim
    layer: str
    user: nn.Module
    holder: nn.Module

    @property
    def transposed(self) -> bool:
        """Whether the outputs are the columns, as in Conv1D and some stacks of experts."""
        told = getattr(self.user, "is_transposed", None)
        if _is(self.holder, "Conv1D"):
            return True
        if self.claim.is_stack:
            return bool(_is(self.user, "Llama4TextExperts")) if told is None else bool(told)
        return False

    @property
    def outputs(self) -> int:
        """How many the layer has."""
        shape = self.claim.param.shape
        stacked = self.claim.is_stack or len(shape) == 2
        return shape[(-1 if self.transposed else -2) if stacked else 0]

    @property
    def inputs(self) -> int:
        """How many the layer has."""
        shape = self.claim.param.shape
        stacked = self.claim.is_stack or len(shape) == 2
        return shape[(-2 if self.transposed else -1) if stacked else 1]


def place_of(model: nn.Module, claim: Claim) -> Place:
    """Where a weight is used: by the module around its layer, or by the one that holds it."""
    *path, leaf = claim.names[0].split(".")
    if path[-2:-1] == ["parametrizations"] and leaf in ("original", "original1"):
        *path, _, leaf = path  # torch's parametrized layer: the weight before, or its direction
    holder = model.get_submodule(".".join(path))
    if leaf != "weight":
        return Place(claim, leaf, holder, holder)
    while path[-1:] and (path[-1] in _WRAPPERS or path[-2:-1] == ["modules_to_save"]):
        del path[-1 if path[-1] in _WRAPPERS else -2 :]
    *around, layer = path or [""]
    return Place(claim, layer, model.get_submodule(".".join(around)), holder)


def _is(module: nn.Module, pattern: str) -> bool:
    """Whether a class of the module has a name like this."""
    return any(re.fullmatch(pattern, cls.__name__) for cls in type(module).__mro__)


def _number(module: nn.Module, *names: str) -> int | None:
    """The first whole number that the module or its config has under one of these names.

    A config of layers that differ raises for what it cannot tell of them all (Gemma 4's); that is
    not known.
    """
    for holder in (module, getattr(module, "config", None)):
        for name in names:
            with contextlib.suppress(Exception):
                if type(value := getattr(holder, name, None)) is int and value > 0:
                    return value
    return None


def _counts(place: Place) -> tuple[int, int] | None:
    """Heads of queries, and of keys and values; None if not known."""
    heads = _number(place.user, "num_heads", "num_attention_heads", "heads", "n_head", "n_heads")
    if heads is None:
        return None
    groups = _number(place.user, "num_key_value_groups")
    kv = _number(place.user, *_KV_HEADS)
    return heads, heads // groups if groups else kv or heads


def _in_turn(place: Place) -> Layout | None:
    """All queries, then all keys, then all values; in cross-attention the latter two alone."""
    counts, parts = _counts(place), 3
    if counts is None:
        return None
    heads, kv = counts
    size, rest = divmod(place.outputs, heads + 2 * kv)
    if _number(place.user, "is_cross_attention") or getattr(
        place.user, "is_cross_attention", False
    ):
        parts, (size, rest) = 2, divmod(place.outputs, 2 * kv)
    told = _number(place.user, "num_key_value_groups", *_KV_HEADS)
    if rest or not (told or _are_equal(place, parts, heads)):
        return None
    sizes = (heads * size, kv * size, kv * size)[3 - parts :]
    return Layout(sizes, (size,) * parts)


def _are_equal(place: Place, parts: int, heads: int) -> bool:
    """Whether a layer's matrices can be of one size, where no class tells the heads of keys.

    Then each is as large as the input, as all heads together, or as the input of the layer after
    them. Where keys and values have fewer heads than queries, it is smaller.
    """
    each, size = place.outputs / parts, _number(place.user, *_SIZES)
    sizes = ("in_features", "in_channels")
    after = [getattr(layer, key, None) for layer in place.user.modules() for key in sizes]
    return each in (place.inputs, size, heads * (size or 0), *after)


def _by_heads(place: Place) -> Layout | None:
    """The queries of a group of heads, then their key and their value, group by group."""
    counts = _counts(place)
    if counts is None or place.outputs % (counts[0] + 2 * counts[1]):
        return None
    heads, kv = counts
    size = place.outputs // (heads + 2 * kv)
    return Layout((heads // kv * size, size, size), (size,) * 3, kv)


def _falcon(place: Place) -> Layout | None:
    """Falcon's: by groups of heads, or with one key and one value at the end."""
    heads = _number(place.user, "num_heads") or 1
    many = getattr(place.user, "multi_query", False)
    kv = 1 if many else heads
    if getattr(place.user, "new_decoder_architecture", False):
        kv = _number(place.user, "num_kv_heads") or heads
    size = place.outputs // (heads + 2 * kv)
    return Layout((heads // kv * size, size, size), (size,) * 3, kv)


def _bigcode(place: Place) -> Layout | None:
    return (_in_turn if getattr(place.user, "multi_query", False) else _by_heads)(place)


def _gate_up(place: Place) -> Layout | None:
    """The gate, then what it gates; in turn, or output by output."""
    half, rest = divmod(place.outputs, 2)
    if rest:
        return None
    told = getattr(place.user, "is_concatenated", None)
    if told is False:
        return Layout((1, 1), (), half)
    by_class = _is(place.user, r"Llama4TextExperts|Phi3MLP|Glm4?MLP|\w+Experts")
    known = told or by_class or place.layer != "gate_up_proj"  # others are listed with their class
    return Layout((half, half), (), guessed=not known)


def _thirds(place: Place) -> Layout | None:
    """Queries, keys and values in turn, by the name that everyone gives to that.

    Not where the class has heads of another size: then it counts keys and values otherwise.
    """
    found, size = _in_turn(place), _number(place.user, *_SIZES)
    if found is None or size not in (None, found.heads[0], sum(found.sizes) // 3):
        return None
    return found._replace(guessed=True)


def _attention_in(place: Place) -> Layout | None:
    """torch's own attention."""
    size = place.outputs // 3
    heads = _number(place.user, "num_heads") or 1
    return Layout((size,) * 3, (size // heads,) * 3)


def _query_gate(place: Place) -> Layout | None:
    """The query of each head, then its gate."""
    size = _number(place.user, "head_dim")
    if size is None or place.outputs % (2 * size):
        return None
    return Layout((size, size), (size, size), place.outputs // (2 * size))


def _delta(place: Place) -> Layout | None:
    """Qwen's linear attention: by heads of keys, or in turn."""
    numbers = "num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim"
    found = [_number(place.user, name) for name in numbers]
    if None in found:
        return None
    k_heads, v_heads, key, value = (n or 0 for n in found)
    each = v_heads // k_heads
    if place.layer == "in_proj_qkvz":
        return Layout((key, key, each * value, each * value), (key, key, value, value), k_heads)
    if place.layer == "in_proj_ba":
        return Layout((each, each), (), k_heads)
    return Layout((k_heads * key, k_heads * key, v_heads * value), (key, key, value))


def _latent(place: Place) -> Layout | None:
    """Keys and values of each head, out of their common latent (DeepSeek's)."""
    key, value = (_number(place.user, name) for name in ("qk_nope_head_dim", "v_head_dim"))
    if key is None or value is None or place.outputs % (key + value):
        return None
    return Layout((key, value), (key, value), place.outputs // (key + value))


# class of the user, name of the layer, how its outputs lie
LAYOUTS: list[tuple[str, str, Callable[[Place], Layout | None]]] = [
    (r"(GPT2|DecisionTransformerGPT2|ImageGPT|CausalSelf)?Attention", "c_attn", _in_turn),
    (r"GPTBigCodeAttention", "c_attn", _bigcode),
    (r"Phi(3|4Multimodal)Attention", "qkv_proj", _in_turn),
    (r"(Mpt|Dbrx|ModernBert)Attention", "Wqkv", _in_turn),
    (r"(GPTNeoX|GPTNeoXJapanese|Bloom|Persimmon)Attention", "query_key_value", _by_heads),
    (r"MiniMaxLightningAttention", "qkv_proj", _by_heads),
    (r"FalconAttention", "query_key_value", _falcon),
    (r"MultiheadAttention", "in_proj_weight", _attention_in),
    (r"Qwen3(Next|_5\w*)GatedDeltaNet", "in_proj_(qkvz?|ba)", _delta),
    (r"Qwen3(Next|_5\w*)Attention", "q_proj", _query_gate),
    (r"DisentangledSelfAttention", "in_proj", _by_heads),
    (r".*", "kv_b_proj", _latent),
    (r"ModernBert\w*MLP", "Wi", _gate_up),
    (r"GraniteMoe\w*MLP|JetMoeMoE", "input_linear", _gate_up),
    (r"Dinov2\w*SwiGLUFFN", "weights_in", _gate_up),
    (r".*", "gate_up_proj", _gate_up),
    (r".*", "qkv", _thirds),
]


def layout_of(place: Place) -> Layout | None:
    """The layout of a weight's layer, None for one matrix or for what is not known."""
    for user, layer, found in LAYOUTS:
        if re.fullmatch(layer, place.layer) and _is(place.user, user):
            return found(place)
    return None


def _heads_of(place: Place) -> Layout | None:
    """Heads of queries, keys or values that stand in a weight of their own.

    Values may have another size; and where a part of each query alone is turned by its position
    (DeepSeek's), ``head_dim`` is of that part.
    """
    if _QUERIES.fullmatch(place.layer):
        size = _number(place.user, "qk_head_dim", "head_k_dim") or _number(place.user, *_SIZES)
    elif _VALUES.fullmatch(place.layer):
        size = _number(place.user, "v_head_dim", "head_v_dim") or _number(place.user, *_SIZES)
    else:
        return None
    if size is None or place.outputs % size:
        return None
    return Layout((place.outputs,), (size,))


def said_of(place: Place, word: Word) -> tuple[Any, bool]:
    """The split of a weight as a group has it, and whether it is guessed; None to leave it whole.

    Raises:
        ValueError: for a fused layer of a class that is not known.
    """
    layout = layout_of(place)
    if layout is None and _FUSED.search(place.layer):
        name, user = place.claim.names[0], type(place.user).__name__
        raise ValueError(
            f"split={word!r}: it is not known how {name} of shape "
            f"{tuple(place.claim.param.shape)} in {user} is fused. Give split=({word!r}, "
            f"{{{re.escape(place.layer)!r}: ...}}); None there leaves it whole, else "
            f"{WAY_OUT}"
        )
    if layout is None and word == "heads":
        layout = _heads_of(place)
    if layout is None:
        return None, False
    sizes, rounds = layout.sizes, layout.rounds
    if word == "heads" and layout.heads:
        pairs = list(zip(sizes, layout.heads, strict=True)) * rounds
        sizes, rounds = tuple(head for size, head in pairs for _ in range(size // head)), 1
    if len(sizes) * rounds == 1:
        return None, False
    return _as_given(Split(sizes, int(place.transposed), rounds)), layout.guessed


def _as_given(split: Split) -> Any:
    """In its shortest form, so that layers cut alike share a group."""
    sizes = split.sizes
    if isinstance(sizes, tuple) and len(set(sizes)) == 1 and (split.dim, split.rounds) == (0, 1):
        return len(sizes)
    return split.given


def by_hand(place: Place, pattern: str, value: Any) -> Any:
    """Split by hand of a weight, along its layer's outputs unless a dimension is given.

    Raises:
        ValueError: for what is no split, or does not fit.
    """
    split = Split.of(f"split[{pattern!r}]", value)
    if split is None:
        return None
    nested = isinstance(value, tuple | list) and isinstance(value[0], tuple | list)
    if not nested and place.transposed:
        sizes = split.sizes
        if isinstance(sizes, int):
            sizes = (max(1, place.outputs // sizes),) * sizes
        split = Split(sizes, 1)
    shape, claim = place.claim.param.shape, place.claim
    if reason := split.misfit(shape, stacked=claim.is_stack):
        raise ValueError(
            f"split[{pattern!r}]={value!r} does not fit {claim.names[0]} of shape "
            f"{tuple(shape)}: {reason}. Give another one: {WAY_OUT}"
        )
    return _as_given(split)
