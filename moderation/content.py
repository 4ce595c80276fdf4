"""What is judged: parts of text and images, and the surface they stand on."""

from dataclasses import dataclass

from policies import Surface


@dataclass(frozen=True, slots=True)
class TextPart:
    """A run of text, judged as it is; never cut in silence."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """The bytes of an image file (PNG, JPEG, WebP, GIF; still or animated), or of a video (MP4,
    MOV, WebM, Matroska). What it is, its bytes say."""

    data: bytes


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Something that gets one verdict: a prompt or a response, in one or more parts."""

    surface: Surface
    """Prompt or response: the words that its text is judged by. Images have words of their own."""
    parts: tuple[Part, ...]
    context: str | None = None
    """For a response: the prompt that it answers, shown to the classifier but not judged."""

    def __post_init__(self) -> None:
        if self.surface is Surface.IMAGE:
            raise ValueError("content is a prompt or a response; an image is a part of it")

    @classmethod
    def prompt(cls, text: str) -> "Content":
        """A prompt of one text."""
        return cls(surface=Surface.PROMPT, parts=(TextPart(text),))

    @classmethod
    def response(cls, text: str, *, context: str | None = None) -> "Content":
        """A response of one text, with the prompt that it answers."""
        return cls(surface=Surface.RESPONSE, parts=(TextPart(text),), context=context)
