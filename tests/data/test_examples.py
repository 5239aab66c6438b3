"""What each task reads of a row: the usual columns, those that are named, conversations through a template."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from gossamer.data.chat import chat_of
from gossamer.data.examples import Columns, Example, parse_columns
from gossamer.errors import GossamerError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
SHARED = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]
REFUSES = "{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
TEMPLATE = f"{{% for m in messages %}}{REFUSES}[{{{{ m.role }}}}] {{{{ m.content }}}}\n{{% endfor %}}"


def examples(task: str, *rows: dict[str, Any], chat: Any = None, **names: str) -> list[Example]:
    found = Columns(task, names, chat).examples(rows, "a.jsonl")
    return [one._replace(where="") for one in found]


def tokenizer(template: str | None) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("task", "row", "names", "expected"),
    [
        ("lm", {"text": "a", "label": 1}, {}, [Example("a")]),
        ("lm", {"review": "a", "text": "b"}, {"text": "review"}, [Example("a")]),
        ("mlm", {"text": "a", "messages": 7}, {}, [Example("a")]),
        ("classify", {"text": "a", "label": 1}, {}, [Example("a", label=1)]),
        ("classify", {"text": "a", "labels": [1]}, {}, [Example("a", label=[1])]),
        ("classify", {"text": "a"}, {}, [Example("a")]),
        ("classify", {"p": "a", "h": "b", "gold": "x", "label": "y"}, {"text": "p", "pair": "h", "label": "gold"},
         [Example("a", "b", label="x")]),
        ("embed", {"text": "a", "b": "b"}, {"pair": "b"}, [Example("a"), Example("b")]),
        ("embed", {"text": "a", "label": 1}, {}, [Example("a")]),
        ("tokens", {"tokens": ["a", "b"], "ner_tags": [0, 1]}, {}, [Example("a b", words=("a", "b"), label=[0, 1])]),
        ("tokens", {"words": ["a"], "tags": ["O"], "text": "z"}, {}, [Example("a", words=("a",), label=["O"])]),
        ("tokens", {"tokens": ["a"], "text": "z"}, {"text": "text"}, [Example("z")]),
        ("tokens", {"text": "z"}, {}, [Example("z")]),
    ],
)  # fmt: skip
def test_what_a_task_reads(
    task: str, row: dict[str, Any], names: dict[str, str], expected: list[Example]
) -> None:
    assert examples(task, row, **names) == expected


@pytest.mark.parametrize(
    ("column", "turns"), [("messages", TURNS), ("conversations", SHARED), ("talk", TURNS)]
)
def test_conversations_go_through_the_template(column: str, turns: Any) -> None:
    names = {"messages": column} if column == "talk" else {}
    found = examples("lm", {column: turns}, chat=chat_of(tokenizer(TEMPLATE)), **names)
    assert found == [Example("[user] hi\n[assistant] yes\n")]


def test_a_conversation_that_is_named_goes_before_the_usual_text() -> None:
    found = examples(
        "lm", {"text": "a", "messages": TURNS}, chat=chat_of(tokenizer(TEMPLATE)), messages="messages"
    )
    assert found == [Example("[user] hi\n[assistant] yes\n")]


@pytest.mark.parametrize(
    ("task", "rows", "names", "words"),
    [
        ("lm", [{"a": "x"}], {}, "no text in column 'text': row 1 has no such column: expected a. Name"),
        ("lm", [{"text": "x"}, {"text": 7}], {}, "row 2 holds a int there"),
        (
            "lm",
            [{"text": "x"}],
            {"label": "y"},
            "--column label=y under the task lm: expected a column for one of text",
        ),
        (
            "lm",
            [{"text": "x"}],
            {"text": "a", "messages": "b"},
            "--column text=... beside --column messages=...",
        ),
        ("lm", [{"messages": TURNS}], {}, "holds a conversation: expected texts"),
        ("lm", [{"messages": "hi"}], {}, "no list of turns in column 'messages': row 1 holds a str"),
        ("lm", [{"messages": []}], {}, "no list of turns in column 'messages': row 1 holds a list"),
        ("lm", [{"messages": [{"role": "user"}]}], {}, "expected a role and a content in each turn"),
        ("lm", [{"messages": [7]}], {}, "has a turn '7'"),
        (
            "classify",
            [{"text": "x", "label": 1}, {"text": "x"}],
            {},
            "no label in column 'label': row 2 has no such",
        ),
        (
            "classify",
            [{"text": "x"}],
            {"label": "gold"},
            "no label in column 'gold': row 1 has no such column",
        ),
        ("classify", [{"text": "x"}], {"pair": "b"}, "no text in column 'b'"),
        ("tokens", [{"x": 1}], {}, "no list of words in column 'tokens': row 1 has no such column"),
        ("tokens", [{"tokens": "a b"}], {}, "no list of words in column 'tokens': row 1 holds a str"),
        ("tokens", [{"tokens": [1]}], {}, "no list of words in column 'tokens': row 1 holds a list"),
    ],
)
def test_rows_that_a_task_cannot_read(task: str, rows: list[Any], names: dict[str, str], words: str) -> None:
    with pytest.raises(GossamerError) as error:
        examples(task, *rows, **names)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_a_template_and_a_template_that_refuses() -> None:
    with pytest.raises(
        GossamerError, match="row 1 holds a conversation, and the tokenizer has no chat template"
    ):
        examples("lm", {"messages": TURNS}, chat=chat_of(tokenizer(None)))
    turns = [{"role": "tool", "content": "x"}]
    with pytest.raises(
        GossamerError, match=r"conversation of a.jsonl, row 1 cannot be written out \(no tools\)"
    ):
        examples("lm", {"messages": turns}, chat=chat_of(tokenizer(TEMPLATE)))


def test_columns_are_named_by_their_role() -> None:
    assert parse_columns(["review"]) == {"text": "review"}
    assert parse_columns(["text=a", " label = b=c "]) == {"text": "a", "label": "b=c"}
    for given in (["sentence=a"], ["text="], ["a", "text=b"], [""]):
        with pytest.raises(GossamerError, match="--column"):
            parse_columns(given)
