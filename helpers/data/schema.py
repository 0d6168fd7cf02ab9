"""What stands in each file of the desk's data, field by field. Explained in lesson 04; the data card is `helpers/data/README.md`."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import BaseModel, ConfigDict, Field

Product = Literal["Rill", "Tumbla", "Tarn", "Fjell", "Glod", "Skarn", "Brisa", "Mokko", "Pip", "Plissa"]
Problem = Literal["no_power", "leak", "noise", "poor_result", "smell", "broken_part", "missing_part", "display_app",
                  "delivery", "billing", "question"]
Tone = Literal["sarcastic", "angry", "worried", "thankful", "confused", "neutral"]
Topic = Literal["setup", "use", "care", "codes", "parts", "trouble", "notice", "warranty", "returns", "delivery", "payment",
                "service", "app", "company"]
Failure = Literal["wrong_fact", "off_style", "rude", "too_long", "invented_policy"]
Channel = Literal["mail", "chat", "voice"]
Hard = Literal["two_problems", "alias", "misspelt", "sarcasm", "missing_facts", "history", "mixed_language", "indirect"]
Split = Literal["train", "validation", "test"]

ArticleId = Annotated[str, Field(pattern=r"^kb-\d{3}$")]
FactId = Annotated[str, Field(pattern=r"^kb-\d{3}/f\d+$", description="article, then the number of the fact in it")]


class Strict(BaseModel):
    """No field more, none less, and no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Record(Strict):
    """The desk's record of a ticket. The annotation guide, `helpers/data/extract/GUIDE.md`, defines every field."""

    product: Product | None
    problem: Problem
    error_codes: list[Annotated[str, Field(pattern=r"^[A-Z]?[0-9]+$")]] = Field(
        description="a capital letter, if told, and digits; in the order told, once each")
    age_months: int | None = Field(ge=0, description="how long the customer has had the product")
    order: str | None = Field(pattern=r"^PW-[0-9]{6}$")
    name: str | None = Field(min_length=1)
    safety: bool


# ---------------------------------------------------------------- files that are not conversations


class Article(Strict):
    """One article of the knowledge base in one edition; `text` is Markdown and begins with the title."""

    id: ArticleId
    edition: Literal[1, 2]
    title: str
    product: Product | None = Field(description="null: a policy or the company")
    topic: Topic
    text: str


class Fact(Strict):
    """One fact of an article, as it stands in the text of each edition; null where the edition lacks the article."""

    id: FactId
    article: ArticleId
    fact: str = Field(description="what the fact is, in words")
    edition_1: str | None
    edition_2: str | None


class Parallel(Strict):
    """One sentence to the desk in English, Marathi and Nepali."""

    id: str = Field(pattern=r"^pa-\d{2}$")
    en: str = Field(min_length=1)
    mr: str = Field(min_length=1)
    ne: str = Field(min_length=1)


# ---------------------------------------------------------------- rows of the chat files, beside `messages`


class Turn(Strict):
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class ChatRow(Strict):
    id: str
    messages: list[Turn]
    split: Split


class WrittenRow(ChatRow):
    batch: str = Field(description="who wrote it: rows of one batch come from one writer")


class Ticket(WrittenRow):
    """`extract`: a ticket and its record."""

    wants: Literal["repair", "replacement", "refund", "spare_part", "advice"] | None = Field(
        description="what the customer asks for; labelled beside the record, not part of it")
    channel: Channel
    hard: list[Hard] = Field(description="what makes the row hard; the guide explains the marks")


class ToneMessage(WrittenRow):
    """`tone`: a message and its tone."""

    channel: Channel
    hard: bool = Field(description="a quick reader would take another tone")


class Question(WrittenRow):
    """`answer`: a question and its short answer, by edition 1 in `messages`, by edition 2 beside it."""

    kind: Literal["fact", "two_articles", "unanswerable"]
    facts: list[FactId] = Field(description="what the answer needs")
    accepted_1: list[str] = Field(description="other right ways to write the answer, edition 1")
    answer_2: str
    accepted_2: list[str]
    absent: list[str] = Field(description="unanswerable questions: terms that an answering article would contain and none does")


class Source(Strict):
    article: ArticleId
    section: str = Field(description="a heading of the article, or empty for the text before the first one")


class Reply(WrittenRow):
    """`reply`: a ticket and the desk's reply in house style, from sections of edition 1."""

    sources: list[Source]
    name: str | None = Field(description="the customer's name if the ticket gives it")
    product: Product | None
    channel: Channel


class Preference(ChatRow):
    """A reply of `reply` (the one in `messages`) and a worse one, which fails in a named way."""

    reply: str = Field(pattern=r"^re-\d{4}$", description="the id of the reply")
    rejected: str
    failure: Failure
    why: str


class Contains(Strict):
    type: Literal["contains", "exact", "starts"]
    any: list[str]


class ContainsAll(Strict):
    type: Literal["contains_all"]
    all: list[str]


class Number(Strict):
    type: Literal["number"]
    value: float


class Words(Strict):
    type: Literal["words"]
    low: int
    high: int


class Items(Strict):
    type: Literal["items"]
    count: int


class Lacks(Strict):
    type: Literal["lacks"]
    none: list[str]


class Plain(Strict):
    type: Literal["upper", "perplexity"]


Check = Union[Contains, ContainsAll, Number, Words, Items, Lacks, Plain]


class ProbeItem(ChatRow):
    """One item of the general probe: a question that has nothing to do with the desk, and the rule that checks an answer."""

    kind: Literal["knowledge", "arithmetic", "instruction", "prose"]
    check: Check
