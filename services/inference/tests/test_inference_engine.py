"""Claims about the scheduler, on a tiny model with random weights."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from peft import PeftModel

from inference.answer import Answer, Finish
from inference.sampling import Sampling
from modelkit import base_model
from modelkit.adapter import InvalidAdapter
from modelkit.weights import adapter
from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

PROMPTS = [
    "The actor",
    "Persistence: the malware writes a registry key and",
    "a",
    "PowerShell é 漢字 🎉 was used to",
]
LONG = Sampling(max_output_tokens=900)


def greedy(world: Any, prompt: str, served: int | None, tokens: int) -> list[int]:
    """What PEFT and transformers' own `generate` answer."""
    model, tokenizer = world.load()
    if served is not None:
        folder = adapter.fetch(world.adapters[served], world.store, world.cache, world.base_digest)
        model = PeftModel.from_pretrained(model, str(folder))
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    model.generation_config.eos_token_id = None
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return output[0, ids.shape[1] :].tolist()


def test_base_and_adapters_in_one_batch_answer_as_each_alone_by_peft(start_engine: Any, world: Any) -> None:
    running = start_engine(slots=3, begin=True)
    asked = [(prompt, served) for prompt, served in zip(PROMPTS, [None, 0, 1, 2], strict=True)]
    received = [running.ask(prompt, served)[0] for prompt, served in asked]
    for (prompt, served), one in zip(asked, received, strict=True):
        answer = one.answer()
        assert list(answer.output_tokens) == greedy(world, prompt, served, 12)
        assert answer.finish is Finish.LENGTH
        assert "".join(one.pieces) == answer.text
        assert answer.text == running.tokenizer.decode(answer.output_tokens, skip_special_tokens=True)


def test_rows_that_join_late_change_no_answer(start_engine: Any) -> None:
    sampling = Sampling(max_output_tokens=60)
    alone = start_engine()
    expected = [
        alone.ask(prompt, index % 2, sampling=sampling)[0].answer().output_tokens
        for index, prompt in enumerate(PROMPTS)
    ]
    running = start_engine()
    received = []
    for index, prompt in enumerate(PROMPTS):
        one, _ = running.ask(prompt, index % 2, sampling=sampling)
        assert one.first.wait(LONGEST_S)  # the next one joins while this one runs
        received.append(one)
    assert [one.answer().output_tokens for one in received] == expected


def test_sampling_depends_on_the_seed_and_not_on_the_batch(start_engine: Any) -> None:
    running = start_engine()
    sampling = [Sampling(max_output_tokens=20, temperature=0.9, top_p=0.9, seed=seed) for seed in (1, 1, 2)]
    together = [running.ask("The actor", sampling=one)[0] for one in sampling]
    first, same, other = (one.answer().output_tokens for one in together)
    alone = running.ask("The actor", sampling=sampling[0])[0].answer().output_tokens
    assert first == same == alone
    assert first != other


def test_log_probabilities_are_those_of_the_model(start_engine: Any, world: Any) -> None:
    answer = (
        start_engine()
        .ask("The actor", sampling=Sampling(max_output_tokens=20, temperature=1.5, seed=3))[0]
        .answer()
    )
    model, _ = world.load()
    tokens = torch.tensor([[*answer.request.prompt_tokens, *answer.output_tokens]])
    with torch.inference_mode():
        table = torch.log_softmax(model(tokens).logits[0], -1)
    start = len(answer.request.prompt_tokens)
    expected = [float(table[start + i - 1, token]) for i, token in enumerate(answer.output_tokens)]
    assert answer.log_probabilities == pytest.approx(expected, abs=1e-3)


def test_an_end_token_ends_the_answer_and_is_not_part_of_it(start_engine: Any) -> None:
    tokens = start_engine().ask("The actor")[0].answer().output_tokens
    last = next(i for i, token in enumerate(tokens) if token not in tokens[:i] and i > 1)
    answer = start_engine(end_tokens=frozenset({tokens[last]})).ask("The actor")[0].answer()
    assert answer.output_tokens == tokens[:last]
    assert answer.finish is Finish.STOP


def test_a_stop_string_ends_the_text_before_it(start_engine: Any) -> None:
    running = start_engine()
    whole = running.ask("The actor", sampling=Sampling(max_output_tokens=40))[0].answer().text
    stop = whole[10:13]
    received, _ = running.ask("The actor", sampling=Sampling(max_output_tokens=40, stop=("never", stop)))
    answer = received.answer()
    assert answer.finish is Finish.STOP
    assert "".join(received.pieces) == answer.text == whole[: whole.index(stop)]


def test_a_cancelled_answer_frees_its_row_and_is_recorded_as_partial(start_engine: Any) -> None:
    running = start_engine()
    received, handle = running.ask("The actor", 0, sampling=LONG, held=True)
    assert received.first.wait(LONGEST_S)
    handle.cancel()
    received.released.set()
    answer = received.answer()
    eventually(lambda: running.engine.idle)
    assert answer.finish is Finish.CANCELLED
    assert 0 < len(answer.output_tokens) < 900
    assert running.engine._decoder._slots == []
    assert running.engine._decoder._cache is None


