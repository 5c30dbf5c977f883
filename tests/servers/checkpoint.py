"""Writes the tiny model as a checkpoint of transformers: python checkpoint.py FOLDER."""

import json
import re
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tiny_model import (
    CHAINS,
    DIMENSION,
    END,
    HEADS,
    LAYERS,
    MERGES,
    PAD,
    TEMPLATE,
    WINDOW,
    embeddings,
    vocabulary,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# How transformers reads a response: after the name of the chain, which ends the prompt. Its own
# template for Qwen2 takes that name for the beginning of the answer.
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor_pattern": "|".join(map(re.escape, CHAINS)),
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"},
    },
}


def write_checkpoint(folder: Path) -> None:
    """Writes the tokenizer, the chat template, the configuration and about 1 MB of weights.

    The architecture is Qwen2, by whose name servers know how to read calls.
    """
    plain, control, words, index = vocabulary()
    size = len(plain) + len(control) + len(words)
    folder.mkdir(parents=True, exist_ok=True)
    merges = [(one[0], one[2]) for one in MERGES]
    tokenizer = Tokenizer(models.BPE({one: number for number, one in enumerate(plain)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in control])
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in words])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        eos_token=END,
        pad_token=PAD,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
        response_template=RESPONSE,
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    ends = {"eos_token_id": index[END], "pad_token_id": index[PAD], "bos_token_id": index[PAD]}
    write_json(folder / "generation_config.json", **ends)
    write_json(
        folder / "config.json",
        **ends,
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        torch_dtype="float32",
        vocab_size=size,
        hidden_size=DIMENSION,
        intermediate_size=DIMENSION,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=WINDOW,
        rms_norm_eps=1e-5,
        hidden_act="silu",
        tie_word_embeddings=False,
    )
    embedding, output = embeddings(index, size)
    ones, none = np.ones(DIMENSION, np.float32), np.zeros(DIMENSION, np.float32)
    weights = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": ones,
        "lm_head.weight": output,
    }
    # Layers that add nothing: the embedding of the last token reaches the output unchanged.
    zeros = np.zeros((DIMENSION, DIMENSION), np.float32)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[f"{at}.self_attn.{name}.weight"] = zeros
            weights[f"{at}.self_attn.{name}.bias"] = none
        weights[f"{at}.self_attn.o_proj.weight"] = zeros
        for name in ("gate_proj", "up_proj", "down_proj"):
            weights[f"{at}.mlp.{name}.weight"] = zeros
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}.{name}.weight"] = ones
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(fields))


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]))
