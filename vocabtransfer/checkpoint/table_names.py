"""What the published architectures call their vocabulary tables, and what tells other tables from them."""

import re
from collections.abc import Iterator, Mapping, Sequence

from vocabtransfer.checkpoint.tensors import TensorInfo

# In the order of preference: the first name found is the layout's input_name.
INPUT_NAMES = (
    r"(.+\.)?shared\.weight",  # T5, BART, M2M-100, LED, Florence 2
    r"(.+\.)?embed_tokens\.weight",  # Llama and its relatives; OPT; a duplicate of `shared` in T5 and BART
    r"(.+\.)?wte\.weight",  # GPT-2, GPT-J, MPT
    r"(.+\.)?embed_in\.weight",  # GPT-NeoX
    r"(.+\.)?word_embeddings?\.weight",  # BERT, RoBERTa, BLOOM, Falcon; XLNet
    r"(.+\.)?tok_embeddings\.weight",  # ModernBERT, InternLM2
    r"(.+\.)?(backbone|rwkv)\.embeddings?\.weight",  # Mamba, RWKV, Nemotron H
    r"(.+\.)?token_embedding\.weight",  # the text towers of CLIP and SigLIP
    r"(transformer\.)?tokens_embed\.weight",  # the first GPT
    r"transformer\.(w|embeddings)\.weight",  # CTRL; XLM and FlauBERT
    r"(.+\.)?llm\.embed\.weight",  # Inkling
    r"(.+\.)?input_preprocessor\.embeddings\.weight",  # Perceiver
    r"model\.encoder\.embedding\.weight",  # Dia
)
OUTPUT_NAMES = (
    r"(.+\.)?lm_head\.weight",
    r"(.+\.)?embed_out\.weight",  # GPT-NeoX
    r"(model\.)?output\.weight",  # InternLM2, GIT
    r"(.+\.)?cls\.predictions\.decoder\.weight",  # BERT, also as a decoder
    r"(.+\.)?lm_head\.decoder\.weight",  # RoBERTa, MPNet
    r"(.+\.)?lm_head\.out_proj\.weight",  # T5Gemma
    r"predictions\.decoder\.weight",  # ALBERT
    r"(rwkv\.)?head\.weight",  # RWKV, DeepSeek V4
    r"pred_layer\.proj\.weight",  # XLM, FlauBERT
    r"(vocab_projector|generator_lm_head|lm_loss|proj_out|decoder)\.weight",  # DistilBERT, ELECTRA, XLNet, Whisper, ...
    r"(.+\.)?llm\.unembed\.weight",  # Inkling
    r"log_softmax\.mlp\.layer0\.weight",  # Cohere's speech recogniser
    r"(cls|head\.decoder)\.weight",  # UltraBERT
)
BIAS_NAMES = (
    r"(.+\.)?(lm_head|embed_out)\.bias",
    r"((.+\.)?cls\.)?predictions\.bias",
    r"((.+\.)?cls\.)?predictions\.decoder\.bias",
    r"pred_layer\.proj\.bias",
    r"(.+\.)?lm_head\.(decoder|out_proj)\.bias",
    r"(vocab_projector|generator_lm_head|lm_loss|proj_out|decoder|output|embedding_decoder|head\.decoder|cls)\.bias",
    r"log_softmax\.mlp\.layer0\.bias",
    r"(.+\.)?final_logits_bias",  # BART, Marian: shape (1, vocabulary)
)
#: Gemma 3n and 4: one row a token for all layers, of another width, beside the table proper.
PER_LAYER = re.compile(r"(.+\.)?embed_tokens_per_layer\.weight")
#: DeepSeek V4: which experts a token goes to, as integers; nothing to average.
LOOKUP = re.compile(r"(.+\.)?gate\.tid2eid")
#: Layers that predict a token further on carry copies of table and head (DeepSeek V3, GLM 4.5, LongCat).
COPIED_INPUT = re.compile(r"(.+\.)?((layers|mtp\w*)\.\d+|mtp\w*)\.(.+\.)?(embed_tokens|word_embeddings)\.weight")
COPIED_OUTPUT = re.compile(
    r"(.+\.)?((layers|mtp\w*)\.\d+|mtp\w*)\.(.+\.)?(shared_head\.(head|output)|lm_head|output_head)\.weight"
)
#: EAGLE's draft heads: what joins token and state, and what EAGLE-3 (arXiv 2503.01840) has besides: ids of its own.
EAGLE_JOINT, EAGLE_OWN = "fc.weight", ("d2t", "t2d")
#: Medusa's heads (arXiv 2401.10774): outputs without an input.
MEDUSA = re.compile(r"(medusa_head\.)?\d+\.\d+\.linear\.weight")
#: Parts of a model that have a vocabulary of their own: of pictures, sounds, codes, proteins, entities.
OTHER_VOCABULARIES = re.compile(
    r"(^|[._])(vision|visual|image|audio|speech|acoustic|codec|codes?|vq\w*|protein|qformer|entity|depth_decoder|t2u"
    r"|vocoder|talker|token2wav|code_predictor)(?=[._]|$|\w*_(model|tower|encoder|decoder|embeddings)[._])"
)
NAME_HINTS = re.compile(r"(?!.*(position|token_type)).*(embed|head|vocab|wte|logit|token|mtp|decoder\.(weight|bias)$)")
#: What quantisers put beside a packed weight, or in its place.
_PACKED = re.compile(
    r"(\.weight)?\.(qweight|qzeros|scales|g_idx|SCB|weight_(format|packed|scale|scale_inv|shape|zero_point|integer)"
    r"|W_q|codes|codebooks|absmax|quant_map|nested_\w+|quant_state\.\w+|blocks)$"
)


def is_draft(tensors: Mapping[str, TensorInfo]) -> bool:
    """Tell whether a checkpoint is a draft head of EAGLE's kind: a layer fed by its target's states, without a head.

    Its layer joins the embedding of a token with the target's state (``fc``, arXiv 2401.15077), and its logits are made
    by the target's own head. Only the table depends on the vocabulary.
    """
    return EAGLE_JOINT in tensors and "layers.0.mlp.down_proj.weight" in tensors and not {*EAGLE_OWN} & {*tensors}


def find_names(patterns: Sequence[str], tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Names that match, in the order of the patterns; tables inside numbered layers are never the model's own."""
    usable = sorted(name for name in tensors if not re.search(r"(^|\.)\d+\.", name) and not is_other(name))
    return [name for pattern in patterns for name in usable if re.fullmatch(pattern, name)]


def is_other(name: str) -> bool:
    """Tell whether a tensor belongs to a part of the model whose vocabulary is not the tokenizer's."""
    return OTHER_VOCABULARIES.search(name) is not None


def packed_tables(tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """Yield the names that show a quantised table or head, in alphabetical order."""
    tables = re.compile("|".join(f"(?:{pattern})" for pattern in (*INPUT_NAMES, *OUTPUT_NAMES)))
    for name in sorted(tensors):
        found = _PACKED.search(name)
        if found and tables.fullmatch(f"{name[: found.start()]}.weight"):
            yield name
