from moderation.content import Content, ImagePart
from policies import Surface
from service.gate.memory import PassedMemory
from tests.service.scripted import LIBRARY, ScriptedEngine, bad_is_bad, scripted_moderator

CLOSED, OPENED = LIBRARY.policy_set("closed"), LIBRARY.policy_set("opened")
ONE = Content.prompt("one")
VERDICT = scripted_moderator(ScriptedEngine(bad_is_bad)).judge(ONE, CLOSED)


def test_the_same_content_under_the_same_policies_is_known() -> None:
    memory = PassedMemory()
    memory.remember(ONE, CLOSED, VERDICT)
    assert memory.recall(Content.prompt("one"), CLOSED) is VERDICT


def test_other_text_surface_context_or_policies_are_not() -> None:
    memory = PassedMemory()
    memory.remember(Content.response("one", context="a"), CLOSED, VERDICT)
    for content in (
        Content.prompt("one"),
        Content.response("two", context="a"),
        Content.response("one", context="b"),
        Content.response("one"),
    ):
        assert memory.recall(content, CLOSED) is None
    assert memory.recall(Content.response("one", context="a"), OPENED) is None


def test_it_is_bounded_and_forgets_what_was_asked_for_longest_ago() -> None:
    memory = PassedMemory(capacity=2)
    memory.remember(ONE, CLOSED, VERDICT)
    memory.remember(Content.prompt("two"), CLOSED, VERDICT)
    memory.recall(ONE, CLOSED)
    memory.remember(Content.prompt("three"), CLOSED, VERDICT)
    assert memory.recall(Content.prompt("two"), CLOSED) is None
    assert memory.recall(ONE, CLOSED) is VERDICT


def test_it_holds_no_content() -> None:
    memory = PassedMemory()
    memory.remember(Content.prompt("a secret sentence"), CLOSED, VERDICT)
    assert "secret" not in repr(memory.__dict__)


def test_a_text_that_spells_an_images_bytes_is_not_that_image() -> None:
    memory = PassedMemory()
    memory.remember(Content.prompt(b"\xff\xd8".hex()), CLOSED, VERDICT)
    image = Content(surface=Surface.PROMPT, parts=(ImagePart(b"\xff\xd8"),))
    assert memory.recall(image, CLOSED) is None
