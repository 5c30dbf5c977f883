"""Writes the tiny model as a GGUF file."""

import gguf
import numpy as np
from tiny_model import (
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


def write_gguf(path: str) -> None:
    """Writes the model as a GGUF file of about 1 MB."""
    plain, control, words, index = vocabulary()
    tokens = [*plain, *control, *words]
    types = [gguf.TokenType.NORMAL] * len(plain) + [gguf.TokenType.CONTROL] * len(control)
    types += [gguf.TokenType.USER_DEFINED] * len(words)
    embedding, output = embeddings(index, len(tokens))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(DIMENSION)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(DIMENSION)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(DIMENSION // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(index[PAD])
    writer.add_eos_token_id(index[END])
    writer.add_pad_token_id(index[PAD])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    ones = np.ones(DIMENSION, np.float32)
    # Layers that add nothing: the embedding of the last token reaches the output unchanged.
    zeros = np.zeros((DIMENSION, DIMENSION), np.float16)
    writer.add_tensor("token_embd.weight", embedding.astype(np.float16))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output.astype(np.float16))
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", zeros)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