def test_cancelling_one_row_leaves_the_others_as_they_were(start_engine: Any) -> None:
    running = start_engine()
    expected = running.ask("The actor", 1, sampling=Sampling(max_output_tokens=80))[0].answer().output_tokens
    received, handle = running.ask(PROMPTS[1], 0, sampling=LONG)
    assert received.first.wait(LONGEST_S)
    kept, _ = running.ask("The actor", 1, sampling=Sampling(max_output_tokens=80))
    assert kept.first.wait(LONGEST_S)
    handle.cancel()
    assert kept.answer().output_tokens == expected


def test_a_request_cancelled_while_it_waits_never_runs(start_engine: Any) -> None:
    running = start_engine(begin=False)
    received, handle = running.ask("The actor")
    handle.cancel()
    stop = threading.Event()
    thread = threading.Thread(target=running.engine.run, args=(stop,))
    thread.start()
    assert isinstance(received.end(), Cancelled)
    stop.set()
    thread.join()


def test_a_deadline_ends_a_running_answer_and_a_waiting_one(start_engine: Any) -> None:
    running = start_engine()
    deadline_s, ended = 0.2, running.ask("The actor", sampling=LONG, deadline_s=0.2)[0].end()
    while isinstance(ended, DeadlineExceeded):  # a slow machine had not begun it
        deadline_s *= 2
        ended = running.ask("The actor", sampling=LONG, deadline_s=deadline_s)[0].end()
    assert isinstance(ended, Answer)
    assert ended.finish is Finish.CANCELLED
    late, _ = running.ask("The actor", deadline_s=-1)
    assert isinstance(late.end(), DeadlineExceeded)


def test_a_full_queue_refuses_with_a_time_to_come_back(start_engine: Any) -> None:
    running = start_engine(begin=False)
    for _ in range(8):
        running.ask("a")
    with pytest.raises(ResourceExhausted) as caught:
        running.ask("a")
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1


def test_more_requests_than_sequences_are_all_answered(start_engine: Any) -> None:
    running = start_engine()
    received = [running.ask(PROMPTS[i % 4], [None, 0, 1][i % 3])[0] for i in range(8)]
    assert all(one.answer().finish is Finish.LENGTH for one in received)
    eventually(lambda: running.engine.idle)


def test_more_adapters_than_slots_take_turns(start_engine: Any, world: Any) -> None:
    running = start_engine(slots=1)
    received = [running.ask("The actor", served)[0] for served in (0, 1, 2, 0)]
    answers = [one.answer().output_tokens for one in received]
    assert [list(tokens) for tokens in answers] == [greedy(world, "The actor", s, 12) for s in (0, 1, 2, 0)]


def test_an_adapter_that_cannot_be_loaded_fails_only_its_own_requests(start_engine: Any, world: Any) -> None:
    def fetch(digest: str) -> adapter.Adapter:
        if digest == world.adapters[0]:
            raise InvalidAdapter("of another base")
        if digest == world.adapters[1]:
            raise OSError("the bucket does not answer")
        return world.fetch(digest)

    running = start_engine(fetch=fetch)
    invalid, unreachable, good = (running.ask("The actor", served)[0] for served in (0, 1, 2))
    assert isinstance(invalid.end(), FailedPrecondition)
    assert isinstance(unreachable.end(), Unavailable)
    assert good.answer().finish is Finish.LENGTH


def test_a_failed_step_ends_its_answers_and_the_engine_continues(start_engine: Any) -> None:
    running = start_engine()
    decoder, step = running.engine._decoder, running.engine._decoder.step

    def broken(tokens: list[int]) -> torch.Tensor:
        decoder.step = step
        raise RuntimeError("out of memory")

    decoder.step = broken
    assert isinstance(running.ask("The actor", 0)[0].end(), Unavailable)
    assert running.ask("The actor", 0)[0].answer().finish is Finish.LENGTH


def test_stopping_records_what_runs_and_refuses_what_waits(start_engine: Any) -> None:
    running = start_engine(begin=False)
    stop = threading.Event()
    thread = threading.Thread(target=running.engine.run, args=(stop,))
    # One more than there are rows. The last row is held, and with it the engine, until the stop.
    received = [running.ask("The actor", sampling=LONG, held=number == 3)[0] for number in range(5)]
    thread.start()
    assert received[3].first.wait(LONGEST_S)
    stop.set()
    received[3].released.set()
    thread.join()
    assert all(one.answer().finish is Finish.CANCELLED for one in received[:4])
    assert isinstance(received[4].end(), Unavailable)
    with pytest.raises(Unavailable):
        running.ask("a")


def test_base_model_loads_with_the_world(world: Any) -> None:
    assert base_model.read_manifest(world.base_digest, world.store).name == "tiny"
