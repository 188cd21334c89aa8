#!/usr/bin/env python3
"""What transformers' apply_chat_template() makes of conversations with the published chat templates.

usage: make_chat.py tests/golden/chat      (needs transformers and tokenizers; deterministic)

Writes tokenizer/ (a small byte-level BPE with the marks of every family as special tokens),
templates.jsonl, a line a template: {"name", "form" (null: it must not be recognised), "bos", "eos",
"jinja"}, and cases.jsonl, a line a conversation and template: {"template", "messages", "text",
"ids", "scored"}, or "error": true where the template itself refuses. scored are the ids that a model
must write: each assistant's words with what ends them (and the space that begins them, where the
template has one), as a {% generation %} block around them would mark them.
"""
import json
import os
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

MARKS = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
         "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>", "<bos>", "<eos>",
         "<start_of_turn>", "<end_of_turn>"]
RSTRIP = {"<|end|>"}  # as Phi-3's tokenizer has it

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
          "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SMOLLM2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
           "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
           + CHATML[len("{% for message in messages %}"):])
QWEN25 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user' }}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN3_PART = r"""{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
"""
ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must "
             "alternate user/assistant/user/assistant/...') }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
          "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
          "{% for message in loop_messages %}" + ALTERNATE + "{% if loop.index0 == 0 and system_message != false %}"
          "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
          "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
          "content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + "
          "eos_token }}{% endif %}{% endfor %}")
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
          "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
          "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
LLAMA31 = r"""{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message + builtin tools #}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- raise_exception("not here") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
MISTRAL1 = ("{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}{{ '[INST] ' + "
            "message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token%s}}"
            "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}")
MISTRAL_NEW = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.PLACE and system_message is defined %}
            {{- "OPEN" + system_message + "\n\n" + message["content"] + "CLOSE" }}
        {%- else %}
            {{- "OPEN" + message["content"] + "CLOSE" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- REPLY + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""
ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}"
          "\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif "
          "message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
          "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
PHI3 = ("{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
        "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif "
        "message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}")
PHI3_FIRST = ("{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + "
              "message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}"
              "{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}")
PHI4MINI = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}")
GEMMA = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
         "{% for message in messages %}" + ALTERNATE + "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
         "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
         "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")
GEMMA3 = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""


def mistral(place, open_, close, reply):
    return MISTRAL_NEW.replace("PLACE", place).replace("OPEN", open_).replace("CLOSE", close).replace("REPLY", reply)


L3, S = ("<|begin_of_text|>", "<|eot_id|>"), ("<s>", "</s>")
TEMPLATES = [
    ("chatml", "chatml", None, "<|im_end|>", CHATML),
    ("smollm2", "chatml", "<|im_start|>", "<|im_end|>", SMOLLM2),
    ("qwen2.5", "chatml", None, "<|im_end|>", QWEN25),
    ("chatml-bos", "chatml", *S, "{{ bos_token }}" + CHATML),
    ("qwen3", None, None, "<|im_end|>", QWEN3_PART),
    ("llama2", "llama2", *S, LLAMA2),
    ("llama3", "llama3", *L3, LLAMA3),
    ("llama3.1", "llama3.1", *L3, LLAMA31),
    ("mistral-7b-v0.1", "mistral-v1", *S, MISTRAL1.replace("%s", " + ' '")),
    ("mistral-7b-v0.2", "mistral-v1", *S, MISTRAL1.replace("%s", "")),
    ("mistral-7b-v0.2-later", "mistral-v1", *S, mistral("first", " [INST] ", " [/INST]", '" " + message["content"]')),
    ("mistral-7b-v0.3", "mistral", *S, mistral("last", "[INST] ", "[/INST]", '" " + message["content"]|trim')),
    ("mistral-nemo", "mistral", *S, mistral("last", "[INST]", "[/INST]", 'message["content"]')),
    ("zephyr", "zephyr", *S, ZEPHYR),
    ("phi3", "phi3", "<s>", "<|endoftext|>", PHI3),
    ("phi3-first", None, "<s>", "<|endoftext|>", PHI3_FIRST),
    ("phi3-medium", None, "<s>", "<|endoftext|>", PHI3_FIRST[len("{{ bos_token }}"):]),
    ("phi4-mini", None, "<s>", "<|endoftext|>", PHI4MINI),
    ("gemma", "gemma", "<bos>", "<eos>", GEMMA),
    ("gemma-first", "gemma", "<bos>", "<eos>", GEMMA[len("{{ bos_token }}"):]),
    ("gemma3", "gemma", "<bos>", "<eos>", GEMMA3),
]


