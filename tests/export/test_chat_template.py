"""Chat templates: Vicuna's are known in all their spellings, and others are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_export.chat_template import foreign_text
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export

from support.damage import edit, refused

# llava-hf/llava-1.5-7b-hf's, and llava-hf/llava-v1.6-vicuna-7b-hf's first lines.
LLAVA_HF = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}{# Render all text next #}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
LLAVA_NEXT_HF = LLAVA_HF.replace(
    "{% if message['role'] != 'system' %}",
    "{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}{% else %}",
)
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set system_message = 'A chat between a curious user and an artificial "
    "intelligence assistant. The assistant gives helpful, detailed, and polite answers to the "
    "user\\'s questions.' %}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 %}{{ system_message }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ ' USER: ' + message['content'].strip() }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
# Mistral-7B-Instruct-v0.2's, which llava-v1.6-mistral-7b has, and llava-v1.6-mistral-7b-hf's.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_HF = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\\n' + "
    "message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' }}{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' }}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] }}{% endfor %}{{' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'][0]['text'] + '<\\\\s> '}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# Qwen2-Instruct's, and a conversion's.
QWEN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN_HF = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n'}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] }}{% endfor %}{{'<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
OTHERS = {
    "Mistral 0.2": ("mistral_instruct", MISTRAL),
    "LLaVA 1.6 Mistral": ("mistral_instruct", MISTRAL_HF),
    "Mistral's end token": ("mistral_instruct", MISTRAL_HF.replace("<\\\\s> ", "</s> ")),
    "Qwen2": ("qwen_1_5", QWEN),
    "LLaVA-NeXT Qwen": ("qwen_1_5", QWEN_HF),
    "Qwen2 in lines": ("qwen_1_5", QWEN.replace("\\n", "\n")),
}
NOT_OTHERS = {
    "Mistral 0.3": ("mistral_instruct", MISTRAL.replace(" [/INST]", "[/INST]")),
    "Mistral with tools": ("mistral_instruct", MISTRAL + "[AVAILABLE_TOOLS]"),
    "Mistral without an end": ("mistral_instruct", "{{ '[INST] ' + message['content'] }}"),
    "a space for a line": ("qwen_1_5", QWEN_HF.replace("role'] + '\\n'", "role'] + ' '")),
    "another system prompt": ("qwen_1_5", QWEN.replace("a helpful", "an honest")),
    "thinking": ("qwen_1_5", QWEN.replace("assistant\\n'", "assistant\\n<think>\\n'")),
    "no generation prompt": ("qwen_1_5", QWEN.replace("<|im_start|>assistant\\n", "")),
    "vision tokens": ("qwen_1_5", QWEN_HF.replace("<image>\\n", "<|vision_start|>")),
    "Vicuna for Mistral": ("mistral_instruct", VICUNA),
    "Vicuna for Qwen": ("qwen_1_5", VICUNA),
}
OURS = {
    "LLaVA 1.5": LLAVA_HF,
    "LLaVA 1.6": LLAVA_NEXT_HF,
    "line break as itself": LLAVA_HF.replace("\\n", "\n"),
    "in lines": LLAVA_HF.replace("%}{%", "%}\n  {%"),
    "double quotes": LLAVA_HF.replace("'", '"'),
    "with white space control": LLAVA_HF.replace("{%", "{%- ").replace("%}", " -%}\n"),
    "filter": LLAVA_HF.replace(".upper()", " | upper"),
    "Vicuna 1.5": VICUNA,
    "Vicuna with </s>": VICUNA.replace("+ eos_token", "+ '</s>'"),
    "empty": "",
    "blank": " \n",
}
FOREIGN = {
    "ChatML": "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>{% endfor %}",
    "ChatML in strings": "{{ '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>' }}",
    "Phi-3": "{% for m in messages %}<|{{m.role}}|>\n{{m.content}}<|end|>\n{% endfor %}",
    "Llama 2": "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}",
    "Mistral": "{{ '[INST] ' + message['content'] + '[/INST]' }}",
    "Llama 3": "{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + content }}",
    "Gemma": "{{ '<start_of_turn>' + role + '\n' + content | trim + '<end_of_turn>\n' }}",
    "Zephyr": "{{ '<|user|>\n' + message['content'] + eos_token }}",
    "Alpaca": "### Instruction:\n{{ messages[0].content }}\n\n### Response:\n",
    "Vicuna 0": "{{ '### Human: ' + message['content'] }}{{ '### Assistant:' }}",
    "OpenChat": "{{ 'GPT4 Correct User: ' + message['content'] + '<|end_of_turn|>' }}",
    "DeepSeek": "{{ 'User: ' + message['content'] + '\n\nAssistant:' }}",
    "bare": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "plain text": "Answer the question.",
    "roles in lower case": LLAVA_HF.replace(".upper()", ""),
    "turns on lines": LLAVA_HF.replace("content['text'] + ' '", "content['text'] + '\\n'"),
    "another system prompt": VICUNA.replace("curious user", "doctor"),
    "text between tags": LLAVA_HF + "<|eot_id|>",
    "an instruction after": LLAVA_HF.replace("'ASSISTANT:'", "'ASSISTANT: Let us think.'"),
    "no generation prompt": LLAVA_HF.replace("'ASSISTANT:'", "' '"),
    "reasoning": LLAVA_HF.replace("'ASSISTANT:'", "'ASSISTANT:<think>\\n'"),
    "image at the end": LLAVA_HF.replace("<image>\\n", "\\n<image>"),
    "image as vision tokens": LLAVA_HF.replace("<image>\\n", "<|vision_start|>"),
    "hostile": "{#" * 40_000,
}


@pytest.mark.parametrize("name", OURS)
def test_vicunas_templates_are_known(name: str) -> None:
    assert foreign_text(OURS[name]) is None


@pytest.mark.parametrize("name", FOREIGN)
def test_other_templates_are_foreign(name: str) -> None:
    assert foreign_text(FOREIGN[name])


@pytest.mark.parametrize("name", OTHERS)
def test_other_decoders_templates_are_known(name: str) -> None:
    conversation, template = OTHERS[name]
    assert foreign_text(template, conversation) is None
    assert foreign_text(template) is not None


@pytest.mark.parametrize("name", NOT_OTHERS)
def test_what_is_foreign_to_other_decoders(name: str) -> None:
    conversation, template = NOT_OTHERS[name]
    assert foreign_text(template, conversation)


def test_a_known_conversation_of_another_decoder_is_named(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    store(path, "chat_template.jinja", MISTRAL_HF)
    message = refused(path)
    assert "export with --template llava_v1" in message
    assert "it looks like mistral_instruct, --template mistral_instruct" in message
    assert Checkpoint(path, template="mistral_instruct").spec.prompt.user == "[INST]"


@pytest.mark.parametrize("name", [n for n in OTHERS if "HF" not in n])
def test_other_templates_render_the_prompt_that_is_sent(name: str) -> None:
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    question: Any = [{"type": "image"}, {"type": "text", "text": "Rate?"}]
    conversation, source = OTHERS[name]
    if "selectattr" not in source:  # a text model's: the image is part of the text
        question = "<image>\nRate?"
    text = environment.from_string(source).render(
        messages=[{"role": "user", "content": question}], add_generation_prompt=True, bos_token=""
    )
    asked = {
        "mistral_instruct": "[INST] <image>\nRate? [/INST]",
        "qwen_1_5": "<|im_start|>user\n<image>\nRate?<|im_end|>\n<|im_start|>assistant\n",
    }
    assert text.endswith(asked[conversation])


@pytest.mark.parametrize("name", [n for n in OURS if "hite" not in n])
def test_known_templates_render_the_prompt_that_is_sent(name: str, tmp_path: Path) -> None:
    """As Hugging Face renders them, which has no more than white space at the ends different."""
    jinja2 = pytest.importorskip("jinja2")
    if not OURS[name].strip():
        return
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    source = OURS[name].replace("{% generation %}", "").replace("{% endgeneration %}", "")
    question: Any = [{"type": "image"}, {"type": "text", "text": "Rate?"}]
    expected = "USER: <image>\nRate? ASSISTANT:"
    if "Vicuna" in name:  # a text model's: the image is part of the text
        question = "<image>\nRate?"
    text = environment.from_string(source).render(
        messages=[{"role": "user", "content": question}], add_generation_prompt=True
    )
    assert text.strip().endswith(expected)


def store(path: Path, where: str, template: Any) -> None:
    if where.endswith(".jinja"):
        (path / where).parent.mkdir(exist_ok=True)
        (path / where).write_text(template, "utf-8")
    else:
        (path / where).exists() or (path / where).write_text("{}")
        edit(path, where, chat_template=template)


PLACES = [
    "tokenizer_config.json",
    "chat_template.json",
    "processor_config.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
]


@pytest.mark.parametrize("where", PLACES)
def test_templates_are_found_where_transformers_looks(
    checkpoint: Path, tmp_path: Path, where: str
) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    store(path, where, FOREIGN["ChatML"])
    message = refused(path)
    assert where in message
    assert "'<|im_start|>'" in message
    assert "--template llava_v1" in message
    assert Checkpoint(path, template="llava_v1").spec.prompt.name == "llava_v1"
    store(path, where, LLAVA_HF)
    assert Checkpoint(path).spec == Checkpoint(checkpoint).spec


@pytest.mark.parametrize(
    "named",
    [
        [{"name": "default", "template": LLAVA_HF}, {"name": "rag", "template": "[INST]"}],
        [{"name": "default", "template": "[INST]"}],
        {"default": LLAVA_HF, "rag": "[INST]"},
    ],
)
def test_named_templates(checkpoint: Path, tmp_path: Path, named: Any) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    store(path, "tokenizer_config.json", named)
    assert "chat_template 'rag' is" in refused(path) or "chat_template 'default' is" in refused(
        path
    )


@pytest.mark.parametrize("wrong", [1, True, ["x"], [{"name": "default"}], {"default": 1}])
def test_a_template_that_is_none(checkpoint: Path, tmp_path: Path, wrong: Any) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    store(path, "tokenizer_config.json", wrong)
    assert "must be text or named texts" in refused(path)


def test_a_template_file_that_is_no_text(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (path / "chat_template.jinja").write_bytes(b"\xff")
    assert "not UTF-8" in refused(path)
    (path / "chat_template.jinja").write_bytes(b"x" * (1 << 20))
    assert "not a chat template" in refused(path)
    (path / "chat_template.jinja").unlink()
    (path / "chat_template.jinja").mkdir()
    assert "not a chat template" in refused(path)


def test_an_export_says_which_template_it_took(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    store(path, "chat_template.jinja", FOREIGN["Llama 2"])
    export(path, tmp_path / "out", precision="fp32", template="llava_v1")
    prompt = open_bundle(tmp_path / "out").manifest.model.prompt
    assert (prompt.name, prompt.user) == ("llava_v1", "USER")
    assert json.loads((path / "config.json").read_text())  # the checkpoint is left alone
