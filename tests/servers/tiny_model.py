"""A tiny model whose next token depends on the last token only.

So a real server, with its own tokenizer, chat template, grammar and parsers of calls and reasoning,
answers foreseeably without trained weights. The chat template picks a chain of tokens by a word of
the last message; a grammar masks the chain, and what it leaves is random but valid.
`gguf_file` writes it for llama.cpp, `checkpoint` for servers of transformers checkpoints.
"""

from itertools import pairwise

import numpy as np

DIMENSION, LAYERS, HEADS, WINDOW = 256, 1, 4, 4096

END = "<|im_end|>"
PAD = "<|endoftext|>"
EARTH = [bytes([one]) for one in "🌍".encode()]  # four tokens, each a part of a character

CHAINS: dict[str, list[str | bytes]] = {
    "<|text|>": ["Hello", " from", " a tiny", " model", ": Grüße", ", 你好 ", *EARTH, "!!", END],
    "<|tool|>": [
        *('<tool_call>\n{"name": "get_wea', 'ther", "arguments": {"city": ', '"Par', 'is"}'),
        *("}\n</tool_call>", END),
    ],
    "<|both|>": [
        *("I look", " both up.", '\n<tool_call>\n{"name": ', '"get_weather", "arg'),
        *('uments": {"ci', 'ty": "Ro', 'me"}}\n</tool_call>', '\n<tool_call>\n{"name": "get_'),
        *('time", "arguments": ', '{"zone": "U', 'TC"}}\n</tool_call>', END),
    ],
    "<|think|>": [
        *("<think>", "\nThe user", " wants", " me", " to think", ".\n", "</think>", "\n\n"),
        *("Thought", " and", " done.", END),
    ],
    "<|long|>": [f" word{number}" for number in range(50)],
    "<|after|>": ["It is", " 18 °C", " and sunny", " now.", END],
}

TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if message.reasoning_content %}
            {{- '<think>\n' + message.reasoning_content.strip('\n') + '\n</think>\n\n' }}
        {%- endif %}
        {{- content }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or (messages[loop.index0 - 1].role != 'tool') %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- set last = messages[-1] %}
    {%- set said = last.content if last.content is string else '' %}
    {%- if last.role == 'tool' %}{{- '<|after|>' }}
    {%- elif 'weather' in said %}{{- '<|tool|>' }}
    {%- elif 'both' in said %}{{- '<|both|>' }}
    {%- elif 'think' in said %}{{- '<|think|>' }}
    {%- elif 'long' in said %}{{- '<|long|>' }}
    {%- else %}{{- '<|text|>' }}{%- endif %}
{%- endif %}
""".strip()  # noqa: E501 (lines of the template)

BYTE_TOKENS = 256
MERGES = ["t h", "h e", "i n", "e r", "a n", "o n", "r e"]


def byte_letter(byte: int) -> str:
    """Returns the printable character that stands for a byte in vocabularies of GPT-2."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte if byte in plain else 256 + byte - sum(one < byte for one in plain))


def vocabulary() -> tuple[list[str], list[str], list[str], dict[str | bytes, int]]:
    """Returns the plain tokens, those of control, the words, and the number of each.

    The numbers run through the three lists; a byte is the key of its token.
    """
    plain = [byte_letter(byte) for byte in range(BYTE_TOKENS)]
    plain += [merge.replace(" ", "") for merge in MERGES]
    control = [PAD, "<|im_start|>", END, *CHAINS]
    words = [one for chain in CHAINS.values() for one in chain if isinstance(one, str)]
    words = [one for one in words if one not in control]
    index: dict[str | bytes, int] = {bytes([byte]): byte for byte in range(BYTE_TOKENS)}
    index |= {one: len(plain) + number for number, one in enumerate([*control, *words])}
    return plain, control, words, index


def embeddings(index: dict[str | bytes, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the embeddings of `size` tokens, random, and the output layer, which chains them."""
    random = np.random.default_rng(5)
    embedding = random.choice([-1.0, 1.0], size=(size, DIMENSION)).astype(np.float32)
    embedding[:, 0] = 1.0  # the same for all tokens, which makes column 0 of the output a bias
    output = random.normal(0, 0.02, size=embedding.shape).astype(np.float32)
    for start, chain in CHAINS.items():
        followed = [start, *chain] if chain[-1] == END else [start, *chain, chain[0]]
        for one, following in pairwise(followed):
            output[index[following]] += embedding[index[one]] * (24 / DIMENSION)
    # A grammar that requires a call masks the end of the greeting, which leaves a call of get_time.
    output[index['\n<tool_call>\n{"name": "get_']] += embedding[index["!!"]] * (12 / DIMENSION)
    # What a grammar leaves ends soon: strings, objects and arrays are closed.
    for byte, bias in ((b'"', 4.0), (b"}", 3.5), (b"]", 3.0)):
        output[index[byte], 0] += bias
    return embedding, output