def turns(*texts, system=None):
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


CONVERSATIONS = [
    turns("Hi", "Hello there!"),
    turns("What is a ward?", "A ward is a room.", "And a bed?", "It stands in a ward.", system="Be brief."),
    turns("  spaces around  \n", "an answer with spaces behind \n ", "\tand tabs\t", "done", system="  Be \n kind. "),
    turns("one", "two", "three"),
    turns("only a question", system="Answer."),
    turns("Größe 敏捷 🙂\n\nnew paragraph\n", "naïve\n\n- list\n- item", "1 12 123", "4."),
    turns("a mark </s> and <|im_end|> inside", "so <|eot_id|> be it"),
    [{"role": "assistant", "content": "I begin"}, {"role": "user", "content": "no"}],
    [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}],
]


def build_tokenizer(corpus):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=420, min_frequency=2, show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.add_special_tokens([AddedToken(m, special=True, normalized=False, rstrip=m in RSTRIP) for m in MARKS])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


LED = {"llama2", "mistral-7b-v0.2-later", "mistral-7b-v0.3"}  # a reply begins with a space there


def scored_ids(fast, text, messages, stop, led):
    """The characters of each assistant's words and what ends them, as a mask over the ids."""
    encoded = fast(text, add_special_tokens=False, return_offsets_mapping=True)
    spans, at = [], 0
    for message in messages:
        words = message["content"] if message["content"] in text[at:] else message["content"].strip()
        start = text.find(words, at)
        if start < 0:
            continue  # the template leaves it out
        at = start + len(words)
        if message["role"] == "assistant":
            end = text.index(stop, at) + len(stop)
            spans.append((start - led, end))
            at = end
    # a word's token carries the space in front of it, a mark's the spaces behind it that it swallows
    marks = set(fast.all_special_ids) | {fast.convert_tokens_to_ids(m) for m in MARKS}
    mask = [int(any(a <= s < b if i in marks else a < e <= b for a, b in spans))
            for i, (s, e) in zip(encoded["input_ids"], encoded["offset_mapping"])]
    return encoded["input_ids"], mask


STOPS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "llama3.1": "<|eot_id|>", "phi3": "<|end|>", "gemma": "<end_of_turn>"}


def main(out):
    os.makedirs(os.path.join(out, "tokenizer"), exist_ok=True)
    tok = build_tokenizer([m["content"] for c in CONVERSATIONS for m in c] * 3)
    tok.save(os.path.join(out, "tokenizer", "tokenizer.json"), pretty=False)
    with open(os.path.join(out, "templates.jsonl"), "w", encoding="utf-8") as f:
        for name, form, bos, eos, jinja in TEMPLATES:
            f.write(json.dumps({"name": name, "form": form, "bos": bos, "eos": eos, "jinja": jinja}) + "\n")
    with open(os.path.join(out, "cases.jsonl"), "w", encoding="utf-8") as f:
        for name, form, bos, eos, jinja in TEMPLATES:
            fast = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=bos, eos_token=eos,
                                           clean_up_tokenization_spaces=False)
            fast.chat_template = jinja
            for messages in CONVERSATIONS if form else []:
                case = {"template": name, "messages": messages}
                try:
                    text = fast.apply_chat_template(messages, tokenize=False)
                except Exception:  # raise_exception() of the template
                    case["error"] = True
                else:
                    ids = fast.apply_chat_template(messages, tokenize=True, return_dict=False)
                    again, mask = scored_ids(fast, text, messages, STOPS.get(form, eos), name in LED)
                    assert ids == again, name
                    case.update(text=text, ids=ids, scored=mask)
                    prompt = fast.apply_chat_template([{"role": "user", "content": " Hi "}], tokenize=True,
                                                      add_generation_prompt=True, return_dict=False)
                    case["prompt"] = prompt
                f.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
